"""Augmentation of training batches by whole-batch tensor operations with one random generator.

Everything works on normalised float32 NCHW batches; `black` is the normalised value of a black pixel per channel;
pixels outside the image are black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Augment:
    """Strength of the augmentation: degrees, fractions of the side, fractions of the range from black to white.

    Every image gets an affine map; the share `disturbed` also gets noise (up to twice `noise`) and, if `erase` is set,
    an erased rectangle. The others stay clean, so that clean images are learnt too.
    """

    rotate: float = 12.0
    shift: float = 0.08
    scale: float = 0.12
    shear: float = 0.1
    disturbed: float = 0.1
    noise: float = 0.08
    erase: bool = True
    flip: bool = False

    @property
    def moves(self) -> bool:
        """Whether it moves what an image shows."""
        return bool(self.rotate or self.shift or self.scale or self.shear or self.flip)


def augment(x: torch.Tensor, black: torch.Tensor, strength: Augment, generator: torch.Generator) -> torch.Tensor:
    """Apply one random affine map, if the strength has one, noise and erased rectangle to each image.

    Args:
        x: float32 (N, C, H, W), normalised.
        black: float32 (1, C, 1, 1).
        strength: Strength of each operation.
        generator: The random generator.

    Returns:
        A new tensor like `x`.
    """
    x = x - black
    if strength.moves:
        grid = F.affine_grid(_affine(len(x), strength, generator), list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    chosen = torch.rand(len(x), generator=generator) < strength.disturbed
    if chosen.any() and (strength.erase or strength.noise):
        x[chosen] = _disturb(x[chosen], strength, generator)
    return x + black


def _affine(count: int, strength: Augment, generator: torch.Generator) -> torch.Tensor:
    """Draw (N, 2, 3) maps from output to input coordinates: rotation, shear and scale, then a shift."""

    def draw(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, size, shear = draw(math.radians(strength.rotate)), 1 + draw(strength.scale), draw(strength.shear)
    mirror = torch.ones(count)
    if strength.flip:
        mirror -= 2 * (torch.rand(count, generator=generator) < 0.5)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * size * mirror, -angle.sin() * size + shear
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin() * size * mirror, angle.cos() * size
    theta[:, :, 2] = torch.stack((draw(2 * strength.shift), draw(2 * strength.shift)), dim=1)
    return theta


def _disturb(x: torch.Tensor, strength: Augment, generator: torch.Generator) -> torch.Tensor:
    if strength.erase:
        x = _erase(x, generator)
    level = torch.rand(len(x), 1, 1, 1, generator=generator) * strength.noise * 2 * x.amax()
    return x + level * torch.randn(len(x), 1, *x.shape[2:], generator=generator)


def _erase(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Paint one rectangle, sides 15 to 40 % of the image's, in a random grey over each image."""
    count, _, height, width = x.shape
    side = 0.15 + 0.25 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (1 - side)
    rows = (torch.arange(height) / height)[None]
    columns = (torch.arange(width) / width)[None]
    tall = (rows >= corner[:, :1]) & (rows < corner[:, :1] + side[:, :1])
    wide = (columns >= corner[:, 1:]) & (columns < corner[:, 1:] + side[:, 1:])
    inside = (tall[:, :, None] & wide[:, None, :])[:, None]
    grey = torch.rand(count, 1, 1, 1, generator=generator) * x.amax()
    return torch.where(inside, grey, x)
