"""MNASNet: inverted bottlenecks with kernels, widths and repeats found by search for latency on a phone (paper below).

State-dict keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import he_init, relu, round_channels

PAPER = "Tan et al., MnasNet: Platform-Aware Neural Architecture Search for Mobile, 2018, arXiv:1807.11626"

# t: expansion, c: output channels, n: repeats, s: stride of the first repeat, k: kernel (the paper's figure 7, B1)
NETWORK = ((3, 24, 3, 2, 3), (3, 40, 3, 2, 5), (6, 80, 3, 2, 5), (6, 96, 2, 1, 3), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
MOMENTUM = 1 - 0.9997  # of batch norm, from TensorFlow's definition


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> list[nn.Module]:
    """Convolution, batch norm, ReLU."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, momentum=MOMENTUM),
        *([relu()] if act else []),
    ]


class InvertedResidual(nn.Module):
    """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride); added to the input if the shapes are equal."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.layers = nn.Sequential(
            *unit(inputs, wide, 1), *unit(wide, wide, kernel, stride, wide), *unit(wide, outputs, 1, act=False)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.layers(x) if self.residual else self.layers(x)


class MNASNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        stem, channels = round_channels(32 * width), round_channels(16 * width)
        layers = [*unit(3, stem, 3, 2), *unit(stem, stem, 3, 1, stem), *unit(stem, channels, 1, act=False)]
        for expand, c, repeats, first, kernel in NETWORK:
            stack = nn.Sequential()
            for index in range(repeats):
                outputs = round_channels(c * width)
                stack.append(InvertedResidual(channels, outputs, kernel, first if index == 0 else 1, expand))
                channels = outputs
            layers.append(stack)
        self.layers = nn.Sequential(*layers, *unit(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(self.layers(x).mean((2, 3)))


# fmt: off
VARIANTS = {
    "mnasnet0_5": {"args": {"width": 0.5}, "params": 2218512, "macs": 104000000, "top1": 67.734, "top5": 87.49,
        "checkpoint": "mnasnet0.5_top1_67.823-3ffadce67e.pth"},
    "mnasnet0_75": {"args": {"width": 0.75}, "params": 3170208, "macs": 215000000, "top1": 71.18, "top5": 90.496,
        "resize": 232, "checkpoint": "mnasnet0_75-7090bc5f.pth"},
    "mnasnet1_0": {"args": {"width": 1.0}, "aliases": ["mnasnet"], "params": 4383312, "macs": 314000000, "top1": 73.456,
        "top5": 91.51, "checkpoint": "mnasnet1.0_top1_73.512-f206786ef8.pth"},
    "mnasnet1_3": {"args": {"width": 1.3}, "params": 6282256, "macs": 526000000, "top1": 76.506, "top5": 93.522,
        "resize": 232, "checkpoint": "mnasnet1_3-a4c69d6f.pth"},
}
# fmt: on


def build(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Build MNASNet-B1 with `width` times the channels."""
    return MNASNet(width, num_classes)
