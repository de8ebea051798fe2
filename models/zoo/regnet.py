"""RegNet Y: networks whose widths grow linearly with depth; each block is a ResNeXt bottleneck of ratio 1, with SE.

State-dict keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import ConvNormAct, SqueezeExcite, he_init

PAPER = "Radosavovic et al., Designing Network Design Spaces, 2020, arXiv:2003.13678"

# (width, blocks) of the four stages, channels of one group
NETWORK = {"400mf": (((48, 1), (104, 3), (208, 6), (440, 6)), 8)}


class Block(nn.Module):
    """1x1 - grouped 3x3 - squeeze-and-excite - 1x1, added to the (projected) input, ReLU.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, outputs: int, stride: int, group: int) -> None:
        super().__init__()
        self.proj = ConvNormAct(inputs, outputs, 1, stride, act=None) if inputs != outputs or stride != 1 else None
        self.f = nn.Sequential()
        self.f.a = ConvNormAct(inputs, outputs, 1)
        self.f.b = ConvNormAct(outputs, outputs, 3, stride, groups=outputs // group)
        self.f.se = SqueezeExcite(outputs, round(inputs / 4))
        self.f.c = ConvNormAct(outputs, outputs, 1, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return torch.relu((x if self.proj is None else self.proj(x)) + self.f(x))


class RegNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, size: str, num_classes: int) -> None:
        super().__init__()
        stages, group = NETWORK[size]
        self.stem = ConvNormAct(3, 32, 3, 2)
        self.trunk_output = nn.Sequential()
        channels = 32
        for number, (width, blocks) in enumerate(stages, start=1):
            stage = nn.Sequential()
            for index in range(blocks):
                stage.add_module(f"block{number}-{index}", Block(channels, width, 2 if index == 0 else 1, group))
                channels = width
            self.trunk_output.add_module(f"block{number}", stage)
        self.fc = nn.Linear(channels, num_classes)
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.fc(self.trunk_output(self.stem(x)).mean((2, 3)))


# fmt: off
VARIANTS = {
    "regnet_y_400mf": {"args": {"size": "400mf"}, "aliases": ["regnety_400mf"], "params": 4344144, "macs": 402000000,
        "top1": 74.046, "top5": 91.716, "checkpoint": "regnet_y_400mf-c65dace8.pth"},
}
# fmt: on


def build(size: str, num_classes: int = 1000) -> nn.Module:
    """Build a size of NETWORK."""
    return RegNet(size, num_classes)
