"""NASNet-A: two cells found by search on small images, stacked to the required depth (paper below).

A cell reads the outputs of the two cells before it. Each row of its table adds two operations, on these or on earlier
rows; the results of the rows are concatenated. State-dict keys are those of timm's `nasnetalarge`; the mobile net has
the same keys with fewer cells. Strided layers pad like the authors' code: for an even side, one less before than after.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._layers import ConvBN

PAPER = "Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, 2017, arXiv:1707.07012"

# Operation, kernel, and input: "h" the cell before, "p" the one before that, 0 to 4 a row (the paper's figure 4).
NORMAL = (
    (("separable", 5, "h"), ("separable", 3, "p")),
    (("separable", 5, "p"), ("separable", 3, "p")),
    (("average", 3, "h"), ("identity", 1, "p")),
    (("average", 3, "p"), ("average", 3, "p")),
    (("separable", 3, "h"), ("identity", 1, "h")),
)
REDUCTION = (  # operations on h and p have stride 2
    (("separable", 5, "h"), ("separable", 7, "p")),
    (("maximum", 3, "h"), ("separable", 7, "p")),
    (("average", 3, "h"), ("separable", 5, "p")),
    (("identity", 1, 1), ("average", 3, 0)),
    (("separable", 3, 0), ("maximum", 3, "h")),
)
OUTPUT = {1: ("p", 0, 1, 2, 3, 4), 2: (1, 2, 3, 4)}  # by stride


def padded(x: torch.Tensor, kernel: int) -> torch.Tensor:
    """Pad for a layer of stride 2 so that the output has half the side, rounded up; the larger half is at the end."""
    width, height = (kernel - 2 + x.shape[axis] % 2 for axis in (3, 2))
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class Squeeze(ConvBN):
    """ReLU, 1x1 convolution, batch norm; keys conv, bn."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        return super().forward(torch.relu(x))


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution, 1x1 convolution: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride, pad = kernel, stride, kernel // 2 if stride == 1 else 0
        self.depthwise_conv2d = nn.Conv2d(inputs, inputs, kernel, stride, pad, groups=inputs, bias=False)
        self.pointwise_conv2d = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        x = x if self.stride == 1 else padded(x, self.kernel)
        return self.pointwise_conv2d(self.depthwise_conv2d(x))


class Separable(nn.Module):
    """ReLU, depthwise separable convolution, batch norm; all twice, with the stride in the first."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.separable_1 = DepthwiseSeparable(inputs, outputs, kernel, stride)
        self.bn_sep_1 = nn.BatchNorm2d(outputs, eps=0.001)
        self.separable_2 = DepthwiseSeparable(outputs, outputs, kernel, 1)
        self.bn_sep_2 = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        x = self.bn_sep_1(self.separable_1(torch.relu(x)))
        return self.bn_sep_2(self.separable_2(torch.relu(x)))


def pool(x: torch.Tensor, operation: str, kernel: int, stride: int) -> torch.Tensor:
    """Return the pooled map; the average excludes padding at stride 1 and includes it as zeros at stride 2."""
    if operation == "maximum":
        return F.max_pool2d(x, kernel, stride, (x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
    if stride == 1:
        return F.avg_pool2d(x, kernel, 1, kernel // 2, count_include_pad=False)
    return F.avg_pool2d(padded(x, kernel), kernel, stride)


class Cell(nn.Module):
    """(h, p) -> filters * 6 channels of h's size (NORMAL), or filters * 4 of half of it (REDUCTION, stride 2).

    `far` defines how p gets `filters` channels and h's size: "no" keeps it, "near" squeezes it, "far" also halves
    it, by two 1x1 convolutions of stride 2 on different pixels.
    """

    def __init__(self, h: int, p: int, filters: int, stride: int, far: str) -> None:
        super().__init__()
        self.stride, self.far = stride, far
        self.rows = NORMAL if stride == 1 else REDUCTION
        if far == "near":
            self.conv_prev_1x1 = Squeeze(p, filters)
        self.conv_1x1 = Squeeze(h, filters)
        if far == "far":
            self.path_1, self.path_2 = nn.Sequential(), nn.Sequential()
            self.path_1.conv = nn.Conv2d(p, filters // 2, 1, 2, bias=False)
            self.path_2.conv = nn.Conv2d(p, filters // 2, 1, 2, bias=False)
            self.final_path_bn = nn.BatchNorm2d(filters, eps=0.001)
        channels: dict[Any, int] = {"p": p if far == "no" else filters}
        for row, sides in enumerate(self.rows):
            for side, (operation, kernel, source) in zip(("left", "right"), sides, strict=True):
                if operation == "separable":
                    step = stride if source in ("h", "p") else 1
                    layer = Separable(channels.get(source, filters), filters, kernel, step)
                    self.add_module(f"comb_iter_{row}_{side}", layer)
        self.outputs = filters * len(OUTPUT[stride])

    def forward(self, h: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """Return the cell's output."""
        values: dict[Any, torch.Tensor] = {"h": self.conv_1x1(h), "p": self._fit(p)}
        for row, sides in enumerate(self.rows):
            values[row] = self._operate(values, row, "left", *sides[0]) + self._operate(values, row, "right", *sides[1])
        return torch.cat([values[name] for name in OUTPUT[self.stride]], dim=1)

    def _operate(
        self, values: dict[Any, torch.Tensor], row: int, side: str, operation: str, kernel: int, source: Any
    ) -> torch.Tensor:
        x = values[source]
        if operation == "identity":
            return x
        if operation == "separable":
            return self.get_submodule(f"comb_iter_{row}_{side}")(x)
        return pool(x, operation, kernel, self.stride if source in ("h", "p") else 1)

    def _fit(self, p: torch.Tensor) -> torch.Tensor:
        if self.far == "no":
            return p
        if self.far == "near":
            return self.conv_prev_1x1(p)
        p = torch.relu(p)
        moved = F.pad(p[:, :, 1:, 1:], (0, p.shape[3] % 2, 0, p.shape[2] % 2))
        return self.final_path_bn(torch.cat([self.path_1(p), self.path_2(moved)], dim=1))


class NASNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32.

    Two reduction cells as the stem, then three stages of `repeats` normal cells with a reduction before the second and
    the third. After a reduction p is the cell before it (`skip`: the one before that, as in the large net).
    """

    def __init__(self, filters: int, repeats: int, stem: int, skip: bool, num_classes: int) -> None:
        super().__init__()
        self.skip = skip
        self.conv0 = ConvBN(3, stem, 3, 2, pad=0, act=False)
        self.cell_stem_0 = Cell(stem, stem, filters // 4, 2, "no")
        self.cell_stem_1 = Cell(self.cell_stem_0.outputs, stem, filters // 2, 2, "far")
        h, p, far = self.cell_stem_1.outputs, self.cell_stem_0.outputs, "far"
        self.order: list[str] = []
        for stage in range(3):
            plan = [(f"reduction_cell_{stage - 1}", 2)] if stage else []
            plan += [(f"cell_{6 * stage + index}", 1) for index in range(repeats)]
            for name, stride in plan:
                cell = Cell(h, p, filters << stage, stride, far)
                self.add_module(name, cell)
                self.order.append(name)
                h, p, far = cell.outputs, p if stride == 2 and skip else h, "far" if stride == 2 else "near"
        self.dropout = nn.Dropout(0.5)
        self.last_linear = nn.Linear(h, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        first = self.conv0(x)
        p = self.cell_stem_0(first, first)
        h = self.cell_stem_1(p, first)
        for name in self.order:
            output = self.get_submodule(name)(h, p)
            h, p = output, p if name.startswith("reduction") and self.skip else h
        return self.last_linear(self.dropout(torch.relu(h).mean((2, 3))))


# fmt: off
VARIANTS = {
    "nasnet_mobile": {"args": {"filters": 44, "repeats": 4, "stem": 32}, "aliases": ["nasnetamobile", "nasnet"],
        "params": 5289978, "macs": 564000000, "top1": 74.0, "top5": 91.6, "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5], "source": "Zoph et al. 2017, table 3: NASNet-A (4 @ 1056), 5.3 M, 564 M"},
    "nasnet_large": {"args": {"filters": 168, "repeats": 6, "stem": 96, "skip": True}, "keys": "timm",
        "aliases": ["nasnetalarge"], "input": [3, 331, 331], "resize": 363, "interpolation": "bicubic",
        "params": 88753150, "macs": 23800000000, "top1": 82.7, "top5": 96.2, "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5], "checkpoint": "nasnetalarge-dc4a7b8b.pth",
        "url": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/",
        "source": "Zoph et al. 2017, table 2: NASNet-A (6 @ 4032), 88.9 M, 23.8 B"},
}
# fmt: on


def build(filters: int, repeats: int, stem: int, skip: bool = False, num_classes: int = 1000) -> nn.Module:
    """Build NASNet-A with `filters` in the first stage's cells; 24 times as many reach the classifier."""
    return NASNet(filters, repeats, stem, skip, num_classes)
