"""Inception v3: large filters are factorised, 5x5 into two 3x3, 7x7 into 1x7 and 7x1 (paper below).

Five kinds of module, A to E; B and D halve the image. State-dict keys are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d

from ._layers import ConvBN, trunc_normal_init

PAPER = "Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015, arXiv:1512.00567"


class Branches(nn.Module):
    """Parallel chains of convolutions; a row is (key, filters, kernel, stride, pad) and a chain ends where stated.

    `pool`: "avg" adds an average-pooled branch with its own convolution `branch_pool`, "max" a max-pooled one at
    stride 2. (N, inputs, H, W) -> (N, sum of the branches, H', W')
    """

    def __init__(self, inputs: int, chains: Mapping[str, Sequence[tuple[Any, ...]]], pool: str, pooled: int) -> None:
        super().__init__()
        self.chains = []
        for prefix, units in chains.items():
            names, channels = [], inputs
            for number, unit in enumerate(units, start=1):
                name = f"{prefix}_{number}" if len(units) > 1 else prefix
                self.add_module(name, ConvBN(channels, *unit))
                names.append(name)
                channels = unit[0]
            self.chains.append(names)
        self.pool = pool
        if pool == "avg":
            self.branch_pool = ConvBN(inputs, pooled, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches side by side."""
        outs = []
        for names in self.chains:
            out = x
            for name in names:
                out = self.get_submodule(name)(out)
            outs.append(out)
        outs.append(self.branch_pool(avg_pool2d(x, 3, 1, 1)) if self.pool == "avg" else max_pool2d(x, 3, 2))
        return torch.cat(outs, dim=1)


def module_a(inputs: int, pooled: int) -> nn.Module:
    """1x1; 1x1 - 5x5; 1x1 - 3x3 - 3x3; average pool - 1x1."""
    chains = {"branch1x1": ((64, 1),), "branch5x5": ((48, 1), (64, 5)), "branch3x3dbl": ((64, 1), (96, 3), (96, 3))}
    return Branches(inputs, chains, "avg", pooled)


def module_b(inputs: int) -> nn.Module:
    """3x3 / 2; 1x1 - 3x3 - 3x3 / 2; max pool / 2."""
    chains = {"branch3x3": ((384, 3, 2, 0),), "branch3x3dbl": ((64, 1), (96, 3), (96, 3, 2, 0))}
    return Branches(inputs, chains, "max", 0)


def module_c(inputs: int, c: int) -> nn.Module:
    """1x1; 1x1 - 1x7 - 7x1; 1x1 - 7x1 - 1x7 - 7x1 - 1x7; average pool - 1x1."""
    chains = {
        "branch1x1": ((192, 1),),
        "branch7x7": ((c, 1), (c, (1, 7)), (192, (7, 1))),
        "branch7x7dbl": ((c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))),
    }
    return Branches(inputs, chains, "avg", 192)


def module_d(inputs: int) -> nn.Module:
    """1x1 - 3x3 / 2; 1x1 - 1x7 - 7x1 - 3x3 / 2; max pool / 2."""
    chains = {
        "branch3x3": ((192, 1), (320, 3, 2, 0)),
        "branch7x7x3": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0)),
    }
    return Branches(inputs, chains, "max", 0)


class ModuleE(nn.Module):
    """1x1; 1x1 - {1x3, 3x1}; 1x1 - 3x3 - {1x3, 3x1}; average pool - 1x1. (N, C, H, W) -> (N, 2048, H, W)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(inputs, 320, 1)
        self.branch3x3_1 = ConvBN(inputs, 384, 1)
        self.branch3x3_2a = ConvBN(384, 384, (1, 3))
        self.branch3x3_2b = ConvBN(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvBN(inputs, 448, 1)
        self.branch3x3dbl_2 = ConvBN(448, 384, 3)
        self.branch3x3dbl_3a = ConvBN(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvBN(384, 384, (3, 1))
        self.branch_pool = ConvBN(inputs, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches side by side."""
        short = self.branch3x3_1(x)
        deep = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = self.branch_pool(avg_pool2d(x, 3, 1, 1))
        wide = (self.branch3x3_2a(short), self.branch3x3_2b(short))
        wider = (self.branch3x3dbl_3a(deep), self.branch3x3dbl_3b(deep))
        return torch.cat([self.branch1x1(x), *wide, *wider, pooled], dim=1)


class Auxiliary(nn.Module):
    """A classifier on Mixed_6e, for training only; needs 17x17 maps. (N, 768, 17, 17) -> (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvBN(768, 128, 1)
        self.conv1 = ConvBN(128, 768, 5, pad=0)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits; maps smaller than the paper's are enlarged to its 5x5."""
        x = avg_pool2d(x, 5, 3) if min(x.shape[2:]) >= 17 else nn.functional.adaptive_avg_pool2d(x, 5)
        return self.fc(self.conv1(self.conv0(x)).mean((2, 3)))


class InceptionV3(nn.Module):
    """(N, 3, H, W) -> (N, num_classes) in eval mode; in training (logits, logits of Mixed_6e)."""

    def __init__(self, aux: bool, num_classes: int) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBN(3, 32, 3, 2, pad=0)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3, pad=0)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3, pad=0)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = module_a(192, 32), module_a(256, 64), module_a(288, 64)
        self.Mixed_6a = module_b(288)
        self.Mixed_6b, self.Mixed_6c = module_c(768, 128), module_c(768, 160)
        self.Mixed_6d, self.Mixed_6e = module_c(768, 160), module_c(768, 192)
        if aux:
            self.AuxLogits = Auxiliary(num_classes)
        self.aux = aux
        self.Mixed_7a = module_d(768)
        self.Mixed_7b, self.Mixed_7c = ModuleE(1280), ModuleE(2048)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, num_classes)
        trunc_normal_init(self, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return logits."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        other = self.AuxLogits(x) if self.training and self.aux else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        logits = self.fc(self.dropout(x.mean((2, 3))))
        return logits if other is None else (logits, other)


# fmt: off
VARIANTS = {
    "inception_v3": {"args": {"aux": True}, "input": [3, 299, 299], "resize": 342, "digits": 128, "params": 27161264,
        "macs": 5713000000, "top1": 77.294, "top5": 93.45, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "checkpoint": "inception_v3_google-0cc3c7bd.pth"},
}
# fmt: on


def build(aux: bool = True, num_classes: int = 1000) -> nn.Module:
    """Build Inception v3; `aux` adds the classifier that only training uses."""
    return InceptionV3(aux, num_classes)
