"""Network in network: each convolution is followed by two 1x1 convolutions, and the last maps are the classes.

A 1x1 convolution is a fully-connected layer at each position, so a block is a small network that slides over the image;
the classifier is global average pooling, which has no parameters.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import relu

PAPER = "Lin et al., Network In Network, 2013, arXiv:1312.4400"

# filters of the convolution and of the 1x1 ones after it, kernel, stride, pad; max pooling 3x3 / 2 between the blocks
NETWORK = (((96, 96, 96), 11, 4, 0), ((256, 256, 256), 5, 1, 2), ((384, 384, 384), 3, 1, 1), ((1024, 1024), 3, 1, 1))


def block(
    inputs: int, filters: tuple[int, ...], kernel: int, stride: int, pad: int, batch_norm: bool
) -> list[nn.Module]:
    """Convolution and 1x1 convolutions, each with ReLU."""
    layers: list[nn.Module] = []
    for index, outputs in enumerate(filters):
        shape = (kernel, stride, pad) if index == 0 else (1, 1, 0)
        layers.append(nn.Conv2d(inputs, outputs, *shape, bias=not batch_norm))
        layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers.append(relu())
        inputs = outputs
    return layers


class NIN(nn.Module):
    """(N, 3, H, W) -> (N, num_classes)."""

    def __init__(self, batch_norm: bool, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for filters, kernel, stride, pad in NETWORK:
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if layers else []
            layers += block(inputs, filters, kernel, stride, pad, batch_norm)
            inputs = filters[-1]
        self.features = nn.Sequential(*layers, nn.Dropout(0.5), nn.Conv2d(inputs, num_classes, 1), relu())
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.features(x).mean((2, 3))


# fmt: off
VARIANTS = {
    "nin": {"digits": 96, "source": "Lin et al. 2013, its ImageNet net"},
    "nin_bn": {"args": {"batch_norm": True}, "aliases": ["bn_nin"], "digits": 96,
        "source": "Lin et al. 2013, with batch norm"},
}
# fmt: on


def build(batch_norm: bool = False, num_classes: int = 1000) -> nn.Module:
    """Build NIN, with batch norm on request."""
    return NIN(batch_norm, num_classes)
