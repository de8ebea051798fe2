"""MobileOne: MobileNet v1's depthwise and 1x1 blocks, trained with up to six branches each (paper below).

A block is several convolutions of one kernel + 1x1 (beside 3x3 only) + identity, each with its batch norm, so that it
is one convolution when training is over. Here it has its branches; the pass merge_parallel_convs merges them
(docs/passes.md). State-dict keys are timm's.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from ._layers import ConvBN, SqueezeExcite, StagedClassifier, round_channels

PAPER = "Vasu et al., MobileOne: An Improved One millisecond Mobile Backbone, 2022, arXiv:2206.04040"

# filters and repeats of the four stages; the first depthwise block of each halves the image (the paper's table 2)
NETWORK = ((64, 2), (128, 8), (256, 10), (512, 1))
Branch = functools.partial(ConvBN, act=False, eps=1e-5)


class MobileOneBlock(nn.Module):
    """relu(k times the convolution + 1x1 + identity); S4 has squeeze-and-excite before the ReLU of its last blocks.

    Depthwise 3x3 if `depthwise`, otherwise 1x1. (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, branches: int, depthwise: bool, excite: bool
    ) -> None:
        super().__init__()
        unit = functools.partial(Branch, inputs, outputs, stride=stride, groups=inputs if depthwise else 1)
        self.identity = nn.BatchNorm2d(outputs) if inputs == outputs and stride == 1 else None
        self.conv_kxk = nn.ModuleList(unit(kernel=kernel) for _ in range(branches))
        self.conv_scale = unit(kernel=1) if kernel > 1 else None
        self.attn = SqueezeExcite(outputs, round_channels(outputs / 16)) if excite else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        others = [branch for branch in (self.conv_scale, self.identity) if branch is not None]
        y = sum(branch(x) for branch in (*self.conv_kxk, *others))
        return nn.functional.relu(self.attn(y), inplace=True)


class MobileOne(StagedClassifier):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, widths: tuple[float, ...], branches: int, excited: tuple[int, ...], num_classes: int) -> None:
        channels = min(64, int(NETWORK[0][0] * widths[0]))
        stem = MobileOneBlock(3, channels, 3, 2, 1, depthwise=False, excite=False)
        stages = list[nn.Sequential]()
        for (filters, repeats), width, last in zip(NETWORK, widths, excited, strict=True):
            stage, outputs = nn.Sequential(), int(filters * width)
            for index in range(repeats):
                stride, excite = 2 if index == 0 else 1, index >= repeats - last
                stage.append(MobileOneBlock(channels, channels, 3, stride, branches, True, excite))
                stage.append(MobileOneBlock(channels, outputs, 1, 1, branches, False, excite))
                channels = outputs
            stages.append(stage)
        super().__init__(stem, stages, channels, num_classes)


# Parameters are those of the branches; the paper's, merged, are recomputed by tests/optimize/test_reparameterised.py.
# fmt: off
VARIANTS = {
    "mobileone_s0": {"args": {"widths": [0.75, 1.0, 1.0, 2.0], "branches": 4}, "params": 5293272, "top1": 71.4,
        "source": "timm 5.29 M; the paper 71.4 %, and 2.1 M, 275 M merged", "keys": "timm"},
    "mobileone_s1": {"args": {"widths": [1.5, 1.5, 2.0, 2.5]}, "params": 4825192, "top1": 75.9,
        "source": "timm 4.83 M; the paper 75.9 %, and 4.8 M, 825 M merged", "keys": "timm"},
    "mobileone_s2": {"args": {"widths": [1.5, 2.0, 2.5, 4.0]}, "params": 7884648, "top1": 77.4,
        "source": "timm 7.88 M; the paper 77.4 %, and 7.8 M, 1299 M merged", "keys": "timm"},
    "mobileone_s3": {"args": {"widths": [2.0, 2.5, 3.0, 4.0]}, "params": 10170600, "top1": 78.1,
        "source": "timm 10.17 M; the paper 78.1 %, and 10.1 M, 1896 M merged", "keys": "timm"},
    "mobileone_s4": {"args": {"widths": [3.0, 3.5, 3.5, 4.0], "excited": [0, 0, 5, 1]}, "params": 14951248,
        "top1": 79.4, "source": "timm 14.95 M; the paper 79.4 %, and 14.8 M, 2978 M merged", "keys": "timm"},
}
# fmt: on


def build(
    widths: tuple[float, ...], branches: int = 1, excited: tuple[int, ...] = (0, 0, 0, 0), num_classes: int = 1000
) -> nn.Module:
    """Build `widths` times the filters, with squeeze-and-excite in the last `excited` repeats of each stage."""
    return MobileOne(widths, branches, excited, num_classes)
