"""GhostNet: half of the channels of a 1x1 convolution come from a depthwise one of the other half (papers below).

The bottlenecks of MobileNet v3 (large) with such modules. V2 multiplies the widening ones by an attention over rows and
columns, computed at half the size. State-dict keys are timm's.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from ._layers import SqueezeExcite, he_init, relu, round_channels

PAPER = "Han et al., GhostNet: More Features from Cheap Operations, 2020, arXiv:1911.11907"

# Stages of (kernel, expanded channels, output channels, squeeze-and-excite, stride): GhostNet's table 1
NETWORK = (
    ((3, 16, 16, 0, 1),), ((3, 48, 24, 0, 2),), ((3, 72, 24, 0, 1),), ((5, 72, 40, 1, 2),), ((5, 120, 40, 1, 1),),
    ((3, 240, 80, 0, 2),),
    ((3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 1, 1), (3, 672, 112, 1, 1)),
    ((5, 672, 160, 1, 2),),
    ((5, 960, 160, 0, 1), (5, 960, 160, 1, 1), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1)),
)  # fmt: skip
PLAIN = 2  # bottlenecks without attention at the beginning of v2
HEAD = 1280


def unit(
    inputs: int, outputs: int, kernel: int | tuple[int, int], groups: int = 1, stride: int = 1, act: bool = False
) -> list[nn.Module]:
    """Return convolution, batch norm, ReLU if `act`; padded so that stride 1 keeps the size."""
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = sides[0] // 2, sides[1] // 2
    conv = nn.Conv2d(inputs, outputs, sides, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), *([relu()] if act else [])]


class Ghost(nn.Module):
    """1x1 to half of the channels, depthwise 3x3 of these to the others. (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, act: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.primary_conv = nn.Sequential(*unit(inputs, half, 1, act=act))
        self.cheap_operation = nn.Sequential(*unit(half, half, 3, half, act=act))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return both halves."""
        first = self.primary_conv(x)
        return torch.cat([first, self.cheap_operation(first)], 1)


class AttentiveGhost(Ghost):
    """V2's: multiplied by the sigmoid of 1x1, 1x5, 5x1 of the input at half its size (DFC attention)."""

    def __init__(self, inputs: int, outputs: int, act: bool) -> None:
        super().__init__(inputs, outputs, act)
        rows, columns = unit(outputs, outputs, (1, 5), outputs), unit(outputs, outputs, (5, 1), outputs)
        self.short_conv = nn.Sequential(*unit(inputs, outputs, 1), *rows, *columns)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return both halves, weighted."""
        y = super().forward(x)
        weights = self.short_conv(nn.functional.avg_pool2d(x, 2)).sigmoid()
        return y * nn.functional.interpolate(weights, size=y.shape[-2:], mode="nearest")


class Bottleneck(nn.Module):
    """Ghost widen - depthwise if there is a stride - squeeze-and-excite - ghost narrow (linear); added to the shortcut.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(
        self, inputs: int, wide: int, outputs: int, kernel: int, excite: bool, stride: int, attentive: bool
    ) -> None:
        super().__init__()
        self.ghost1 = (AttentiveGhost if attentive else Ghost)(inputs, wide, act=True)
        if stride > 1:
            self.conv_dw, self.bn_dw = unit(wide, wide, kernel, wide, stride)
        self.strided = stride > 1
        squeezed, keys = round_channels(wide / 4, 4), ("conv_reduce", "conv_expand")
        self.se = SqueezeExcite(wide, squeezed, gate=nn.Hardsigmoid, keys=keys) if excite else nn.Identity()
        self.ghost2 = Ghost(wide, outputs, act=False)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut.extend([*unit(inputs, inputs, kernel, inputs, stride), *unit(inputs, outputs, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.ghost1(x)
        if self.strided:
            y = self.bn_dw(self.conv_dw(y))
        return self.ghost2(self.se(y)) + self.shortcut(x)


class GhostNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, width: float, attentive: bool, num_classes: int) -> None:
        super().__init__()
        channels = round_channels(16 * width, 4)
        self.conv_stem, self.bn1 = unit(3, channels, 3, stride=2)
        self.blocks, number, wide = nn.Sequential(), 0, 0
        for rows in NETWORK:
            stage = nn.Sequential()
            for kernel, expanded, c, excite, stride in rows:
                wide, outputs = round_channels(expanded * width, 4), round_channels(c * width, 4)
                attends = attentive and number >= PLAIN
                stage.append(Bottleneck(channels, wide, outputs, kernel, bool(excite), stride, attends))
                channels, number = outputs, number + 1
            self.blocks.append(stage)
        names = zip(("conv", "bn1", "act"), unit(channels, wide, 1, act=True), strict=True)
        self.blocks.append(nn.Sequential(nn.Sequential(OrderedDict(names))))
        self.conv_head, self.classifier = nn.Conv2d(wide, HEAD, 1), nn.Linear(HEAD, num_classes)
        self.dropout = nn.Dropout(0.2)
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.blocks(nn.functional.relu(self.bn1(self.conv_stem(x)), inplace=True))
        x = nn.functional.relu(self.conv_head(nn.functional.adaptive_avg_pool2d(x, 1)), inplace=True)
        return self.classifier(self.dropout(x.flatten(1)))


# fmt: off
VARIANTS = {
    "ghostnet_050": {"args": {"width": 0.5}, "params": 2587292, "macs": 42000000, "top1": 66.2, "top5": 86.6,
        "source": "the paper: 2.6 M, 42 M, 66.2 %", "interpolation": "bicubic", "keys": "timm"},
    "ghostnet_100": {"args": {"width": 1.0}, "aliases": ["ghostnet"], "params": 5182508, "macs": 141000000,
        "top1": 73.9, "top5": 91.4, "source": "the paper: 5.2 M, 141 M, 73.9 %", "interpolation": "bicubic",
        "keys": "timm"},
    "ghostnet_130": {"args": {"width": 1.3}, "params": 7358820, "macs": 226000000, "top1": 75.7, "top5": 92.7,
        "source": "the paper: 7.3 M, 226 M, 75.7 %", "interpolation": "bicubic", "keys": "timm"},
    "ghostnetv2_100": {"args": {"width": 1.0, "attentive": True}, "aliases": ["ghostnetv2"], "params": 6156908,
        "macs": 167000000, "top1": 75.3, "top5": 92.4, "source": "the paper: 6.1 M, 167 M, 75.3 %",
        "interpolation": "bicubic", "keys": "timm",
        "paper": "Tang et al., GhostNetV2: Enhance Cheap Operation with Long-Range Attention, 2022, arXiv:2211.12905"},
    "ghostnetv2_130": {"args": {"width": 1.3, "attentive": True}, "params": 8960404, "macs": 269000000, "top1": 76.9,
        "top5": 93.4, "source": "the paper: 8.9 M, 269 M, 76.9 %", "interpolation": "bicubic", "keys": "timm",
        "paper": "Tang et al., GhostNetV2: Enhance Cheap Operation with Long-Range Attention, 2022, arXiv:2211.12905"},
    "ghostnetv2_160": {"args": {"width": 1.6, "attentive": True}, "params": 12392698, "macs": 399000000, "top1": 77.8,
        "top5": 93.8, "source": "the paper: 12.3 M, 399 M, 77.8 %", "interpolation": "bicubic", "keys": "timm",
        "paper": "Tang et al., GhostNetV2: Enhance Cheap Operation with Long-Range Attention, 2022, arXiv:2211.12905"},
}
# fmt: on


def build(width: float = 1.0, attentive: bool = False, num_classes: int = 1000) -> nn.Module:
    """Build GhostNet, v2 if `attentive`, with `width` times the channels."""
    return GhostNet(width, attentive, num_classes)
