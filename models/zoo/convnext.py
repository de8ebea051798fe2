"""ConvNeXt: a ResNet modernised step by step until it matches transformers (paper below).

Depthwise 7x7, layer norm, 1x1 to 4 times the channels with GELU and back; each residual branch is scaled by a learnt
number per channel. State-dict keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import LayerNorm2d, StochasticDepth

PAPER = "Liu et al., A ConvNet for the 2020s, 2022, arXiv:2201.03545"

# channels and blocks of the four stages
NETWORK = {"tiny": ((96, 3), (192, 3), (384, 9), (768, 3))}


class Permute(nn.Module):
    """Permute the axes."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x permuted."""
        return x.permute(self.order)


class Block(nn.Module):
    """(N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, drop: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            Permute((0, 2, 3, 1)),
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            Permute((0, 3, 1, 2)),
        )
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.stochastic_depth(self.layer_scale * self.block(x))


class ConvNeXt(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, size: str, num_classes: int) -> None:
        super().__init__()
        total = sum(blocks for _, blocks in NETWORK[size])
        layers, channels, index = nn.Sequential(), 3, 0
        for width, blocks in NETWORK[size]:
            if channels == 3:
                layers.append(nn.Sequential(nn.Conv2d(3, width, 4, 4), LayerNorm2d(width, eps=1e-6)))
            else:
                layers.append(nn.Sequential(LayerNorm2d(channels, eps=1e-6), nn.Conv2d(channels, width, 2, 2)))
            layers.append(nn.Sequential(*(Block(width, 0.1 * (index + i) / (total - 1)) for i in range(blocks))))
            channels, index = width, index + blocks
        self.features = layers
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            LayerNorm2d(channels, eps=1e-6), nn.Flatten(1), nn.Linear(channels, num_classes)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(self.avgpool(self.features(x)))


# fmt: off
VARIANTS = {
    "convnext_tiny": {"args": {"size": "tiny"}, "resize": 236, "params": 28589128, "macs": 4456000000, "top1": 82.52,
        "top5": 96.146, "checkpoint": "convnext_tiny-983f1562.pth"},
}
# fmt: on


def build(size: str, num_classes: int = 1000) -> nn.Module:
    """Build a size of NETWORK."""
    return ConvNeXt(size, num_classes)
