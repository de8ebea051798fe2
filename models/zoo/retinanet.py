"""RetinaNet: a dense head on a feature pyramid, trained with a loss that easy examples hardly touch (focal loss).

At each point of the five maps are nine anchors; one tower of convolutions gives the classes' scores, another the
deltas to the anchor. Version 2 has group norm in the towers. State-dict keys are torchvision's; an input of any size.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from ._pyramid import PRIOR, WIDTH, Pyramid, new_key, small_init, table, tower

PAPER = "Lin et al., Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002"
ANCHORS = 9


class AnchorHead(nn.Module):
    """A tower and its last convolution, named `last`: five maps -> one table (N, rows, columns)."""

    def __init__(self, last: str, columns: int, groups: bool) -> None:
        super().__init__()
        self.columns, self.last = columns, last
        self.conv = nn.Sequential(*(nn.Sequential(*unit) for unit in tower(groups, bias=not groups)))
        self.add_module(last, nn.Conv2d(WIDTH, ANCHORS * columns, 3, padding=1))
        small_init(self)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the table: one row for each anchor."""
        last = self.get_submodule(self.last)
        return table((last(self.conv(one)) for one in maps), self.columns)


class RetinaNet(nn.Module):
    """(N, 3, H, W) -> deltas `boxes` (N, anchors, 4), logits `scores` (N, anchors, num_classes)."""

    def __init__(self, depth: int, groups: bool, num_classes: int) -> None:
        super().__init__()
        self.backbone = Pyramid(depth, from_stage=groups)
        scores = AnchorHead("cls_logits", num_classes, groups)
        nn.init.constant_(scores.cls_logits.bias, PRIOR)  # type: ignore[arg-type, union-attr]
        self.head = nn.ModuleDict({"classification_head": scores, "regression_head": AnchorHead("bbox_reg", 4, groups)})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the raw outputs."""
        maps = self.backbone(x)
        return {"boxes": self.head["regression_head"](maps), "scores": self.head["classification_head"](maps)}

    @staticmethod
    def new_key(key: str) -> str:
        """Return the key of today for one of torchvision's first weights, whose towers had no layer inside a unit."""
        pattern = r"(head\.\w+\.conv)\.(\d+)\.(weight|bias)$"
        return re.sub(pattern, lambda match: f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}", new_key(key))


# fmt: off
COMMON = {
    "task": "detect", "classes": 91, "input": [3, 800, 800], "outputs": ["boxes", "scores"], "fit": "pad",
    "fill": (123.675, 116.28, 103.53), "interpolation": "torch-bilinear",
    "decoder": {
        "head": "anchors", "activation": "sigmoid", "background": -1, "variances": (1.0, 1.0, 1.0, 1.0),
        "strides": (8, 16, 32, 64, 128), "offset": 0.0, "spread": True, "sizes": (
            ((46, 22), (56, 28), (70, 36), (32, 32), (40, 40), (50, 50), (22, 46), (28, 56), (36, 70)),
            ((90, 46), (114, 56), (142, 72), (64, 64), (80, 80), (100, 100), (46, 90), (56, 114), (72, 142)),
            ((182, 90), (228, 114), (288, 144), (128, 128), (160, 160), (204, 204), (90, 182), (114, 228), (144, 288)),
            ((362, 182), (456, 228), (574, 288), (256, 256), (322, 322), (406, 406), (182, 362), (228, 456),
                (288, 574)),
            ((724, 362), (912, 456), (1148, 574), (512, 512), (644, 644), (812, 812), (362, 724), (456, 912),
                (574, 1148)),
        ),
    },
}
VARIANTS = {
    "retinanet_resnet50": {"args": {"depth": 50}, "aliases": ["retinanet_resnet50_fpn"], "params": 34068119,
        "macs": 151540000000, "source": "torchvision COCO_V1: 36.4 mAP; 34014999 parameters without batch norm's"},
    "retinanet_resnet50_v2": {"args": {"depth": 50, "groups": True}, "aliases": ["retinanet_resnet50_fpn_v2"],
        "params": 38198935, "macs": 152238000000, "source": "torchvision COCO_V1: 41.5 mAP"},
    "retinanet_resnet18": {"args": {"depth": 18}, "source": "ResNet-18 in place of ResNet-50"},
}
# fmt: on


def build(depth: int, groups: bool = False, num_classes: int = 91) -> nn.Module:
    """Build RetinaNet on a ResNet of that depth; `groups`: with the group norm of version 2."""
    return RetinaNet(depth, groups, num_classes)
