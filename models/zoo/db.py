"""DB: a text detector that says of each pixel whether it is text (differentiable binarisation, paper below).

A pyramid on ResNet-18, joined at 1/4 of the image, and two transposed convolutions up to its size. Training learns a
threshold for each pixel beside it and a soft step between the two; the device needs the probabilities alone. State-dict
keys are the authors', whose trunk has deformable convolutions in addition. The input's sides are multiples of 32.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import he_init, relu
from .resnet import Trunk

PAPER = "Liao et al., Real-time Scene Text Detection with Differentiable Binarization, 2019, arXiv:1911.08947"
WIDTH, NARROW = 256, 64
STEEPNESS = 50  # of the soft step


def pixels() -> nn.Sequential:
    """Return the layers from the joined maps to one value from 0 to 1 for each pixel, at four times the size."""
    return nn.Sequential(
        nn.Conv2d(WIDTH, NARROW, 3, padding=1, bias=False), nn.BatchNorm2d(NARROW), relu(),
        nn.ConvTranspose2d(NARROW, NARROW, 2, 2), nn.BatchNorm2d(NARROW), relu(),
        nn.ConvTranspose2d(NARROW, 1, 2, 2), nn.Sigmoid(),
    )  # fmt: skip


class TextMap(nn.Module):
    """Four maps -> the probability of text (N, 1, H, W); in training also the threshold and the soft step."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        for level, width in enumerate(widths, start=2):
            self.add_module(f"in{level}", nn.Conv2d(width, WIDTH, 1, bias=False))
            last = [nn.Conv2d(WIDTH, NARROW, 3, padding=1, bias=False)]
            larger = [nn.Upsample(scale_factor=1 << (level - 2), mode="nearest")]
            self.add_module(f"out{level}", nn.Sequential(*last, *larger) if level > 2 else last[0])
        self.binarize, self.thresh = pixels(), pixels()
        he_init(self)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the probabilities."""
        sides = [self.get_submodule(f"in{level}")(one) for level, one in enumerate(maps, start=2)]
        levels = [sides.pop()]
        while sides:
            levels.append(sides.pop() + nn.functional.interpolate(levels[-1], scale_factor=2.0, mode="nearest"))
        parts = [self.get_submodule(f"out{5 - at}")(one) for at, one in enumerate(levels)]
        together = torch.cat(parts, 1)
        chance = self.binarize(together)
        if not self.training:
            return chance
        threshold = self.thresh(together)
        return {"output": chance, "threshold": threshold, "step": torch.sigmoid(STEEPNESS * (chance - threshold))}


class DB(nn.Module):
    """(N, 3, H, W) -> the probability of text (N, 1, H, W)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.backbone = Trunk(depth)
        self.decoder = TextMap(self.backbone.widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the probabilities."""
        return self.decoder(self.backbone(x))


# fmt: off
COMMON = {"task": "segment", "classes": 2, "labels": ["background", "text"], "input": [3, 640, 640], "keys": "db"}
VARIANTS = {
    "db_resnet18": {"args": {"depth": 18}, "source": "Liao et al. 2019, without deformable convolution"},
}
# fmt: on


def build(depth: int, num_classes: int = 2) -> nn.Module:
    """Build DB on a ResNet of that depth; its classes are background and text."""
    return DB(depth)
