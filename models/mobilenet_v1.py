"""MobileNet v1: every 3x3 convolution taken apart into a depthwise 3x3 and a 1x1 (paper below).

9 C H W + C^2 H W multiply-adds in place of 9 C^2 H W: eight to nine times fewer.
"""

from __future__ import annotations

import torch
from torch import nn

from .layers import ConvNormAct, he_init, relu6

PAPER = "Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision, 2017, arXiv:1704.04861"

# output channels and stride of each separable convolution (the paper's table 1)
NETWORK = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        channels = int(32 * width)
        layers: list[nn.Module] = [ConvNormAct(3, channels, 3, 2, act=relu6)]
        for filters, stride in NETWORK:
            outputs = int(filters * width)
            layers.append(ConvNormAct(channels, channels, 3, stride, groups=channels, act=relu6))
            layers.append(ConvNormAct(channels, outputs, 1, act=relu6))
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.001), nn.Linear(channels, num_classes))
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(self.features(x).mean((2, 3)))


# fmt: off
VARIANTS = {
    "mobilenetv1": {"args": {"width": 1.0}, "aliases": ["mobilenet_v1", "mobilenetv1_1.0"], "params": 4231976,
        "macs": 569000000, "top1": 70.6, "source": "Howard et al. 2017, tables 6 and 8 (4.2 M, 569 M)"},
    "mobilenetv1_0.75": {"args": {"width": 0.75}, "params": 2585560, "macs": 325000000, "top1": 68.4,
        "source": "Howard et al. 2017, table 6 (2.6 M, 325 M)"},
    "mobilenetv1_0.5": {"args": {"width": 0.5}, "params": 1331592, "macs": 149000000, "top1": 63.7,
        "source": "Howard et al. 2017, table 6 (1.3 M, 149 M)"},
    "mobilenetv1_0.25": {"args": {"width": 0.25}, "params": 470072, "macs": 41000000, "top1": 50.6,
        "source": "Howard et al. 2017, table 6 (0.5 M, 41 M)"},
}
# fmt: on


def build(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Build MobileNet v1 with `width` times the channels."""
    return MobileNetV1(width, num_classes)
