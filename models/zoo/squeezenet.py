"""SqueezeNet: AlexNet's accuracy with 1/50 of its parameters (paper below).

A fire module squeezes with 1x1 convolutions and then expands with parallel 1x1 and 3x3 ones; version 1.1 pools earlier.
State-dict keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import relu

PAPER = "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016, arXiv:1602.07360"

# (squeeze, expand 1x1 and 3x3 each); "M": max pooling 3x3 / 2
NETWORK: dict[str, tuple[tuple[int, int] | str, ...]] = {
    "1_0": ("M", (16, 64), (16, 64), (32, 128), "M",
            (32, 128), (48, 192), (48, 192), (64, 256), "M", (64, 256)),
    "1_1": ("M", (16, 64), (16, 64), "M", (32, 128), (32, 128), "M",
            (48, 192), (48, 192), (64, 256), (64, 256)),
}  # fmt: skip

STEM = {"1_0": (96, 7), "1_1": (64, 3)}  # filters, kernel


class Fire(nn.Module):
    """(N, inputs, H, W) -> (N, 2 * expand, H, W)."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.squeeze_activation = relu()
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = relu()
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the module's output."""
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat(
            (self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))), dim=1
        )


class SqueezeNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes)."""

    def __init__(self, version: str, num_classes: int) -> None:
        super().__init__()
        inputs, kernel = STEM[version]
        layers: list[nn.Module] = [nn.Conv2d(3, inputs, kernel, 2), relu()]
        for item in NETWORK[version]:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                squeeze, expand = item
                layers.append(Fire(inputs, squeeze, expand))
                inputs = 2 * expand
        self.features = nn.Sequential(*layers)
        last = nn.Conv2d(inputs, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(0.5), last, relu(), nn.AdaptiveAvgPool2d(1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(last.weight, 0.0, 0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return torch.flatten(self.classifier(self.features(x)), 1)


# fmt: off
VARIANTS = {
    "squeezenet1_0": {"args": {"version": "1_0"}, "params": 1248424, "macs": 819000000, "top1": 58.092, "top5": 80.42,
        "checkpoint": "squeezenet1_0-b66bff10.pth"},
    "squeezenet1_1": {"args": {"version": "1_1"}, "aliases": ["squeezenet"], "params": 1235496, "macs": 349000000,
        "top1": 58.178, "top5": 80.624, "checkpoint": "squeezenet1_1-b8a52dc0.pth"},
}
# fmt: on


def build(version: str, num_classes: int = 1000) -> nn.Module:
    """Build SqueezeNet "1_0" or "1_1"."""
    return SqueezeNet(version, num_classes)
