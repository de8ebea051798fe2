"""RepVGG: a VGG of 3x3 convolutions that is trained with three branches in each block (paper below).

A block is 3x3 + 1x1 + identity, each with its batch norm, so that it is one 3x3 convolution when training is over. Here
it has its branches; the pass merge_parallel_convs merges them (docs/passes.md). State-dict keys are timm's.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from ._layers import ConvBN, StagedClassifier

PAPER = "Ding et al., RepVGG: Making VGG-style ConvNets Great Again, 2021, arXiv:2101.03697"

# blocks of the four stages of 64, 128, 256, 512 filters; the first block of each halves the image (the paper's table 2)
NETWORK = {"A": (2, 4, 14, 1), "B": (4, 6, 16, 1)}
FILTERS = (64, 128, 256, 512)
Branch = functools.partial(ConvBN, act=False, eps=1e-5)


class RepVGGBlock(nn.Module):
    """relu(3x3 + 1x1 + identity); no identity if the shape changes.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.identity = nn.BatchNorm2d(outputs) if inputs == outputs and stride == 1 else None
        self.conv_kxk = Branch(inputs, outputs, 3, stride)
        self.conv_1x1 = Branch(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.conv_1x1(x) + self.conv_kxk(x)
        return nn.functional.relu(y if self.identity is None else y + self.identity(x), inplace=True)


class RepVGG(StagedClassifier):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, depth: str, width: float, last: float, num_classes: int) -> None:
        channels = min(64, int(64 * width))
        stem = RepVGGBlock(3, channels, 2)
        stages = list[nn.Sequential]()
        for filters, repeats, factor in zip(FILTERS, NETWORK[depth], (width, width, width, last), strict=True):
            stage, outputs = nn.Sequential(), int(filters * factor)
            for index in range(repeats):
                stage.append(RepVGGBlock(channels, outputs, 2 if index == 0 else 1))
                channels = outputs
            stages.append(stage)
        super().__init__(stem, stages, channels, num_classes)


# Parameters and multiply-adds are those of the branches; the paper's, merged, are recomputed by
# tests/optimize/test_reparameterised.py.
# fmt: off
VARIANTS = {
    "repvgg_a0": {"args": {"depth": "A", "width": 0.75, "last": 2.5}, "params": 9108968, "macs": 1520000000,
        "top1": 72.41, "source": "timm 9.11 M, 1.52 G; the paper 72.41 %, and 8.30 M, 1.4 G merged", "keys": "timm"},
    "repvgg_a1": {"args": {"depth": "A", "width": 1.0, "last": 2.5}, "params": 14092264, "macs": 2640000000,
        "top1": 74.46, "source": "timm 14.09 M, 2.64 G; the paper 74.46 %, and 12.78 M, 2.4 G merged", "keys": "timm"},
    "repvgg_a2": {"args": {"depth": "A", "width": 1.5, "last": 2.75}, "params": 28210600, "macs": 5700000000,
        "top1": 76.48, "source": "timm 28.21 M, 5.70 G; the paper 76.48 %, and 25.49 M, 5.1 G merged", "keys": "timm"},
    "repvgg_b0": {"args": {"depth": "B", "width": 1.0, "last": 2.5}, "params": 15817960, "macs": 3410000000,
        "top1": 75.14, "source": "timm 15.82 M, 3.41 G; the paper 75.14 %, and 14.33 M, 3.1 G merged", "keys": "timm"},
    "repvgg_b1": {"args": {"depth": "B", "width": 2.0, "last": 4.0}, "params": 57415016, "macs": 13160000000,
        "top1": 78.37, "source": "timm 57.42 M, 13.16 G; the paper 78.37 %, and 51.82 M, 11.8 G merged",
        "keys": "timm"},
}
# fmt: on


def build(depth: str, width: float, last: float, num_classes: int = 1000) -> nn.Module:
    """Build a row of NETWORK with `width` times the filters, `last` times those of the last stage."""
    return RepVGG(depth, width, last, num_classes)
