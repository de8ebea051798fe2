"""LR-ASPP: segmentation on MobileNet v3 with a light head (paper below).

The last blocks are dilated, so that the map stays at 1/16 of the size. One branch of the head is a 1x1 convolution, the
other a gate from the mean of the map; their product is enlarged to 1/8 of the size, and scores from there and from the
backbone's map of that size are added. State-dict keys are torchvision's. Output (N, classes, H, W).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import interpolate

from ._layers import he_init
from .mobilenet_v3 import NETWORK, convolutions

PAPER = "Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244, section 6.4"

LOW = 4  # the backbone's layer whose map, 1/8 of the size, has the details
WIDTH = 128  # channels of the head


class Head(nn.Module):
    """Maps at 1/8 and 1/16 of the size -> (N, classes, H / 8, W / 8)."""

    def __init__(self, low: int, high: int, num_classes: int) -> None:
        super().__init__()
        self.cbr = nn.Sequential(nn.Conv2d(high, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True))
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, WIDTH, 1, bias=False), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(low, num_classes, 1)
        self.high_classifier = nn.Conv2d(WIDTH, num_classes, 1)

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Return scores."""
        x = self.cbr(high) * self.scale(high)
        x = interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return self.low_classifier(low) + self.high_classifier(x)


class LRASPP(nn.Module):
    """(N, 3, H, W) -> (N, num_classes, H, W)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = convolutions("large", dilated=True)
        low, high = NETWORK["large"][LOW - 1][2], 6 * NETWORK["large"][-1][2]
        self.classifier = Head(low, high, num_classes)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits for each pixel."""
        size = x.shape[-2:]
        for at, layer in enumerate(self.backbone):
            x = layer(x)
            if at == LOW:
                low = x
        return interpolate(self.classifier(low, x), size=size, mode="bilinear", align_corners=False)


# fmt: off
VARIANTS = {
    "lraspp_mobilenetv3": {"aliases": ["lraspp_mobilenet_v3_large"], "task": "segment", "classes": 21,
        "input": [3, 520, 520], "digits": 96, "recipe": "segment", "params": 3221538, "macs": 2086000000,
        "source": "torchvision COCO_WITH_VOC_LABELS_V1: 57.9 mIoU"},
}
# fmt: on


def build(num_classes: int = 21) -> nn.Module:
    """Build LR-ASPP on MobileNet v3 large; `num_classes` includes the background."""
    return LRASPP(num_classes)
