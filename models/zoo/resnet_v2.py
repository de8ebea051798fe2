"""ResNet v2: batch norm and ReLU before each convolution, so that the shortcut path is an identity.

Keys are those of timm's `resnetv2_*` with ordinary convolutions.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import StochasticDepth, he_init, stochastic_depth

PAPER = "He et al., Identity Mappings in Deep Residual Networks, 2016, arXiv:1603.05027"

NETWORK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # blocks in each of the four stages


class Projection(nn.Module):
    """A 1x1 convolution at the start of a stage; key `conv`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the projected input."""
        return self.conv(x)


class Bottleneck(nn.Module):
    """BN - ReLU - 1x1 - BN - ReLU - 3x3 - BN - ReLU - 1x1; the shortcut is projected after the first ReLU.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        width = outputs // 4
        self.downsample = Projection(inputs, outputs, stride) if first else None
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.drop = StochasticDepth()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        active = torch.relu(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(active)
        out = self.conv1(active)
        out = self.conv2(torch.relu(self.norm2(out)))
        return self.drop(self.conv3(torch.relu(self.norm3(out)))) + shortcut


class ResNetV2(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, depth: int, drop: float, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.stem.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.Sequential()
        channels = 64
        for stage, blocks in enumerate(NETWORK[depth]):
            layer, outputs = nn.Module(), 256 << stage
            layer.blocks = nn.Sequential()
            for index in range(blocks):
                stride = 2 if stage and index == 0 else 1
                layer.blocks.append(Bottleneck(channels, outputs, stride, index == 0))
                channels = outputs
            self.stages.append(layer)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Module()
        self.head.fc = nn.Conv2d(channels, num_classes, 1)
        stochastic_depth(self, drop)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage.blocks(x)  # type: ignore[operator]
        x = torch.relu(self.norm(x)).mean((2, 3), keepdim=True)
        return torch.flatten(self.head.fc(x), 1)  # type: ignore[operator]


# fmt: off
VARIANTS = {
    "resnet50_v2": {"args": {"depth": 50}, "keys": "timm", "aliases": ["resnetv2_50"], "params": 25549352,
        "macs": 4110000000,
        "source": "timm resnetv2_50 (25.55 M, 4.11 G)"},
    "resnet101_v2": {"args": {"depth": 101}, "keys": "timm", "aliases": ["resnetv2_101"], "params": 44541480,
        "macs": 7830000000,
        "source": "timm resnetv2_101 (44.54 M, 7.83 G)"},
    "resnet152_v2": {"args": {"depth": 152}, "keys": "timm", "aliases": ["resnetv2_152"], "params": 60185128,
        "macs": 11550000000,
        "source": "timm resnetv2_152 (60.19 M, 11.55 G)"},
}
# fmt: on


def build(depth: int, drop: float = 0.0, num_classes: int = 1000) -> nn.Module:
    """Build a depth of NETWORK.

    `drop` is the probability that stochastic depth drops the last block in training.
    """
    return ResNetV2(depth, drop, num_classes)
