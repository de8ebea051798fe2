"""EfficientNet: a network found by search (B0), scaled jointly in depth, width and resolution (papers below).

Depth a^phi, width b^phi, resolution g^phi with a * b^2 * g^2 near 2, so that each step of phi doubles the operations.
V2 uses ordinary convolutions (fused) instead of depthwise ones in the first stages. State-dict keys are torchvision's.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

from ._layers import ConvNormAct, SqueezeExcite, StochasticDepth, he_init, round_channels

PAPER = "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019, arXiv:1905.11946"

# fused, t: expansion, kernel, stride of the first repeat, c: output channels, n: repeats
NETWORK = {
    "b": (
        (0, 1, 3, 1, 16, 1), (0, 6, 3, 2, 24, 2), (0, 6, 5, 2, 40, 2), (0, 6, 3, 2, 80, 3), (0, 6, 5, 1, 112, 3),
        (0, 6, 5, 2, 192, 4), (0, 6, 3, 1, 320, 1),
    ),
    "v2_s": (
        (1, 1, 3, 1, 24, 2), (1, 4, 3, 2, 48, 4), (1, 4, 3, 2, 64, 4), (0, 4, 3, 2, 128, 6), (0, 6, 3, 1, 160, 9),
        (0, 6, 3, 2, 256, 15),
    ),
}  # fmt: skip
STEM = {"b": 32, "v2_s": 24}
LAST = {"b": 1280, "v2_s": 1280}
DROPPED = 0.2  # stochastic depth of the last block; proportional to depth for the others


def silu() -> nn.Module:
    """Return x * sigmoid(x), in place."""
    return nn.SiLU(inplace=True)


class MBConv(nn.Module):
    """1x1 widen - depthwise - squeeze-and-excite - 1x1 narrow; fused: one convolution replaces the first two.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride); added to the input if the shapes are equal.
    """

    def __init__(
        self, inputs: int, outputs: int, fused: bool, expand: int, kernel: int, stride: int, drop: float, eps: float
    ) -> None:
        super().__init__()
        unit = functools.partial(ConvNormAct, eps=eps)
        wide = round_channels(inputs * expand)
        if fused and expand == 1:
            layers: list[nn.Module] = [unit(inputs, outputs, kernel, stride, act=silu)]
        elif fused:
            layers = [unit(inputs, wide, kernel, stride, act=silu), unit(wide, outputs, 1, act=None)]
        else:
            layers = [unit(inputs, wide, 1, act=silu)] if expand != 1 else []
            layers.append(unit(wide, wide, kernel, stride, groups=wide, act=silu))
            layers.append(SqueezeExcite(wide, max(1, inputs // 4), act=silu))
            layers.append(unit(wide, outputs, 1, act=None))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.stochastic_depth(self.block(x)) if self.residual else self.block(x)


class EfficientNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(
        self, table: str, width: float, depth: float, dropout: float, eps: float, num_classes: int
    ) -> None:  # fmt: skip
        super().__init__()
        rows = [(*row[:5], math.ceil(row[5] * depth)) for row in NETWORK[table]]
        channels, total, index = round_channels(STEM[table] * width), sum(row[5] for row in rows), 0
        self.features = nn.Sequential(ConvNormAct(3, channels, 3, 2, act=silu, eps=eps))
        for fused, expand, kernel, first, c, repeats in rows:
            stage, outputs = nn.Sequential(), round_channels(c * width)
            for repeat in range(repeats):
                stride, drop = first if repeat == 0 else 1, DROPPED * index / total
                stage.append(MBConv(channels, outputs, bool(fused), expand, kernel, stride, drop, eps))
                channels, index = outputs, index + 1
            self.features.append(stage)
        last = 4 * channels if table == "b" else LAST[table]
        self.features.append(ConvNormAct(channels, last, 1, act=silu, eps=eps))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        he_init(self)
        bound = 1 / math.sqrt(num_classes)
        nn.init.uniform_(self.classifier[1].weight, -bound, bound)  # type: ignore[arg-type]
        nn.init.zeros_(self.classifier[1].bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(self.features(x).mean((2, 3)))


# fmt: off
VARIANTS = {
    "efficientnet_b0": {"args": {"table": "b", "width": 1.0, "depth": 1.0, "dropout": 0.2}, "params": 5288548,
        "macs": 386000000, "top1": 77.692, "top5": 93.532, "interpolation": "bicubic",
        "checkpoint": "efficientnet_b0_rwightman-7f5810bc.pth"},
    "efficientnet_b1": {"args": {"table": "b", "width": 1.0, "depth": 1.1, "dropout": 0.2}, "input": [3, 240, 240],
        "resize": 256, "params": 7794184, "macs": 687000000, "top1": 78.642, "top5": 94.186, "interpolation": "bicubic",
        "checkpoint": "efficientnet_b1_rwightman-bac287d4.pth"},
    "efficientnet_b2": {"args": {"table": "b", "width": 1.1, "depth": 1.2, "dropout": 0.3}, "input": [3, 288, 288],
        "resize": 288, "params": 9109994, "macs": 1088000000, "top1": 80.608, "top5": 95.31, "interpolation": "bicubic",
        "checkpoint": "efficientnet_b2_rwightman-c35c1473.pth"},
    "efficientnet_b3": {"args": {"table": "b", "width": 1.2, "depth": 1.4, "dropout": 0.3}, "input": [3, 300, 300],
        "resize": 320, "params": 12233232, "macs": 1827000000, "top1": 82.008, "top5": 96.054,
        "interpolation": "bicubic", "checkpoint": "efficientnet_b3_rwightman-b3899882.pth"},
    "efficientnet_b4": {"args": {"table": "b", "width": 1.4, "depth": 1.8, "dropout": 0.4}, "input": [3, 380, 380],
        "resize": 384, "params": 19341616, "macs": 4394000000, "top1": 83.384, "top5": 96.594,
        "interpolation": "bicubic", "checkpoint": "efficientnet_b4_rwightman-23ab8bcd.pth"},
    "efficientnet_b5": {"args": {"table": "b", "width": 1.6, "depth": 2.2, "dropout": 0.4, "eps": 0.001},
        "input": [3, 456, 456], "resize": 456, "params": 30389784, "macs": 10266000000, "top1": 83.444, "top5": 96.628,
        "interpolation": "bicubic", "checkpoint": "efficientnet_b5_lukemelas-1a07897c.pth"},
    "efficientnet_b6": {"args": {"table": "b", "width": 1.8, "depth": 2.6, "dropout": 0.5, "eps": 0.001},
        "input": [3, 528, 528], "resize": 528, "params": 43040704, "macs": 19068000000, "top1": 84.008, "top5": 96.916,
        "interpolation": "bicubic", "checkpoint": "efficientnet_b6_lukemelas-24a108a5.pth"},
    "efficientnet_b7": {"args": {"table": "b", "width": 2.0, "depth": 3.1, "dropout": 0.5, "eps": 0.001},
        "input": [3, 600, 600], "resize": 600, "params": 66347960, "macs": 37746000000, "top1": 84.122, "top5": 96.908,
        "interpolation": "bicubic", "checkpoint": "efficientnet_b7_lukemelas-c5b4e57e.pth"},
    "efficientnet_v2_s": {"args": {"table": "v2_s", "dropout": 0.2, "eps": 0.001}, "input": [3, 384, 384],
        "resize": 384, "params": 21458488, "macs": 8366000000, "top1": 84.228, "top5": 96.878,
        "checkpoint": "efficientnet_v2_s-dd5fe13b.pth",
        "paper": "Tan and Le, EfficientNetV2: Smaller Models and Faster Training, 2021, arXiv:2104.00298"},
}
# fmt: on


def build(
    table: str, width: float = 1.0, depth: float = 1.0, dropout: float = 0.2, eps: float = 1e-5, num_classes: int = 1000
) -> nn.Module:
    """Build a row of NETWORK at `width` times the channels and `depth` times the repeats."""
    return EfficientNet(table, width, depth, dropout, eps, num_classes)
