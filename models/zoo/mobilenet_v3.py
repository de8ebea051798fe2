"""MobileNet v3: v2's block with squeeze-and-excite and hard-swish, widths and kernels found by search (paper below).

Hard-swish is x * relu6(x + 3) / 6: similar to swish, without its exponential. State-dict keys are torchvision's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from ._layers import ConvNormAct, SqueezeExcite, he_init, relu, round_channels

PAPER = "Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244"

# kernel, expanded channels, output channels, squeeze-and-excite, hard-swish, stride (the paper's tables 1 and 2)
NETWORK = {
    "large": (
        (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1),
        (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1),
        (5, 960, 160, 1, 1, 1),
    ),
    "small": (
        (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2), (5, 240, 40, 1, 1, 1),
        (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1), (5, 288, 96, 1, 1, 2),
        (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1),
    ),
}  # fmt: skip
HEAD = {"large": 1280, "small": 1024}
TAIL = 3  # blocks at 1/32 of the size
Unit = Callable[..., ConvNormAct]


def hard_swish() -> nn.Module:
    """Return x * relu6(x + 3) / 6, in place."""
    return nn.Hardswish(inplace=True)


class InvertedResidual(nn.Module):
    """1x1 widen - depthwise - squeeze-and-excite - 1x1 narrow (linear); added to the input if shapes are equal.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, row: tuple[int, ...], dilation: int, unit: Unit) -> None:
        super().__init__()
        kernel, wide, outputs, excite, swish, stride = row
        act = hard_swish if swish else relu
        self.block = nn.Sequential(
            *([unit(inputs, wide, 1, act=act)] if wide != inputs else []),
            unit(wide, wide, kernel, stride if dilation == 1 else 1, groups=wide, dilation=dilation, act=act),
            *([SqueezeExcite(wide, round_channels(wide // 4), gate=nn.Hardsigmoid)] if excite else []),
            unit(wide, outputs, 1, act=None),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.block(x) if self.residual else self.block(x)


def convolutions(size: str, *, half_tail: bool = False, dilated: bool = False, momentum: float = 0.01) -> nn.Sequential:
    """Return all layers before the pooling: (N, 3, H, W) -> (N, C, H / 32, W / 32), keys 0 to the number of blocks + 1.

    Args:
        size: "large" or "small".
        half_tail: The last three blocks have half of the channels (the paper's section 6.3, for detection).
        dilated: The last three blocks are dilated by 2 and keep 1/16 of the size (the paper's section 6.4).
        momentum: Of batch norm.
    """
    unit = functools.partial(ConvNormAct, eps=0.001, momentum=momentum)
    layers: list[nn.Module] = [unit(3, 16, 3, 2, act=hard_swish)]
    channels, tail = 16, len(NETWORK[size]) - TAIL
    for at, (kernel, wide, outputs, *rest) in enumerate(NETWORK[size]):
        divisor = 2 if half_tail and at >= tail else 1
        row = (kernel, wide // (divisor if at > tail else 1), outputs // divisor, *rest)
        layers.append(InvertedResidual(channels, row, 2 if dilated and at >= tail else 1, unit))
        channels = row[2]
    return nn.Sequential(*layers, unit(channels, 6 * channels, 1, act=hard_swish))


class MobileNetV3(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, size: str, num_classes: int) -> None:
        super().__init__()
        self.features = convolutions(size)
        self.classifier = nn.Sequential(
            nn.Linear(6 * NETWORK[size][-1][2], HEAD[size]), hard_swish(), nn.Dropout(0.2),
            nn.Linear(HEAD[size], num_classes),
        )  # fmt: skip
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(self.features(x).mean((2, 3)))


def dilated_features() -> nn.Sequential:
    """Return the features of the large network for maps: its last three blocks have dilation 2 in place of stride 2.

    (N, 3, H, W) -> (N, 960, H / 16, W / 16)
    """
    features = MobileNetV3("large", 1).features
    for layer in (layer for block in list(features)[13:16] for layer in block.modules()):
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.stride, layer.dilation, layer.padding = (1, 1), (2, 2), (4, 4)
    return features


# fmt: off
VARIANTS = {
    "mobilenetv3_small": {"args": {"size": "small"}, "aliases": ["mobilenet_v3_small"], "params": 2542856,
        "macs": 57000000, "top1": 67.668, "top5": 87.402, "checkpoint": "mobilenet_v3_small-047dcff4.pth"},
    "mobilenetv3_large": {"args": {"size": "large"}, "aliases": ["mobilenet_v3_large"], "params": 5483032,
        "macs": 217000000, "top1": 74.042, "top5": 91.34, "checkpoint": "mobilenet_v3_large-8738ca79.pth"},
}
# fmt: on


def build(size: str, num_classes: int = 1000) -> nn.Module:
    """Build MobileNet v3 "small" or "large"."""
    return MobileNetV3(size, num_classes)
