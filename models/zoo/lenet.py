"""LeNet-5: the first CNN of the usual form, alternating convolution and pooling, then fully-connected layers.

This is the common version: tanh, average pooling, ten logits. The paper's C3 connects each map only to some input maps,
its pooling has a gain and a bias per map, and its output is a radial basis function; it has 60 840 parameters instead
of 61 706.
"""

from __future__ import annotations

import torch
from torch import nn

PAPER = "LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998"


class LeNet5(nn.Module):
    """(N, 1, 32, 32) -> (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, num_classes)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = 2.4 / layer.weight[0].numel()  # the paper's: 2.4 over the fan-in
                nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(torch.flatten(self.features(x), 1))


# fmt: off
VARIANTS = {
    "lenet5": {"input": [1, 32, 32], "resize": 0, "digits": 32, "fixed": True, "classes": 10, "mean": [0.5],
        "std": [0.5],
        "aliases": ["lenet"], "params": 61706, "macs": 416520,
        "source": "LeCun et al. 1998, with C3 connected in full"},
}
# fmt: on


def build(num_classes: int = 10) -> nn.Module:
    """Build LeNet-5."""
    return LeNet5(num_classes)
