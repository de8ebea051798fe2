"""ESPCN: super-resolution by three convolutions, whose last channels become the pixels of the large image.

All work is done at the low resolution; the last convolution has r * r channels for each pixel, which are laid out as
r x r pixels (sub-pixel convolution). One colour, the luminance, from 0 to 1; an input of any size.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import trunc_normal_init

PAPER = "Shi et al., Real-Time Super-Resolution Using an Efficient Sub-Pixel CNN, 2016, arXiv:1609.05158"


class ESPCN(nn.Module):
    """(N, 1, H, W) -> (N, 1, factor * H, factor * W)."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
            nn.Conv2d(32, factor * factor, 3, padding=1),
        )  # fmt: skip
        self.enlarge = nn.PixelShuffle(factor)
        trunc_normal_init(self, std=0.05)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the large image."""
        return self.enlarge(self.features(x))


# fmt: off
COMMON = {"task": "super_resolve", "input": [1, 240, 320], "classes": 1, "mean": [0.0], "std": [1.0],
    "source": "Shi et al. 2016, section 4.2: 64 filters of 5x5, 32 and r * r of 3x3; biases counted"}
VARIANTS = {
    "espcn_x2": {"args": {"factor": 2}, "params": 21284, "macs": 1626931200},
    "espcn_x3": {"args": {"factor": 3}, "params": 22729, "macs": 1737523200},
    "espcn_x4": {"args": {"factor": 4}, "params": 24752, "macs": 1892352000},
}
# fmt: on


def build(factor: int, num_classes: int = 1) -> nn.Module:
    """Build the network that enlarges an image `factor` times; there are no classes."""
    return ESPCN(factor)
