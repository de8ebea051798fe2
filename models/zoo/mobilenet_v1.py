"""MobileNet v1: every 3x3 convolution is factorised into a depthwise 3x3 and a 1x1 (paper below).

9 C H W + C^2 H W multiply-adds instead of 9 C^2 H W: eight to nine times fewer. State-dict keys are those of timm's
`mobilenetv1_100`.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import he_init, relu6

PAPER = "Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision, 2017, arXiv:1704.04861"

# filters, repeats, stride of the first repeat (the paper's table 1)
NETWORK = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class Separable(nn.Module):
    """3x3 depthwise - BN - ReLU6 - 1x1 - BN - ReLU6: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act = relu6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return self.act(self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x))))))


class MobileNetV1(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv_stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act = relu6()
        self.blocks = nn.Sequential()
        for filters, repeats, first in NETWORK:
            stage, outputs = nn.Sequential(), int(filters * width)
            for index in range(repeats):
                stage.append(Separable(channels, outputs, first if index == 0 else 1))
                channels = outputs
            self.blocks.append(stage)
        self.dropout = nn.Dropout(0.001)
        self.classifier = nn.Linear(channels, num_classes)
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.blocks(self.act(self.bn1(self.conv_stem(x))))
        return self.classifier(self.dropout(x.mean((2, 3))))


# fmt: off
VARIANTS = {
    "mobilenetv1": {"args": {"width": 1.0}, "keys": "timm", "params": 4231976,
        "aliases": ["mobilenet_v1", "mobilenetv1_1.0", "mobilenetv1_100"], "macs": 569000000, "top1": 70.6,
        "source": "Howard et al. 2017, tables 6 and 8 (4.2 M, 569 M)"},
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
