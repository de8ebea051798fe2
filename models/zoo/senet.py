"""SENet: each residual block scales its channels by factors computed from all channels, for less than 1 % of the cost.

Global pool, C -> C / 16, ReLU, C / 16 -> C, sigmoid, scale. The layout is that of the authors' published networks:
stride in the first 1x1 (SE-ResNet), max pooling without padding that rounds up; SENet-154 also has a deep stem, doubled
widths and 3x3 projections. Keys are those of the published checkpoints, as in timm's `legacy_*` networks.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from ._layers import he_init, relu

PAPER = "Hu et al., Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507"

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 154: (3, 8, 36, 3)}


class SEModule(nn.Module):
    """(N, C, H, W) -> (N, C, H, W), each channel scaled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled input."""
        scale = torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(scale))


class Block(nn.Module):
    """1x1 - 3x3 - 1x1 - SE, added to the (projected) input, ReLU.

    `kind` defines the width of the middle and the position of the stride: "resnet" (filters, stride in the first 1x1),
    "resnext" (half as wide as the output in 32 groups of 4), "senet" (2 and 4 times the filters in 64 groups).
    (N, inputs, H, W) -> (N, 4 * filters, H / stride, W / stride)
    """

    def __init__(self, inputs: int, filters: int, stride: int, kind: str) -> None:
        super().__init__()
        first, middle, groups = {
            "resnet": (filters, filters, 1),
            "resnext": (filters * 2, filters * 2, 32),
            "senet": (filters * 2, filters * 4, 64),
        }[kind]
        early = stride if kind == "resnet" else 1
        self.conv1 = nn.Conv2d(inputs, first, 1, early, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, middle, 3, stride // early, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, filters * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(filters * 4)
        self.relu = relu()
        self.se_module = SEModule(filters * 4)
        self.downsample = None
        if stride != 1 or inputs != filters * 4:
            kernel = 3 if kind == "senet" and stride != 1 else 1
            project = nn.Conv2d(inputs, filters * 4, kernel, stride, kernel // 2, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(filters * 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.se_module(self.bn3(self.conv3(out)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class SENet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, depth: int, kind: str, num_classes: int) -> None:
        super().__init__()
        widths = ((3, 64, 2), (64, 64, 1), (64, 128, 1)) if kind == "senet" else ((3, 64, 2),)
        stem: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (inputs, outputs, stride) in enumerate(widths, start=1):
            kernel = 3 if kind == "senet" else 7
            stem[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            stem[f"bn{number}"] = nn.BatchNorm2d(outputs)
            stem[f"relu{number}"] = relu()
        stem["pool"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.layer0 = nn.Sequential(stem)
        channels = widths[-1][1]
        for stage, blocks in enumerate(STAGES[depth]):
            filters, layer = 64 << stage, nn.Sequential()
            for index in range(blocks):
                layer.append(Block(channels, filters, 2 if stage and index == 0 else 1, kind))
                channels = filters * 4
            self.add_module(f"layer{stage + 1}", layer)
        self.dropout = nn.Dropout(0.2 if kind == "senet" else 0.0)
        self.last_linear = nn.Linear(channels, num_classes)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        for index in range(5):
            x = self.get_submodule(f"layer{index}")(x)
        return self.last_linear(self.dropout(x.mean((2, 3))))


# fmt: off
VARIANTS = {
    "se_resnet50": {"args": {"depth": 50, "kind": "resnet"}, "keys": "timm", "aliases": ["legacy_seresnet50"],
        "params": 28088024,
        "macs": 3870000000, "top1": 76.71, "top5": 93.38, "source": "Hu et al. 2017, table 2 (28.1 M, 3.87 G)",
        "checkpoint": "se_resnet50-ce0d4300.pth", "url": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"},
    "se_resnext50_32x4d": {"args": {"depth": 50, "kind": "resnext"}, "keys": "timm",
        "aliases": ["legacy_seresnext50_32x4d"],
        "params": 27559896, "top1": 78.90, "top5": 94.49, "source": "Hu et al. 2017, table 2 (27.6 M)",
        "checkpoint": "legacy_se_resnext50_32x4d-f3651bad.pth", "url": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"},
    "senet154": {"args": {"depth": 154, "kind": "senet"}, "keys": "timm", "aliases": ["legacy_senet154"],
        "params": 115088984,
        "macs": 20700000000, "top1": 81.32, "top5": 95.53,
        "source": "Hu et al. 2017, table 9; released net 115.1 M, 20.7 G",
        "checkpoint": "legacy_senet154-e9eb9fe6.pth", "url": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"},
}
# fmt: on


def build(depth: int, kind: str, num_classes: int = 1000) -> nn.Module:
    """Build a depth of STAGES from blocks of one kind."""
    return SENet(depth, kind, num_classes)
