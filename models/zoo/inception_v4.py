"""Inception v4 and Inception-ResNet v2: a uniform deep Inception net, and the same idea with residual sums.

Modules are parallel chains of convolutions, written as tables: (filters, kernel, stride, pad) for each convolution,
or a kind of pooling. State-dict keys are those of timm's `inception_v4` and `inception_resnet_v2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ._layers import ConvBN, trunc_normal_init

PAPER = "Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections, 2016, arXiv:1602.07261"

AVG, MAX = "average", "maximum"
H7, V7 = (1, 7), (7, 1)


def chain(inputs: int, units: Sequence[Any]) -> tuple[nn.Module, int]:
    """Build one branch; returns it and its output channels. AVG keeps the size, MAX halves it."""
    layers: list[nn.Module] = []
    for unit in units:
        if unit == AVG:
            layers.append(nn.AvgPool2d(3, 1, 1, count_include_pad=False))
        elif unit == MAX:
            layers.append(nn.MaxPool2d(3, 2))
        else:
            layers.append(ConvBN(inputs, *unit))
            inputs = unit[0]
    return (layers[0] if len(layers) == 1 else nn.Sequential(*layers)), inputs


class Mixed(nn.Module):
    """Parallel branches, keys branch0, branch1, …: (N, inputs, H, W) -> (N, sum of the branches, H', W')."""

    def __init__(self, inputs: int, *branches: Sequence[Any], pool: str = "") -> None:
        super().__init__()
        self.outputs = 0
        for index, units in enumerate(branches):
            module, channels = chain(inputs, units)
            self.add_module(f"branch{index}", module)
            self.outputs += channels
        if pool:
            self.add_module(pool, nn.MaxPool2d(3, 2))
            self.outputs += inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches side by side."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Fork(nn.Module):
    """1x1; 1x1 - {1x3, 3x1}; 1x1 - 3x1 - 1x3 - {1x3, 3x1}; pool - 1x1. (N, C, H, W) -> (N, 1536, H, W)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch0 = ConvBN(inputs, 256, 1)
        self.branch1_0 = ConvBN(inputs, 384, 1)
        self.branch1_1a, self.branch1_1b = ConvBN(384, 256, (1, 3)), ConvBN(384, 256, (3, 1))
        self.branch2_0 = ConvBN(inputs, 384, 1)
        self.branch2_1, self.branch2_2 = ConvBN(384, 448, (3, 1)), ConvBN(448, 512, (1, 3))
        self.branch2_3a, self.branch2_3b = ConvBN(512, 256, (1, 3)), ConvBN(512, 256, (3, 1))
        self.branch3 = chain(inputs, [AVG, (256, 1)])[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches side by side."""
        short, deep = self.branch1_0(x), self.branch2_2(self.branch2_1(self.branch2_0(x)))
        forks = (self.branch1_1a(short), self.branch1_1b(short), self.branch2_3a(deep), self.branch2_3b(deep))
        return torch.cat([self.branch0(x), *forks, self.branch3(x)], dim=1)


class Stem(nn.Module):
    """A convolution parallel to max pooling: key conv."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.maxpool = nn.MaxPool2d(3, 2)
        self.conv = ConvBN(inputs, outputs, 3, 2, pad=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return both side by side."""
        return torch.cat([self.maxpool(x), self.conv(x)], dim=1)


class Swapped(Stem):
    """The same with the convolution first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return both side by side."""
        return torch.cat([self.conv(x), self.maxpool(x)], dim=1)


def v4_features() -> nn.Sequential:
    """Stem, four A, reduction, seven B, reduction, three C."""
    second = [(64, 1), (64, H7), (64, V7), (96, 3, 1, 0)]
    a = ([(96, 1)], [(64, 1), (96, 3)], [(64, 1), (96, 3), (96, 3)], [AVG, (96, 1)])
    b = (
        [(384, 1)], [(192, 1), (224, H7), (256, V7)],
        [(192, 1), (192, V7), (224, H7), (224, V7), (256, H7)], [AVG, (128, 1)],
    )  # fmt: skip
    layers: list[nn.Module] = [ConvBN(3, 32, 3, 2, pad=0), ConvBN(32, 32, 3, pad=0), ConvBN(32, 64, 3), Stem(64, 96)]
    layers += [Mixed(160, [(64, 1), (96, 3, 1, 0)], second), Swapped(192, 192)]
    layers += [Mixed(384, *a) for _ in range(4)]
    layers.append(Mixed(384, [(384, 3, 2, 0)], [(192, 1), (224, 3), (256, 3, 2, 0)], pool="branch2"))
    layers += [Mixed(1024, *b) for _ in range(7)]
    reduce = ([(192, 1), (192, 3, 2, 0)], [(256, 1), (256, H7), (320, V7), (320, 3, 2, 0)])
    layers.append(Mixed(1024, *reduce, pool="branch2"))
    return nn.Sequential(*layers, *(Fork(1536) for _ in range(3)))


class InceptionV4(nn.Module):
    """(N, 3, H, W) -> (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = v4_features()
        self.last_linear = nn.Linear(1536, num_classes)
        trunc_normal_init(self, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.last_linear(self.features(x).mean((2, 3)))


class Residual(nn.Module):
    """x + scale * (1x1 of the branches), ReLU unless `last`: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, scale: float, *branches: Sequence[Any], last: bool = False) -> None:
        super().__init__()
        self.scale, self.last, self.count = scale, last, len(branches)
        mixed = Mixed(channels, *branches)
        for name, branch in list(mixed.named_children()):
            self.add_module(name, branch)
        self.conv2d = nn.Conv2d(mixed.outputs, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        branches = [self.get_submodule(f"branch{index}")(x) for index in range(self.count)]
        out = x + self.scale * self.conv2d(torch.cat(branches, dim=1))
        return out if self.last else torch.relu(out)


class InceptionResNetV2(nn.Module):
    """(N, 3, H, W) -> (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv2d_1a, self.conv2d_2a, self.conv2d_2b = (
            ConvBN(3, 32, 3, 2, pad=0), ConvBN(32, 32, 3, pad=0), ConvBN(32, 64, 3),
        )  # fmt: skip
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b, self.conv2d_4a = ConvBN(64, 80, 1), ConvBN(80, 192, 3, pad=0)
        self.maxpool_5a = nn.MaxPool2d(3, 2)
        self.mixed_5b = Mixed(192, [(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)], [AVG, (64, 1)])
        a = ([(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)])
        self.repeat = nn.Sequential(*(Residual(320, 0.17, *a) for _ in range(10)))
        self.mixed_6a = Mixed(320, [(384, 3, 2, 0)], [(256, 1), (256, 3), (384, 3, 2, 0)], pool="branch2")
        b = ([(192, 1)], [(128, 1), (160, H7), (192, V7)])
        self.repeat_1 = nn.Sequential(*(Residual(1088, 0.10, *b) for _ in range(20)))
        reduce = ([(256, 1), (384, 3, 2, 0)], [(256, 1), (288, 3, 2, 0)], [(256, 1), (288, 3), (320, 3, 2, 0)])
        self.mixed_7a = Mixed(1088, *reduce, pool="branch3")
        c = ([(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))])
        self.repeat_2 = nn.Sequential(*(Residual(2080, 0.20, *c) for _ in range(9)))
        self.block8 = Residual(2080, 1.0, *c, last=True)
        self.conv2d_7b = ConvBN(2080, 1536, 1)
        self.classif = nn.Linear(1536, num_classes)
        trunc_normal_init(self, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.mixed_5b(self.maxpool_5a(self.conv2d_4a(self.conv2d_3b(x))))
        x = self.mixed_7a(self.repeat_1(self.mixed_6a(self.repeat(x))))
        return self.classif(self.conv2d_7b(self.block8(self.repeat_2(x))).mean((2, 3)))


# fmt: off
VARIANTS = {
    "inception_v4": {"args": {"version": "v4"}, "keys": "timm", "input": [3, 299, 299], "resize": 342, "digits": 128,
        "params": 42679816, "macs": 12280000000, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "top1": 80.0,
        "top5": 95.0, "source": "Szegedy et al. 2016, table 2 (one crop); timm 42.68 M, 12.28 G"},
    "inception_resnet_v2": {"args": {"version": "resnet_v2"}, "keys": "timm", "input": [3, 299, 299], "resize": 342,
        "digits": 128, "params": 55843464, "macs": 13180000000, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "top1": 80.1, "top5": 95.1, "source": "Szegedy et al. 2016, table 2 (one crop); timm 55.84 M, 13.18 G"},
}
# fmt: on


def build(version: str, num_classes: int = 1000) -> nn.Module:
    """Build Inception "v4", or Inception-ResNet "resnet_v2"."""
    return InceptionV4(num_classes) if version == "v4" else InceptionResNetV2(num_classes)
