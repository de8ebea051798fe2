"""A feature pyramid on ResNet, and the tables of a dense head: what RetinaNet and FCOS have in common.

Lin et al., Feature Pyramid Networks for Object Detection, 2016, arXiv:1612.03144: maps of all sizes get the same
number of channels, and each is added to by the next coarser one. Keys are torchvision's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import nn

from ._layers import relu
from .resnet import Trunk

WIDTH = 256
PRIOR = -4.59511985013459  # the logit of 0.01: at first hardly anything is an object


class Levels(nn.Module):
    """Bring the maps of stages 2 to 4 to one width, add to each the one above, and make two coarser ones.

    `from_stage`: the coarser ones are made from the last stage, not from the pyramid's last map.
    """

    def __init__(self, widths: list[int], from_stage: bool) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(width, WIDTH, 1)) for width in widths)
        self.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)) for _ in widths)
        p6, p7 = nn.Conv2d(widths[-1] if from_stage else WIDTH, WIDTH, 3, 2, 1), nn.Conv2d(WIDTH, WIDTH, 3, 2, 1)
        self.extra_blocks = nn.ModuleDict({"p6": p6, "p7": p7})
        self.from_stage = from_stage
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)

    def forward(self, stages: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the five maps, the finest first."""
        above = self.inner_blocks[-1](stages[-1])
        maps = [self.layer_blocks[-1](above)]
        for level in range(len(stages) - 2, -1, -1):
            side = self.inner_blocks[level](stages[level])
            above = side + nn.functional.interpolate(above, size=side.shape[-2:], mode="nearest")
            maps.insert(0, self.layer_blocks[level](above))
        maps.append(self.extra_blocks["p6"](stages[-1] if self.from_stage else maps[-1]))
        maps.append(self.extra_blocks["p7"](nn.functional.relu(maps[-1])))
        return maps


class Pyramid(nn.Module):
    """A ResNet with the pyramid on it: (N, 3, H, W) -> five maps (N, 256, H / stride, W / stride), stride 8 to 128."""

    def __init__(self, depth: int, from_stage: bool = False) -> None:
        super().__init__()
        self.body = Trunk(depth)
        self.fpn = Levels(self.body.widths[1:], from_stage)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the five maps, the finest first."""
        maps: list[torch.Tensor] = self.fpn(self.body(x)[1:])
        return maps


def new_key(key: str) -> str:
    """Return the key of today for one of torchvision's first weights, whose pyramid had no layer inside a block."""
    return re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", key)


def tower(groups: bool, bias: bool) -> list[list[nn.Module]]:
    """Return the layers of the four units of a dense head: convolution, group norm if `groups`, ReLU."""
    return [
        [nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=bias), *([nn.GroupNorm(32, WIDTH)] if groups else []), relu()]
        for _ in range(4)
    ]


def small_init(module: nn.Module) -> None:
    """Initialise the convolutions of a dense head from N(0, 0.01), with bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def table(maps: Iterable[torch.Tensor], columns: int) -> torch.Tensor:
    """Return maps (N, anchors * columns, H, W) as one table (N, rows, columns): by levels, rows, columns, anchors."""
    return torch.cat([one.permute(0, 2, 3, 1).reshape(one.shape[0], -1, columns) for one in maps], 1)
