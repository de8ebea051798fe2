"""DenseNet: each layer reads the concatenated outputs of all earlier layers in its block (paper below).

A layer adds only `growth` channels; between blocks a 1x1 convolution halves the channels and pooling halves the image.
State-dict keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import he_init, relu

PAPER = "Huang et al., Densely Connected Convolutional Networks, 2016, arXiv:1608.06993"

# depth: layers per block, growth, channels of the stem (the paper's table 1)
NETWORK = {
    121: ((6, 12, 24, 16), 32, 64),
    161: ((6, 12, 36, 24), 48, 96),
    169: ((6, 12, 32, 32), 32, 64),
    201: ((6, 12, 48, 32), 32, 64),
    264: ((6, 12, 64, 48), 32, 64),
}


class DenseLayer(nn.Sequential):
    """BN - ReLU - 1x1 - BN - ReLU - 3x3. (N, inputs, H, W) -> (N, growth, H, W)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = relu()
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = relu()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)


class DenseBlock(nn.Module):
    """(N, inputs, H, W) -> (N, inputs + layers * growth, H, W)."""

    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__()
        for index in range(layers):
            self.add_module(f"denselayer{index + 1}", DenseLayer(inputs + index * growth, growth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input and all layers' outputs, concatenated."""
        maps = [x]
        for layer in self.children():
            maps.append(layer(torch.cat(maps, dim=1)))
        return torch.cat(maps, dim=1)


class Transition(nn.Sequential):
    """BN - ReLU - 1x1 - average pooling. (N, inputs, H, W) -> (N, inputs / 2, H / 2, W / 2)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = relu()
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)


class DenseNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        blocks, growth, channels = NETWORK[depth]
        self.features = nn.Sequential()
        self.features.conv0 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.features.norm0 = nn.BatchNorm2d(channels)
        self.features.relu0 = relu()
        self.features.pool0 = nn.MaxPool2d(3, 2, 1)
        for index, layers in enumerate(blocks, start=1):
            self.features.add_module(f"denseblock{index}", DenseBlock(channels, layers, growth))
            channels += layers * growth
            if index < len(blocks):
                self.features.add_module(f"transition{index}", Transition(channels))
                channels //= 2
        self.features.norm5 = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        he_init(self)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


# fmt: off
VARIANTS = {
    "densenet121": {"args": {"depth": 121}, "params": 7978856, "macs": 2834000000, "top1": 74.434, "top5": 91.972,
        "checkpoint": "densenet121-a639ec97.pth"},
    "densenet161": {"args": {"depth": 161}, "params": 28681000, "macs": 7728000000, "top1": 77.138, "top5": 93.56,
        "checkpoint": "densenet161-8d451a50.pth"},
    "densenet169": {"args": {"depth": 169}, "params": 14149480, "macs": 3360000000, "top1": 75.6, "top5": 92.806,
        "checkpoint": "densenet169-b2777c0a.pth"},
    "densenet201": {"args": {"depth": 201}, "params": 20013928, "macs": 4291000000, "top1": 76.896, "top5": 93.37,
        "checkpoint": "densenet201-c1103571.pth"},
    "densenet264": {"args": {"depth": 264}, "top1": 77.85, "top5": 93.88,
        "source": "Huang et al. 2016, table 3, one crop (about 33 M parameters)"},
}
# fmt: on


def build(depth: int, num_classes: int = 1000) -> nn.Module:
    """Build a depth of NETWORK."""
    return DenseNet(depth, num_classes)
