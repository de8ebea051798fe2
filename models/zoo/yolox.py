"""YOLOX: a CSP trunk, a pyramid down and up again, and for each map a head whose classes and boxes have own layers.

No anchors: each cell of the maps at 1/8, 1/16 and 1/32 gives one box, an objectness and the classes. Nano's 3x3
convolutions are depthwise and pointwise. State-dict keys are those of the authors' weights (Megvii, Apache-2.0). The
input is BGR pixels, 0 to 255, its sides multiples of 32; boxes are decoded after the network, from its raw grid.
"""

from __future__ import annotations

import math

import torch
from torch import nn

PAPER = "Ge et al., YOLOX: Exceeding YOLO Series in 2021, 2021, arXiv:2107.08430"

FILTERS = (256, 512, 1024)  # of the maps at 1/8, 1/16 and 1/32, at width 1
PRIOR = 0.01  # of an object in a cell at first


class YOLOXUnit(nn.Module):
    """Convolution without bias, batch norm, SiLU: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.03)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        return self.act(self.bn(self.conv(x)))


class SeparableUnit(nn.Module):
    """A depthwise 3x3 unit and a pointwise one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = YOLOXUnit(inputs, inputs, kernel, stride, inputs)
        self.pconv = YOLOXUnit(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the pair."""
        return self.pconv(self.dconv(x))


Wide = type[YOLOXUnit] | type[SeparableUnit]  # what a network's 3x3 convolutions are


class Focus(nn.Module):
    """Each 2x2 pixels become one of 12 channels, then a 3x3 unit: (N, 3, H, W) -> (N, outputs, H / 2, W / 2)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = YOLOXUnit(12, outputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the coarser map."""
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, 1))


class CSPBlock(nn.Module):
    """1x1 - 3x3, added to the input if `skip`."""

    def __init__(self, width: int, skip: bool, wide: Wide) -> None:
        super().__init__()
        self.conv1, self.conv2 = YOLOXUnit(width, width, 1), wide(width, width, 3)
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.conv2(self.conv1(x))
        return y + x if self.skip else y


class CSP(nn.Module):
    """Half of the channels go through `count` bottlenecks, the other half around them (Wang et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, count: int, skip: bool, wide: Wide) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.conv2, self.conv3 = (
            YOLOXUnit(inputs, half, 1),
            YOLOXUnit(inputs, half, 1),
            YOLOXUnit(2 * half, outputs, 1),
        )
        self.m = nn.Sequential(*(CSPBlock(half, skip, wide) for _ in range(count)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, H, W)."""
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))


class Pools(nn.Module):
    """The map beside its maxima over 5, 9 and 13 pixels (spatial pyramid pooling)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = YOLOXUnit(width, width // 2, 1), YOLOXUnit(2 * width, width, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in (5, 9, 13))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a map of the same shape."""
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class Darknet(nn.Module):
    """(N, 3, H, W) -> the maps at 1/8, 1/16 and 1/32."""

    def __init__(self, depth: int, base: int, wide: Wide) -> None:
        super().__init__()
        self.stem = Focus(base)
        self.dark2 = nn.Sequential(wide(base, 2 * base, 3, 2), CSP(2 * base, 2 * base, depth, True, wide))
        self.dark3 = nn.Sequential(wide(2 * base, 4 * base, 3, 2), CSP(4 * base, 4 * base, 3 * depth, True, wide))
        self.dark4 = nn.Sequential(wide(4 * base, 8 * base, 3, 2), CSP(8 * base, 8 * base, 3 * depth, True, wide))
        last = 16 * base
        self.dark5 = nn.Sequential(wide(8 * base, last, 3, 2), Pools(last), CSP(last, last, depth, False, wide))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps, the finest first."""
        maps = [self.dark3(self.dark2(self.stem(x)))]
        maps.append(self.dark4(maps[-1]))
        return [*maps, self.dark5(maps[-1])]


class PathAggregation(nn.Module):
    """The trunk; coarse maps are enlarged and joined with finer ones, then these shrunk and joined back."""

    def __init__(self, depth: int, filters: tuple[int, ...], wide: Wide) -> None:
        super().__init__()
        fine, middle, coarse = filters
        self.backbone = Darknet(depth, fine // 4, wide)
        self.lateral_conv0 = YOLOXUnit(coarse, middle, 1)
        self.C3_p4 = CSP(2 * middle, middle, depth, False, wide)
        self.reduce_conv1 = YOLOXUnit(middle, fine, 1)
        self.C3_p3 = CSP(2 * fine, fine, depth, False, wide)
        self.bu_conv2 = wide(fine, fine, 3, 2)
        self.C3_n3 = CSP(2 * fine, middle, depth, False, wide)
        self.bu_conv1 = wide(middle, middle, 3, 2)
        self.C3_n4 = CSP(2 * middle, coarse, depth, False, wide)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the three maps, the finest first."""
        fine, middle, coarse = self.backbone(x)
        top = self.lateral_conv0(coarse)
        side = self.reduce_conv1(self.C3_p4(torch.cat([self.upsample(top), middle], 1)))
        maps = [self.C3_p3(torch.cat([self.upsample(side), fine], 1))]
        maps.append(self.C3_n3(torch.cat([self.bu_conv2(maps[-1]), side], 1)))
        return [*maps, self.C3_n4(torch.cat([self.bu_conv1(maps[-1]), top], 1))]


class DecoupledHead(nn.Module):
    """Three maps -> (N, cells, 5 + num_classes): centre in cells, log of the size, objectness, classes, as shares."""

    def __init__(self, filters: tuple[int, ...], wide: Wide, num_classes: int) -> None:
        super().__init__()
        width = filters[0]

        def pair() -> nn.Sequential:
            return nn.Sequential(wide(width, width, 3), wide(width, width, 3))

        def last(columns: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(width, columns, 1) for _ in filters)

        self.stems = nn.ModuleList(YOLOXUnit(inputs, width, 1) for inputs in filters)
        self.cls_convs, self.reg_convs = (nn.ModuleList(pair() for _ in filters) for _ in range(2))
        self.cls_preds, self.reg_preds, self.obj_preds = last(num_classes), last(4), last(1)
        for layer in (*self.cls_preds, *self.obj_preds):
            nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the raw grid, the finest map first."""
        parts = []
        for level, one in enumerate(maps):
            x = self.stems[level](one)
            boxes = self.reg_convs[level](x)
            scores = [self.obj_preds[level](boxes), self.cls_preds[level](self.cls_convs[level](x))]
            parts.append(torch.cat([self.reg_preds[level](boxes), *(score.sigmoid() for score in scores)], 1))
        return torch.cat([part.flatten(2) for part in parts], 2).permute(0, 2, 1)


class YOLOX(nn.Module):
    """(N, 3, H, W) -> (N, cells, 5 + num_classes), as `DecoupledHead` has it."""

    def __init__(self, width: float, separable: bool, num_classes: int) -> None:
        super().__init__()
        filters, wide = tuple(int(filters * width) for filters in FILTERS), SeparableUnit if separable else YOLOXUnit
        self.backbone = PathAggregation(1, filters, wide)
        self.head = DecoupledHead(filters, wide, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the raw grid."""
        return self.head(self.backbone(x))


# fmt: off
COMMON = {
    "task": "detect", "classes": 80, "keys": "yolox", "channels": "BGR", "fit": "pad", "fill": 114,
    "interpolation": "opencv-linear", "mean": [0.0, 0.0, 0.0],
    "std": [0.00392156862745098, 0.00392156862745098, 0.00392156862745098],
    "decoder": {"head": "yolo-objectness", "strides": (8, 16, 32)},
}
VARIANTS = {
    "yolox_nano": {"args": {"width": 0.25, "separable": True}, "input": [3, 416, 416], "params": 912159,
        "macs": 522553408, "source": "Megvii's table: 0.91 M, 1.08 G operations with batch norm's, 25.8 mAP"},
    "yolox_tiny": {"args": {"width": 0.375}, "input": [3, 416, 416], "params": 5055855, "macs": 3225000000,
        "source": "Megvii's table: 5.06 M, 6.45 G operations with batch norm's, 32.8 mAP"},
    "yolox_s": {"args": {"width": 0.5}, "input": [3, 640, 640], "params": 8968255, "macs": 13400000000,
        "source": "Megvii's table: 9.0 M, 26.8 G operations with batch norm's, 40.5 mAP"},
}
# fmt: on


def build(width: float, separable: bool = False, num_classes: int = 80) -> nn.Module:
    """Build YOLOX of a third of the depth; `separable`: Nano's 3x3 convolutions."""
    return YOLOX(width, separable, num_classes)
