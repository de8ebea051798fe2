"""SSD300: VGG-16 made convolutional, more layers on it, and on six maps a convolution that says classes and boxes.

Each cell has four or six default boxes of its map's scale. The finest map, conv4_3, whose values are larger than the
others', is normalised at each pixel and scaled by a learnt factor for each channel. State-dict keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from . import vgg
from ._layers import relu
from ._pyramid import table

PAPER = "Liu et al., SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325"

# of each map: channels, default boxes at each cell; the layers that make the last four: 1x1, 3x3, stride, padding
MAPS = ((512, 4), (1024, 6), (512, 6), (256, 6), (256, 4), (256, 4))
EXTRA = ((1024, 256, 512, 2, 1), (512, 128, 256, 2, 1), (256, 128, 256, 1, 0), (256, 128, 256, 1, 0))
CONV4_3, CONV5_3 = 23, 30  # layers of VGG-16 before the fourth and the fifth pooling


class SSDFeatures(nn.Module):
    """VGG-16 and the layers on it: (N, 3, 300, 300) -> six maps, 38, 19, 10, 5, 3 and 1 pixels wide."""

    def __init__(self) -> None:
        super().__init__()
        layers = vgg.convolutions("D", batch_norm=False, response_norm=False)
        layers[16].ceil_mode = True  # type: ignore[assignment]  # 75 pixels become 38
        self.scale_weight = nn.Parameter(torch.full((512,), 20.0))
        self.features = layers[:CONV4_3]
        dense = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), relu(), nn.Conv2d(1024, 1024, 1),
            relu(),
        )  # fmt: skip
        self.extra = nn.ModuleList([nn.Sequential(*list(layers)[CONV4_3:CONV5_3], dense)])
        for inputs, narrow, outputs, stride, padding in EXTRA:
            pair = [nn.Conv2d(inputs, narrow, 1), relu(), nn.Conv2d(narrow, outputs, 3, stride, padding), relu()]
            self.extra.append(nn.Sequential(*pair))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps, the finest first."""
        x = self.features(x)
        maps = [self.scale_weight.view(1, -1, 1, 1) * nn.functional.normalize(x)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return maps


class DefaultBoxHead(nn.Module):
    """A convolution on each map: one table (N, default boxes, columns) of all."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.module_list = nn.ModuleList(nn.Conv2d(inputs, each * columns, 3, padding=1) for inputs, each in MAPS)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the table."""
        return table((layer(one) for layer, one in zip(self.module_list, maps, strict=True)), self.columns)


class SSD(nn.Module):
    """(N, 3, 300, 300) -> deltas `boxes` (N, 8732, 4), logits `scores` (N, 8732, 1 + num_classes), background first."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = SSDFeatures()
        self.head = nn.ModuleDict(
            {"classification_head": DefaultBoxHead(1 + num_classes), "regression_head": DefaultBoxHead(4)}
        )
        for layer in (*self.backbone.extra.modules(), *self.head.modules()):
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the raw outputs."""
        maps = self.backbone(x)
        return {"boxes": self.head["regression_head"](maps), "scores": self.head["classification_head"](maps)}


# fmt: off
VARIANTS = {
    "ssd300_vgg16": {"params": 35641826, "macs": 34858000000, "source": "torchvision COCO_V1: 25.1 mAP",
        "task": "detect", "classes": 90, "input": [3, 300, 300], "fixed": True, "outputs": ["boxes", "scores"],
        "interpolation": "torch-bilinear", "mean": [0.48235, 0.45882, 0.40784],
        "std": [0.00392156862745098, 0.00392156862745098, 0.00392156862745098],
        "decoder": {"head": "anchors", "iou_threshold": 0.45, "strides": (8, 16, 32, 64, 100, 300), "sizes": (
            ((21.0, 21.0), (30.7409, 30.7409), (29.6985, 14.8492), (14.8492, 29.6985)),
            ((45.0, 45.0), (66.7458, 66.7458), (63.6396, 31.8198), (31.8198, 63.6396), (77.9423, 25.9808),
                (25.9808, 77.9423)),
            ((99.0, 99.0), (123.0731, 123.0731), (140.0071, 70.0036), (70.0036, 140.0071), (171.473, 57.1577),
                (57.1577, 171.473)),
            ((153.0, 153.0), (177.9635, 177.9635), (216.3747, 108.1873), (108.1873, 216.3747), (265.0038, 88.3346),
                (88.3346, 265.0038)),
            ((207.0, 207.0), (232.4371, 232.4371), (292.7422, 146.3711), (146.3711, 292.7422)),
            ((261.0, 261.0), (286.7316, 286.7316), (300, 184.5549), (184.5549, 300)),
        )}},
}
# fmt: on


def build(num_classes: int = 90) -> nn.Module:
    """Build SSD300 on VGG-16."""
    return SSD(num_classes)
