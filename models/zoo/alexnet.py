"""AlexNet and its variants: the original, the lectures' and torchvision's versions, ZFNet, and batch norm.

Five convolutions, three of them followed by max pooling, then three fully-connected layers with nearly all of the
parameters. The original ran on two GPUs, so its second, fourth and fifth convolutions are in two groups, and it
normalised across neighbouring channels (LRN). The key names of `alexnet` are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import relu

PAPER = "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012"

# filters, kernel, stride, pad, groups; "N": local response normalisation; "M": max pooling 3x3 / 2
NETWORK = {
    "original": ((96, 11, 4, 0, 1), "N", "M", (256, 5, 1, 2, 2), "N", "M",
                 (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2), "M"),
    "one_tower": ((64, 11, 4, 2, 1), "M", (192, 5, 1, 2, 1), "M",
                  (384, 3, 1, 1, 1), (256, 3, 1, 1, 1), (256, 3, 1, 1, 1), "M"),
    "zf": ((96, 7, 2, 1, 1), "P", "N", (256, 5, 2, 0, 1), "P", "N",
           (512, 3, 1, 1, 1), (1024, 3, 1, 1, 1), (512, 3, 1, 1, 1), "M"),
}  # fmt: skip


def convolutions(table: str, batch_norm: bool) -> nn.Sequential:
    """Build the convolutional part from a row of NETWORK ("P": max pooling 3x3 / 2, padded, as ZFNet has it)."""
    layers: list[nn.Module] = []
    inputs = 3
    for item in NETWORK[table]:
        if item == "N":
            layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0))
        elif item == "M":
            layers.append(nn.MaxPool2d(3, 2))
        elif item == "P":
            layers.append(nn.MaxPool2d(3, 2, padding=1))
        else:
            filters, kernel, stride, pad, groups = (int(value) for value in item)
            layers.append(nn.Conv2d(inputs, filters, kernel, stride, pad, groups=groups, bias=not batch_norm))
            layers += [nn.BatchNorm2d(filters)] if batch_norm else []
            layers.append(relu())
            inputs = filters
    return nn.Sequential(*layers)


class AlexNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); the last convolutions are pooled to 6x6 for every H and W."""

    def __init__(self, table: str, batch_norm: bool, num_classes: int) -> None:
        super().__init__()
        self.features = convolutions(table, batch_norm)
        filters = [layer.out_channels for layer in self.features if isinstance(layer, nn.Conv2d)][-1]
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(filters * 36, 4096),
            relu(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            relu(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def paper_init(module: nn.Module) -> None:
    """Initialise weights from N(0, 0.01) and biases with 0, or 1 for positive ReLU inputs (section 5 of the paper)."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for index, layer in enumerate(layers):
        nn.init.normal_(layer.weight, 0.0, 0.01)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 1.0 if index in (1, 3, 4, 5, 6) else 0.0)


# fmt: off
VARIANTS = {
    "alexnet": {"args": {"table": "one_tower"}, "digits": 128, "params": 61100840, "macs": 714000000, "top1": 56.522,
        "top5": 79.066,
        "checkpoint": "alexnet-owt-7be5be79.pth",
        "paper": "Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, arXiv:1404.5997"},
    "alexnet_original": {"args": {"table": "original", "paper": True}, "input": [3, 227, 227], "digits": 128,
        "resize": 256,
        "params": 60965224, "macs": 724000000, "top5": 81.8, "source": "Krizhevsky et al. 2012, one net"},
    "alexnet_modified": {"args": {"table": "one_tower"}, "input": [3, 227, 227], "digits": 128, "resize": 256,
        "params": 61100840,
        "macs": 714000000, "source": "the lectures' table, 227x227"},
    "alexnet_bn": {"args": {"table": "one_tower", "batch_norm": True}, "digits": 128, "aliases": ["bn_alexnet"],
        "params": 61101992,
        "macs": 714000000, "source": "alexnet, with the gains and shifts of 1152 channels in place of biases"},
    "zfnet": {"args": {"table": "zf"}, "digits": 128, "top5": 88.3,
        "source": "Zeiler and Fergus 2013 (winning entry 11.7 %)",
        "paper": "Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013, arXiv:1311.2901"},
}
# fmt: on


def build(table: str, batch_norm: bool = False, paper: bool = False, num_classes: int = 1000) -> nn.Module:
    """Build a row of NETWORK; `paper` uses the initialisation of the paper."""
    module = AlexNet(table, batch_norm, num_classes)
    if paper:
        paper_init(module)
    return module
