"""FCOS: no anchors; each point of five maps says how far the sides of its object are, and how central the point is.

The centredness lowers the score of points near the edge of an object, whose boxes are worse. Its tower is that of the
distances. State-dict keys are torchvision's; an input of any size.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from ._pyramid import PRIOR, WIDTH, Pyramid, new_key, small_init, table, tower

PAPER = "Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, 2019, arXiv:1904.01355"


class PointHead(nn.Module):
    """A tower and the convolutions after it, by name; `forward` returns one table (N, rows, columns) for each."""

    def __init__(self, columns: dict[str, int]) -> None:
        super().__init__()
        self.columns = columns
        self.conv = nn.Sequential(*itertools.chain.from_iterable(tower(groups=True, bias=True)))
        for name, count in columns.items():
            self.add_module(name, nn.Conv2d(WIDTH, count, 3, padding=1))
        small_init(self)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the tables: one row for each point."""
        ends = [self.conv(one) for one in maps]
        return [table(map(self.get_submodule(name), ends), count) for name, count in self.columns.items()]


class FCOS(nn.Module):
    """(N, 3, H, W) -> distances in strides `boxes` (N, points, 4), logits `scores` (N, points, num_classes), `centres`.

    `centres` (N, points, 1) are logits too.
    """

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = Pyramid(depth)
        scores = PointHead({"cls_logits": num_classes})
        nn.init.constant_(scores.cls_logits.bias, PRIOR)  # type: ignore[arg-type, union-attr]
        boxes = PointHead({"bbox_reg": 4, "bbox_ctrness": 1})
        self.head = nn.ModuleDict({"classification_head": scores, "regression_head": boxes})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the raw outputs."""
        maps = self.backbone(x)
        (scores,) = self.head["classification_head"](maps)
        boxes, centres = self.head["regression_head"](maps)
        return {"boxes": nn.functional.relu(boxes), "scores": scores, "centres": centres}

    new_key = staticmethod(new_key)


# fmt: off
COMMON = {
    "task": "detect", "classes": 91, "input": [3, 800, 800], "outputs": ["boxes", "scores", "centres"], "fit": "pad",
    "fill": (123.675, 116.28, 103.53), "interpolation": "torch-bilinear",
    "decoder": {"head": "distances", "strides": (8, 16, 32, 64, 128), "offset": 0.0, "spread": True,
        "centres": ("centres",)},
}
VARIANTS = {
    "fcos_resnet50": {"args": {"depth": 50}, "aliases": ["fcos_resnet50_fpn"], "params": 32322720,
        "macs": 128207000000, "source": "torchvision COCO_V1: 39.2 mAP; 32269600 parameters without batch norm's"},
    "fcos_resnet18": {"args": {"depth": 18}, "source": "ResNet-18 in place of ResNet-50"},
}
# fmt: on


def build(depth: int, num_classes: int = 91) -> nn.Module:
    """Build FCOS on a ResNet of that depth."""
    return FCOS(depth, num_classes)
