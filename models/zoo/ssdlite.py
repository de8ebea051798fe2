"""SSDLite: SSD with depthwise separable convolutions, on MobileNet v2 and v3 (papers below).

Six maps, from 1/16 of the size to a single cell, each with a depthwise convolution and a 1x1 convolution for the
boxes and another pair for the classes. The first map is the widened input of the last block with stride 2. The network
gives raw numbers: deltas to default boxes and scores with the background first; the decoder of the spec has the boxes.
State-dict keys are torchvision's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from . import mobilenet_v2, mobilenet_v3
from ._layers import ConvNormAct, he_init, relu6

PAPER = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv:1801.04381, section 6.2"

EXTRA = (512, 256, 256, 128)  # channels of the maps after the backbone's last
SIZES = 6  # default boxes in each cell
SPLIT = {"mobilenet_v2": 14, "mobilenet_v3": 13}  # the last block with stride 2
Unit = Callable[..., ConvNormAct]


class Features(nn.Module):
    """The six maps: (N, 3, H, W) -> (N, C, H / 16, W / 16), then half as large each time, rounded up."""

    def __init__(self, layers: nn.Sequential, at: int, unit: Unit) -> None:
        super().__init__()
        blocks, block = list(layers), cast(Any, next(layers[at].children()))
        self.features = nn.Sequential(
            nn.Sequential(*blocks[:at], block[0]), nn.Sequential(block[1:], *blocks[at + 1 :])
        )
        self.extra = nn.ModuleList()
        last: Any = layers[-1]
        self.channels = [block[0][0].out_channels, last[0].out_channels]
        for outputs in EXTRA:
            self.extra.append(smaller(self.channels[-1], outputs, unit))
            self.channels.append(outputs)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps, the largest first."""
        maps = []
        for block in (*self.features, *self.extra):
            x = block(x)
            maps.append(x)
        return maps


def smaller(inputs: int, outputs: int, unit: Unit) -> nn.Sequential:
    """Return a block that halves the size: 1x1 to half of the outputs, 3x3 depthwise with stride 2, 1x1."""
    middle = outputs // 2
    return nn.Sequential(unit(inputs, middle, 1), unit(middle, middle, 3, 2, groups=middle), unit(middle, outputs, 1))


class Head(nn.Module):
    """3x3 depthwise, 1x1, for each map: C maps (N, ..., H, W) -> (N, cells * SIZES, columns)."""

    def __init__(self, channels: list[int], columns: int, unit: Unit) -> None:
        super().__init__()
        self.columns = columns
        self.module_list = nn.ModuleList(
            nn.Sequential(unit(inputs, inputs, 3, groups=inputs), nn.Conv2d(inputs, SIZES * columns, 1))
            for inputs in channels
        )

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return one row for each default box, in the order of maps, rows, columns, boxes of a cell."""
        tables = [layer(x).permute(0, 2, 3, 1) for layer, x in zip(self.module_list, maps, strict=True)]
        return torch.cat([table.reshape(len(table), -1, self.columns) for table in tables], dim=1)


class SSDLite(nn.Module):
    """(N, 3, H, W) -> deltas (N, boxes, 4), scores (N, boxes, 1 + num_classes), the background first."""

    def __init__(self, layers: nn.Sequential, at: int, unit: Unit, num_classes: int) -> None:
        super().__init__()
        self.backbone = Features(layers, at, unit)
        self.head = nn.ModuleDict({
            "classification_head": Head(self.backbone.channels, num_classes + 1, unit),
            "regression_head": Head(self.backbone.channels, 4, unit),
        })  # fmt: skip
        for layer in (*self.backbone.extra.modules(), *self.head.modules()):
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.03)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the deltas as `boxes` and the scores as `scores`."""
        maps = self.backbone(x)
        return {"boxes": self.head["regression_head"](maps), "scores": self.head["classification_head"](maps)}


# fmt: off
VARIANTS = {
    "ssdlite_mobilenetv2": {"args": {"backbone": "mobilenet_v2"}, "task": "detect", "input": [3, 320, 320],
        "classes": 90, "outputs": ["boxes", "scores"], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "anchors": {"stride": 16, "levels": 6, "scales": [0.2, 0.95], "ratios": [2, 3]},
        "scenes": {"scales": [0.38, 0.95]}, "digits": 96, "recipe": "detect", "backbone": "mobilenetv2"},
    "ssdlite_mobilenetv3": {"args": {"backbone": "mobilenet_v3"}, "aliases": ["ssdlite320_mobilenet_v3_large"],
        "task": "detect", "input": [3, 320, 320], "classes": 90, "outputs": ["boxes", "scores"],
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "params": 3440060, "macs": 583000000,
        "anchors": {"stride": 16, "levels": 6, "scales": [0.2, 0.95], "ratios": [2, 3]},
        "scenes": {"scales": [0.38, 0.95]}, "digits": 96, "recipe": "detect", "source": "torchvision COCO_V1: 21.3 mAP",
        "paper": "Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244, section 6.3"},
}
# fmt: on


def build(backbone: str, num_classes: int = 90) -> nn.Module:
    """Build SSDLite on "mobilenet_v2" or, with half of the last channels, "mobilenet_v3"; `num_classes` objects."""
    if backbone == "mobilenet_v2":
        unit: Unit = functools.partial(ConvNormAct, act=relu6)
        layers = mobilenet_v2.MobileNetV2(1.0, 1).features
    else:
        unit = functools.partial(ConvNormAct, act=relu6, eps=0.001, momentum=0.03)
        layers = mobilenet_v3.convolutions("large", half_tail=True, momentum=0.03)
        he_init(layers)
    return SSDLite(layers, SPLIT[backbone], unit, num_classes)
