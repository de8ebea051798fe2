"""Small networks for other tasks and dimensions: an autoencoder, a localisation head, TDNN, 3-D convolution.

Only the head depends on the task: the features stay the same, and the output is four numbers, or an image. Convolution
also works in other dimensions: over time it is a time-delay network, over time and space a video network.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from ._layers import ConvNormAct, he_init
from .mobilenet_v2 import MobileNetV2

PAPER = "Goodfellow et al., Deep Learning, 2016, chapters 9 and 14"


class Autoencoder(nn.Module):
    """(N, 3, H, W) -> `code` numbers at each 16th pixel -> (N, 3, H, W)."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        sizes = [3, width, width * 2, width * 4]
        down = [ConvNormAct(a, b, 3, 2) for a, b in itertools.pairwise(sizes)]
        self.encode = nn.Sequential(*down, nn.Conv2d(sizes[-1], code, 3, 2, 1))
        up: list[nn.Module] = []
        for inputs, outputs in zip([code, *reversed(sizes[2:])], reversed(sizes[1:]), strict=True):
            up += [nn.ConvTranspose2d(inputs, outputs, 2, 2), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.decode = nn.Sequential(*up, nn.ConvTranspose2d(width, 3, 2, 2))
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstructed image."""
        return self.decode(self.encode(x))


class Localiser(nn.Module):
    """MobileNet v2's features with a head of four numbers: centre x, y, width, height as fractions of the image.

    (N, 3, H, W) -> (N, 4), each in [0, 1]
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MobileNetV2(1.0, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the box."""
        return torch.sigmoid(self.backbone(x))


class TDNN(nn.Module):
    """Dilated 1-D convolutions over time, then the mean over time: (N, 40, T) -> (N, num_classes), T at least 15."""

    rows = ((5, 1), (3, 2), (3, 3), (1, 1))  # kernel, dilation: 15 frames seen

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 40
        for kernel, dilation in self.rows:
            layers += [
                nn.Conv1d(inputs, width, kernel, dilation=dilation, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            ]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(width, num_classes)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.fc(self.features(x).mean(2))


class Conv3D(nn.Module):
    """3x3x3 convolutions over time and space: (N, 3, T, H, W) -> (N, num_classes)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for level in range(4):
            outputs = width << level
            layers += [nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU()]
            layers.append(nn.MaxPool3d((1 if level == 0 else 2, 2, 2)))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, num_classes)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.fc(self.features(x).mean((2, 3, 4)))


# fmt: off
VARIANTS = {
    "autoencoder": {"args": {"kind": "autoencoder"}, "input": [3, 64, 64], "task": "reconstruct",
        "paper": "Hinton and Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, Science 2006"},
    "localiser": {"args": {"kind": "localiser"}, "classes": 4, "task": "localise", "params": 2228996,
        "source": "MobileNet v2 with four outputs"},
    "tdnn": {"args": {"kind": "tdnn"}, "input": [40, 200], "classes": 10,
        "paper": "Waibel et al., Phoneme Recognition Using Time-Delay Neural Networks, IEEE ASSP 1989"},
    "conv3d": {"args": {"kind": "conv3d"}, "input": [3, 8, 56, 56], "classes": 10,
        "paper": "Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, 2014, arXiv:1412.0767"},
}
# fmt: on


def build(kind: str, width: int = 32, num_classes: int = 10) -> nn.Module:
    """Build one of "autoencoder", "localiser", "tdnn" and "conv3d"."""
    if kind == "autoencoder":
        return Autoencoder(width, 16)
    if kind == "localiser":
        return Localiser()
    return TDNN(4 * width, num_classes) if kind == "tdnn" else Conv3D(width // 2, num_classes)
