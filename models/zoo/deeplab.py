"""DeepLab v3: a classifier whose last stages are dilated, then convolutions of several dilations side by side (ASPP).

The stages keep the map at 1/8 (ResNet) or 1/16 (MobileNet v3) of the image; ASPP sees it with dilations 12, 24 and 36,
as single pixels, and as its mean. State-dict keys are torchvision's; the auxiliary classifier of its weights is there,
but only training computes it. An input of any size; the output has the image's size.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import ConvNormAct
from .mobilenet_v3 import dilated_features
from .resnet import Trunk

PAPER = "Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, arXiv:1706.05587"
WIDTH, DILATIONS = 256, (12, 24, 36)


class PooledView(nn.Sequential):
    """The mean of all pixels through a 1x1 convolution, at each pixel."""

    def __init__(self, inputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *ConvNormAct(inputs, WIDTH, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 256, H, W)."""
        pooled = x
        for layer in self:
            pooled = layer(pooled)
        return nn.functional.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """(N, inputs, H, W) -> (N, 256, H, W): five views of the map, joined."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        wide = [ConvNormAct(inputs, WIDTH, 3, dilation=dilation) for dilation in DILATIONS]
        self.convs = nn.ModuleList([ConvNormAct(inputs, WIDTH, 1), *wide, PooledView(inputs)])
        self.project = nn.Sequential(*ConvNormAct(5 * WIDTH, WIDTH, 1), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the joined views."""
        return self.project(torch.cat([conv(x) for conv in self.convs], 1))


class DeepLab(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, H, W); in training also those of the auxiliary classifier."""

    def __init__(self, trunk: str, num_classes: int) -> None:
        super().__init__()
        self.backbone = Trunk(50, dilated=2) if trunk == "resnet50" else dilated_features()
        # The outputs of the trunk that the two classifiers read, and their channels.
        inputs, (self.aux_at, aux_inputs) = (2048, (2, 1024)) if trunk == "resnet50" else (960, (4, 40))
        self.classifier = nn.Sequential(ASPP(inputs), *ConvNormAct(WIDTH, WIDTH, 3), nn.Conv2d(WIDTH, num_classes, 1))
        narrow = aux_inputs // 4
        self.aux_classifier = nn.Sequential(
            *ConvNormAct(aux_inputs, narrow, 3), nn.Dropout(0.1), nn.Conv2d(narrow, num_classes, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return logits for each pixel."""
        maps = self.maps(x)
        output = self.enlarged(self.classifier(maps[-1]), x)
        if not self.training:
            return output
        return {"output": output, "aux": self.enlarged(self.aux_classifier(maps[self.aux_at]), x)}

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of the trunk's parts."""
        if isinstance(self.backbone, Trunk):
            return self.backbone.maps(x)
        maps = [x]
        for part in self.backbone:
            maps.append(part(maps[-1]))
        return maps[1:]

    @staticmethod
    def enlarged(scores: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return scores at the size of the image."""
        return nn.functional.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)


# fmt: off
COMMON = {"task": "segment", "classes": 21, "input": [3, 520, 520]}
VARIANTS = {
    "deeplabv3_mobilenetv3": {"args": {"trunk": "mobilenetv3"}, "aliases": ["deeplabv3_mobilenet_v3_large"],
        "params": 11029328, "macs": 10452000000,
        "source": "torchvision COCO_WITH_VOC_LABELS_V1: mIoU 60.3, with the auxiliary classifier"},
    "deeplabv3_resnet50": {"args": {"trunk": "resnet50"}, "params": 42004074, "macs": 168731000000,
        "source": "torchvision COCO_WITH_VOC_LABELS_V1: mIoU 66.4; 178.722 G less the auxiliary classifier's 9.991 G"},
}
# fmt: on


def build(trunk: str, num_classes: int = 21) -> nn.Module:
    """Build DeepLab v3 on "mobilenetv3" (large) or "resnet50"."""
    return DeepLab(trunk, num_classes)
