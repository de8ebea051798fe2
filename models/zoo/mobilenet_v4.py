"""MobileNet v4: one block with two optional depthwise convolutions, chosen by search for many devices (paper below).

Universal inverted bottleneck: depthwise, 1x1 widen, depthwise, 1x1 narrow. With the first depthwise convolution only it
is ConvNeXt's block, with the second only MobileNet v2's, with neither a perceptron. The hybrid has attention in which
all heads share one key and one value. State-dict keys are timm's.
"""

from __future__ import annotations

import functools
from collections import OrderedDict

import torch
from torch import nn

from ._layers import ConvBN, he_init, relu

PAPER = "Qin et al., MobileNetV4: Universal Models for the Mobile Ecosystem, 2024, arXiv:2404.10518"

# Stages of (channels, rows); the first block of each has stride 2 (the paper's appendix). A row of four is an inverted
# bottleneck: first and second depthwise kernel (0: none), expansion, repeats. Of one: attention, stride of its keys and
# values. Of two: a convolution, kernel and channels. Of three: 3x3 that widens, 1x1 that narrows; kernels, expansion.
_FUSED = (48, ((3, 1, 4),))
_MEDIUM = _FUSED, (80, ((3, 5, 4, 1), (3, 3, 2, 1)))
NETWORK: dict[str, tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]] = {
    "conv_small": (
        (32, ((3, 32), (1, 32))), (64, ((3, 96), (1, 64))),
        (96, ((5, 5, 3, 1), (0, 3, 2, 4), (3, 0, 4, 1))),
        (128, ((3, 3, 6, 1), (5, 5, 4, 1), (0, 5, 4, 1), (0, 5, 3, 1), (0, 3, 4, 2))),
    ),
    "conv_medium": (
        *_MEDIUM,
        (160, ((3, 5, 6, 1), (3, 3, 4, 2), (3, 5, 4, 1), (3, 3, 4, 1), (3, 0, 4, 1), (0, 0, 2, 1), (3, 0, 4, 1))),
        (256, ((5, 5, 6, 1), (5, 5, 4, 1), (3, 5, 4, 2), (0, 0, 4, 1), (3, 0, 4, 1), (3, 5, 2, 1), (5, 5, 4, 1),
               (0, 0, 4, 2), (5, 0, 2, 1))),
    ),
    "conv_large": (
        _FUSED, (96, ((3, 5, 4, 1), (3, 3, 4, 1))),
        (192, ((3, 5, 4, 1), (3, 3, 4, 3), (3, 5, 4, 1), (5, 3, 4, 5), (3, 0, 4, 1))),
        (512, ((5, 5, 4, 4), (5, 0, 4, 1), (5, 3, 4, 1), (5, 0, 4, 2), (5, 3, 4, 1), (5, 5, 4, 1), (5, 0, 4, 3))),
    ),
    "hybrid_medium": (
        *_MEDIUM,
        (160, ((3, 5, 6, 1), (0, 0, 2, 1), (3, 3, 4, 1), (3, 5, 4, 1), (2,), (3, 3, 4, 1), (2,), (3, 0, 4, 1), (2,),
               (3, 3, 4, 1), (2,), (3, 0, 4, 1))),
        (256, ((5, 5, 6, 1), (5, 5, 4, 1), (3, 5, 4, 2), (0, 0, 2, 1), (3, 5, 2, 1), (0, 0, 2, 1), (0, 0, 4, 1), (1,),
               (3, 0, 4, 1), (1,), (5, 5, 4, 1), (1,), (5, 0, 4, 1), (1,), (5, 0, 4, 1))),
    ),
}  # fmt: skip
STEM = {"conv_large": 24}  # 32 for the others
LAST, HEAD = 960, 1280
HEADS, WIDTH = 4, 64
Unit = functools.partial(ConvBN, eps=1e-5)


def convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Return convolution, batch norm, ReLU; keys conv, bn1."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict[str, nn.Module](conv=conv, bn1=nn.BatchNorm2d(outputs), act=relu()))


def fused(inputs: int, outputs: int, wide: int, stride: int) -> nn.Sequential:
    """Return 3x3 widen, 1x1 narrow (linear); keys conv_exp, bn1, conv_pwl, bn2."""
    layers = OrderedDict[str, nn.Module](
        conv_exp=nn.Conv2d(inputs, wide, 3, stride, 1, bias=False), bn1=nn.BatchNorm2d(wide), act=relu(),
        conv_pwl=nn.Conv2d(wide, outputs, 1, bias=False), bn2=nn.BatchNorm2d(outputs),
    )  # fmt: skip
    return nn.Sequential(layers)


class LayerScale(nn.Module):
    """Multiply each channel by a learnt number. (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 1e-5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x scaled."""
        return x * self.gamma[:, None, None]


class UniversalBottleneck(nn.Module):
    """Depthwise - 1x1 widen - depthwise - 1x1 narrow, ReLU after the inner two; added to the input if shapes are equal.

    A kernel of 0 leaves a depthwise convolution out. (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(
        self, inputs: int, outputs: int, first: int, second: int, expand: int, stride: int, scaled: bool
    ) -> None:  # fmt: skip
        super().__init__()
        wide = inputs * expand
        self.dw_start = Unit(inputs, inputs, first, act=False, groups=inputs) if first else nn.Identity()
        self.pw_exp = Unit(inputs, wide, 1)
        self.dw_mid = Unit(wide, wide, second, stride, groups=wide) if second else nn.Identity()
        self.pw_proj = Unit(wide, outputs, 1, act=False)
        self.layer_scale = LayerScale(outputs) if scaled else nn.Identity()
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.layer_scale(self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x)))))
        return x + y if self.residual else y


class MultiQueryAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in HEADS heads of WIDTH, one key and one value for all. (N, C, H, W) -> (N, C, H, W).

    Keys and values may be computed from an image that a depthwise convolution of `stride` makes smaller.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Sequential() for _ in range(4))
        for part in (self.key, self.value) if stride > 1 else ():
            part.add_module("down_conv", nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False))
            part.add_module("norm", nn.BatchNorm2d(channels))
        self.query.add_module("proj", nn.Conv2d(channels, HEADS * WIDTH, 1, bias=False))
        self.key.add_module("proj", nn.Conv2d(channels, WIDTH, 1, bias=False))
        self.value.add_module("proj", nn.Conv2d(channels, WIDTH, 1, bias=False))
        self.output.add_module("proj", nn.Conv2d(HEADS * WIDTH, channels, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attended values."""
        count, _, height, width = x.shape
        queries = self.query(x).reshape(count, HEADS, WIDTH, height * width).transpose(-2, -1)
        keys, values = (part(x).flatten(2).unsqueeze(1) for part in (self.key, self.value))
        scores = (queries * WIDTH**-0.5) @ keys
        mixed = scores.softmax(-1) @ values.transpose(-2, -1)
        return self.output(mixed.transpose(-2, -1).reshape(count, HEADS * WIDTH, height, width))


class Attention(nn.Module):
    """Batch norm, attention, scale; added to the input. (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attn = MultiQueryAttention(channels, stride)
        self.layer_scale = LayerScale(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.layer_scale(self.attn(self.norm(x)))


def block(inputs: int, outputs: int, row: tuple[int, ...], stride: int, scaled: bool) -> nn.Module:
    """Build a block of a row of NETWORK."""
    match row:
        case (stride_of_keys,):
            return Attention(inputs, stride_of_keys)
        case kernel, own:
            return convolution(inputs, own, kernel, stride)
        case _, _, expand:
            return fused(inputs, outputs, inputs * expand, stride)
    first, second, expand, _ = row
    return UniversalBottleneck(inputs, outputs, first, second, expand, stride, scaled)


def stage(inputs: int, channels: int, rows: tuple[tuple[int, ...], ...], scaled: bool) -> nn.Sequential:
    """Build a stage of NETWORK; its first block has stride 2."""
    blocks = nn.Sequential()
    for row in rows:
        for _ in range(row[3] if len(row) == 4 else 1):
            blocks.append(block(inputs, channels, row, 1 if len(blocks) else 2, scaled))
            inputs = row[1] if len(row) == 2 else channels
    return blocks


class MobileNetV4(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, size: str, num_classes: int) -> None:
        super().__init__()
        channels = STEM.get(size, 32)
        self.conv_stem, self.bn1 = nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential()
        for outputs, rows in NETWORK[size]:
            self.blocks.append(stage(channels, outputs, rows, scaled="hybrid" in size))
            channels = outputs
        self.blocks.append(nn.Sequential(convolution(channels, LAST, 1, 1)))
        self.conv_head, self.norm_head = nn.Conv2d(LAST, HEAD, 1, bias=False), nn.BatchNorm2d(HEAD)
        self.classifier = nn.Linear(HEAD, num_classes)
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.blocks(nn.functional.relu(self.bn1(self.conv_stem(x)), inplace=True))
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        x = nn.functional.relu(self.norm_head(self.conv_head(x)), inplace=True)
        return self.classifier(x.flatten(1))


# fmt: off
VARIANTS = {
    "mobilenetv4_conv_small": {"args": {"size": "conv_small"}, "params": 3774024, "macs": 190000000, "top1": 73.756,
        "top5": 91.43, "source": "timm, e2400_r224_in1k", "interpolation": "bicubic", "keys": "timm"},
    "mobilenetv4_conv_medium": {"args": {"size": "conv_medium"}, "input": [3, 256, 256], "resize": 269,
        "params": 9715512, "macs": 1100000000, "top1": 79.916, "top5": 95.188, "source": "timm, e500_r256_in1k",
        "interpolation": "bicubic", "keys": "timm"},
    "mobilenetv4_conv_large": {"args": {"size": "conv_large"}, "input": [3, 384, 384], "resize": 404,
        "params": 32590864, "macs": 6430000000, "top1": 82.974, "top5": 96.244, "source": "timm, e600_r384_in1k",
        "interpolation": "bicubic", "keys": "timm"},
    "mobilenetv4_hybrid_medium": {"args": {"size": "hybrid_medium"}, "input": [3, 256, 256], "resize": 269,
        "params": 11074648, "macs": 1300000000, "top1": 81.478, "top5": 95.692, "source": "timm, ix_e550_r256_in1k",
        "interpolation": "bicubic", "keys": "timm"},
}
# fmt: on


def build(size: str, num_classes: int = 1000) -> nn.Module:
    """Build a size of NETWORK."""
    return MobileNetV4(size, num_classes)
