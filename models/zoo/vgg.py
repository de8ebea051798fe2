"""VGG: stacks of 3x3 convolutions: two have the receptive field of a 5x5, three of a 7x7, with fewer parameters.

The columns A to E of the paper's table 1; C has three 1x1 convolutions, A-LRN one response normalisation.
State-dict keys are torchvision's for the networks that it has.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import he_init, relu

PAPER = (
    "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, arXiv:1409.1556"
)

# repeats in the five stages of 64, 128, 256, 512, 512 filters; max pooling 2x2 / 2 after each (the paper's table 1)
NETWORK = {"A": (1, 1, 2, 2, 2), "B": (2, 2, 2, 2, 2), "C": (2, 2, 3, 3, 3), "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}
FILTERS = (64, 128, 256, 512, 512)


def convolutions(column: str, batch_norm: bool, response_norm: bool) -> nn.Sequential:
    """Build a column of NETWORK."""
    layers: list[nn.Module] = []
    inputs = 3
    for filters, repeats in zip(FILTERS, NETWORK[column], strict=True):
        for index in range(repeats):
            kernel = 1 if column == "C" and index == 2 else 3
            layers.append(nn.Conv2d(inputs, filters, kernel, padding=kernel // 2))
            layers += [nn.BatchNorm2d(filters)] if batch_norm else []
            layers.append(relu())
            inputs = filters
            if response_norm and len(layers) == 2:
                layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0))
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); the last convolutions are pooled to 7x7 for every H and W."""

    def __init__(self, column: str, batch_norm: bool, response_norm: bool, num_classes: int) -> None:
        super().__init__()
        self.features = convolutions(column, batch_norm, response_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 49, 4096),
            relu(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            relu(),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


# fmt: off
VARIANTS = {
    "vgg11": {"args": {"column": "A"}, "params": 132863336, "macs": 7609000000, "top1": 69.02, "top5": 88.628,
        "checkpoint": "vgg11-8a719046.pth"},
    "vgg11_bn": {"args": {"column": "A", "batch_norm": True}, "params": 132868840, "macs": 7609000000, "top1": 70.37,
        "top5": 89.81, "checkpoint": "vgg11_bn-6002323d.pth"},
    "vgg11_lrn": {"args": {"column": "A", "response_norm": True}, "params": 132863336, "macs": 7609000000, "top1": 70.3,
        "top5": 89.5, "source": "Simonyan and Zisserman 2014, table 3, A-LRN"},
    "vgg13": {"args": {"column": "B"}, "params": 133047848, "macs": 11308000000, "top1": 69.928, "top5": 89.246,
        "checkpoint": "vgg13-19584684.pth"},
    "vgg13_bn": {"args": {"column": "B", "batch_norm": True}, "params": 133053736, "macs": 11308000000, "top1": 71.586,
        "top5": 90.374, "checkpoint": "vgg13_bn-abd245e5.pth"},
    "vgg16_c": {"args": {"column": "C"}, "aliases": ["vggc"], "params": 133638952, "top1": 71.9, "top5": 90.6,
        "source": "Simonyan and Zisserman 2014, tables 2 (134 M) and 3, C"},
    "vgg16_c_bn": {"args": {"column": "C", "batch_norm": True}, "params": 133647400,
        "source": "VGG-16-C with torchvision's placing of batch norm"},
    "vgg16": {"args": {"column": "D"}, "params": 138357544, "macs": 15470000000, "top1": 71.592, "top5": 90.382,
        "checkpoint": "vgg16-397923af.pth"},
    "vgg16_bn": {"args": {"column": "D", "batch_norm": True}, "params": 138365992, "macs": 15470000000, "top1": 73.36,
        "top5": 91.516, "checkpoint": "vgg16_bn-6c64b313.pth"},
    "vgg19": {"args": {"column": "E"}, "params": 143667240, "macs": 19632000000, "top1": 72.376, "top5": 90.876,
        "checkpoint": "vgg19-dcbb9e9d.pth"},
    "vgg19_bn": {"args": {"column": "E", "batch_norm": True}, "params": 143678248, "macs": 19632000000, "top1": 74.218,
        "top5": 91.842, "checkpoint": "vgg19_bn-c79401a0.pth"},
}
# fmt: on


def build(column: str, batch_norm: bool = False, response_norm: bool = False, num_classes: int = 1000) -> nn.Module:
    """Build a column of the paper's table."""
    return VGG(column, batch_norm, response_norm, num_classes)
