"""Semantic segmentation (one class per pixel): FCN, U-Net, DeconvNet and the dilated context network (papers below).

Transposed convolution upsamples a classifier's coarse maps to the image's size; skip connections from finer maps
restore details that pooling lost; dilation enlarges the receptive field without pooling. Inputs' sides must be
multiples of 32 (16 for U-Net, 8 for the context network). Output (N, classes, H, W).
"""

from __future__ import annotations

import torch
from torch import nn

from . import vgg
from ._layers import ConvNormAct, he_init

PAPER = "Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015, arXiv:1411.4038"


def bilinear_(layer: nn.ConvTranspose2d) -> None:
    """Initialise a transposed convolution as bilinear upsampling of each channel."""
    side = layer.kernel_size[0]
    steps = 1 - (torch.arange(side) - (side - 1) / 2).abs() / layer.stride[0]
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(layer.in_channels):
            layer.weight[channel, channel if layer.groups == 1 else 0] = torch.outer(steps, steps).clamp(min=0)


def enlarge(classes: int, factor: int) -> nn.ConvTranspose2d:
    """Upsample (N, classes, H, W) by `factor`; initialised as bilinear interpolation."""
    layer = nn.ConvTranspose2d(classes, classes, 2 * factor, factor, factor // 2, bias=False)
    bilinear_(layer)
    return layer


class FCN(nn.Module):
    """VGG-16 with its fully-connected layers as convolutions; `stride` 32, 16 or 8 is the finest map used."""

    def __init__(self, stride: int, num_classes: int) -> None:
        super().__init__()
        self.features = vgg.convolutions("D", batch_norm=False, response_norm=False)
        self.classifier = nn.Sequential(
            nn.Conv2d(512, 4096, 7, padding=3), nn.ReLU(), nn.Dropout2d(0.5),
            nn.Conv2d(4096, 4096, 1), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(4096, num_classes, 1),
        )  # fmt: skip
        he_init(self)
        self.score4 = nn.Conv2d(512, num_classes, 1) if stride <= 16 else None
        self.score3 = nn.Conv2d(256, num_classes, 1) if stride == 8 else None
        steps = {32: (32,), 16: (2, 16), 8: (2, 2, 8)}[stride]
        self.up = nn.ModuleList([enlarge(num_classes, factor) for factor in steps])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits for each pixel."""
        pools = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        x = self.up[0](self.classifier(x))
        if self.score4 is not None:
            x = self.up[1](x + self.score4(pools[3]))
        if self.score3 is not None:
            x = self.up[2](x + self.score3(pools[2]))
        return x


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(ConvNormAct(inputs, outputs), ConvNormAct(outputs, outputs))


class UNet(nn.Module):
    """Four levels down, four up, with skip connections between equal levels; the output has the input's size."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        pairs = list(zip([3, *widths], widths, strict=False))
        self.down = nn.ModuleList([double(inputs, outputs) for inputs, outputs in pairs])
        self.pool = nn.MaxPool2d(2)
        self.grow = nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths[:-1])])
        self.up = nn.ModuleList([double(2 * w, w) for w in reversed(widths[:-1])])
        self.last = nn.Conv2d(width, num_classes, 1)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits for each pixel."""
        maps: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            maps.append(x)
        for grow, block, twin in zip(self.grow, self.up, reversed(maps[:-1]), strict=True):
            x = block(torch.cat([twin, grow(x)], dim=1))
        return self.last(x)


class DeconvNet(nn.Module):
    """VGG-16 and its mirror image: unpooling by a transposed convolution, then the same number of convolutions.

    The paper unpools to the positions of the maxima; few device runtimes have that operation, so a 2x2 transposed
    convolution replaces it (docs/zoo.md).
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        rows = list(zip(vgg.FILTERS, vgg.NETWORK["D"], strict=True))
        encode: list[nn.Module] = []
        inputs = 3
        for filters, repeats in rows:
            encode += [ConvNormAct(inputs if index == 0 else filters, filters) for index in range(repeats)]
            encode.append(nn.MaxPool2d(2))
            inputs = filters
        decode: list[nn.Module] = []
        for level, (filters, repeats) in reversed(list(enumerate(rows))):
            decode.append(nn.ConvTranspose2d(filters, filters, 2, 2))
            last = rows[level - 1][0] if level else filters
            decode += [ConvNormAct(filters, filters if i < repeats - 1 else last) for i in range(repeats)]
        self.encode, self.decode = nn.Sequential(*encode), nn.Sequential(*decode)
        self.last = nn.Conv2d(64, num_classes, 1)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits for each pixel."""
        return self.last(self.decode(self.encode(x)))


class Context(nn.Module):
    """A small front end at 1/8 of the size, then 3x3 convolutions of dilation 1, 1, 2, 4, 8, 16, 1."""

    dilations = (1, 1, 2, 4, 8, 16, 1)

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        front = [ConvNormAct(3 if i == 0 else width << (i - 1), width << i, 3, 2) for i in range(3)]
        channels = width << 2
        self.front = nn.Sequential(*front)
        self.context = nn.Sequential(*(ConvNormAct(channels, channels, 3, dilation=d) for d in self.dilations))
        self.last = nn.Conv2d(channels, num_classes, 1)
        he_init(self)
        self.up = enlarge(num_classes, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits for each pixel."""
        return self.up(self.last(self.context(self.front(x))))


# fmt: off
VARIANTS = {
    "fcn32s": {"args": {"kind": "fcn", "stride": 32}, "task": "segment", "classes": 21,
        "source": "Long et al. 2015, with padding in place of cropping"},
    "fcn16s": {"args": {"kind": "fcn", "stride": 16}, "task": "segment", "classes": 21,
        "source": "Long et al. 2015, with padding in place of cropping"},
    "fcn8s": {"args": {"kind": "fcn", "stride": 8}, "task": "segment", "classes": 21,
        "source": "Long et al. 2015, with padding in place of cropping"},
    "unet": {"args": {"kind": "unet", "width": 64}, "task": "segment", "classes": 21,
        "source": "Ronneberger et al. 2015",
        "paper": "Ronneberger et al., U-Net, 2015, arXiv:1505.04597"},
    "unet_small": {"args": {"kind": "unet", "width": 16}, "task": "segment", "classes": 21,
        "source": "a quarter as wide",
        "paper": "Ronneberger et al., U-Net, 2015, arXiv:1505.04597"},
    "deconvnet": {"args": {"kind": "deconvnet"}, "task": "segment", "classes": 21, "source": "Noh et al. 2015",
        "paper": "Noh et al., Learning Deconvolution Network for Semantic Segmentation, 2015, arXiv:1505.04366"},
    "dilated_context": {"args": {"kind": "context", "width": 32}, "task": "segment", "classes": 21,
        "source": "Yu and Koltun 2015, the context module on a small front end",
        "paper": "Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, 2015, arXiv:1511.07122"},
}
# fmt: on


def build(kind: str, stride: int = 32, width: int = 64, num_classes: int = 21) -> nn.Module:
    """Build one of "fcn", "unet", "deconvnet" and "context"."""
    if kind == "fcn":
        return FCN(stride, num_classes)
    if kind == "unet":
        return UNet(width, num_classes)
    return DeconvNet(num_classes) if kind == "deconvnet" else Context(width, num_classes)
