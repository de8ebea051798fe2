"""ShuffleNet v2: channel split instead of grouped 1x1 convolutions (paper below).

The paper's guidelines are about time, not operations: equal channel widths, few groups, few branches, few element-wise
operations. Half of the channels are passed unchanged, half are filtered, and a shuffle mixes them. State-dict keys are
torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import ConvNormAct, shuffle

PAPER = "Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018, arXiv:1807.11164"

STEM = 24
REPEATS = (4, 8, 4)
# width: output channels of stages 2, 3, 4 and of the last 1x1 convolution (the paper's table 5)
NETWORK = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


def narrow(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """3x3 depthwise (linear), 1x1 (ReLU)."""
    return [*ConvNormAct(inputs, inputs, 3, stride, groups=inputs, act=None), *ConvNormAct(inputs, outputs, 1)]


class Unit(nn.Module):
    """Stride 1: split, filter one half, concatenate, shuffle. Stride 2: filter both whole inputs, no split.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.split = stride == 1
        self.branch1 = nn.Sequential(*([] if self.split else narrow(inputs, half, stride)))
        self.branch2 = nn.Sequential(*ConvNormAct(half if self.split else inputs, half, 1), *narrow(half, half, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        left, right = x.chunk(2, dim=1) if self.split else (self.branch1(x), x)
        return shuffle(torch.cat((left, self.branch2(right)), dim=1), 2)


class ShuffleNetV2(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    stage2: nn.Module
    stage3: nn.Module
    stage4: nn.Module

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        *stages, last = NETWORK[width]
        self.conv1 = ConvNormAct(3, STEM, 3, 2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = STEM
        for number, (outputs, repeats) in enumerate(zip(stages, REPEATS, strict=True), start=2):
            units = [Unit(inputs, outputs, 2), *(Unit(outputs, outputs, 1) for _ in range(repeats - 1))]
            self.add_module(f"stage{number}", nn.Sequential(*units))
            inputs = outputs
        self.conv5 = ConvNormAct(inputs, last, 1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.maxpool(self.conv1(x))
        x = self.stage4(self.stage3(self.stage2(x)))
        return self.fc(self.conv5(x).mean((2, 3)))


# fmt: off
VARIANTS = {
    "shufflenetv2": {"args": {"width": 1.0}, "recipe": "onecycle-long", "aliases": ["shufflenet_v2",
        "shufflenet_v2_x1_0"],
        "params": 2278604, "macs": 145000000, "top1": 69.362, "top5": 88.316,
        "checkpoint": "shufflenetv2_x1-5666bf0f80.pth"},
    "shufflenetv2_x0_5": {"args": {"width": 0.5}, "recipe": "onecycle-long", "params": 1366792, "macs": 40000000,
        "top1": 60.552, "top5": 81.746,
        "checkpoint": "shufflenetv2_x0.5-f707e7126e.pth"},
    "shufflenetv2_x1_5": {"args": {"width": 1.5}, "recipe": "onecycle-long", "params": 3503624, "macs": 296000000,
        "top1": 72.996, "top5": 91.086,
        "resize": 232, "checkpoint": "shufflenetv2_x1_5-3c479a10.pth"},
    "shufflenetv2_x2_0": {"args": {"width": 2.0}, "recipe": "onecycle-long", "params": 7393996, "macs": 583000000,
        "top1": 76.23, "top5": 93.006,
        "resize": 232, "checkpoint": "shufflenetv2_x2_0-8be3c8ee.pth"},
}
# fmt: on


def build(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Build ShuffleNet v2 at one of the four widths of NETWORK."""
    return ShuffleNetV2(width, num_classes)
