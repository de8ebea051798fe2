"""ResNets for 32x32 images: 6n + 2 layers, with and without the skip, and the wide ones (papers below).

Three stages of 16, 32, 64 filters. The narrow nets' shortcuts have no parameters (option A: every other pixel, new
channels zero); the wide nets are pre-activated and project.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import StochasticDepth, he_init, relu, stochastic_depth

PAPER = "He et al., Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385, section 4.2"

FILTERS = (16, 32, 64)


class Basic(nn.Module):
    """3x3 - 3x3, plus the input: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu, self.drop = relu(), StochasticDepth()
        self.skip, self.stride, self.new = skip, stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.skip:
            if self.new:
                x = x[:, :, :: self.stride, :: self.stride]
                x = nn.functional.pad(x, (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
            out = self.drop(out) + x
        return self.relu(out)


class WideBasic(nn.Module):
    """BN - ReLU - 3x3 - BN - ReLU - dropout - 3x3, plus the input: shapes as in `Basic`."""

    def __init__(self, inputs: int, outputs: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.dropout, self.drop = nn.Dropout(0.3), StochasticDepth()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        active = torch.relu(self.bn1(x))
        out = self.conv2(self.dropout(torch.relu(self.bn2(self.conv1(active)))))
        return self.drop(out) + (x if self.shortcut is None else self.shortcut(active))


class CifarResNet(nn.Module):
    """(N, 3, 32, 32) -> (N, num_classes); `wide` 0 for the narrow nets."""

    def __init__(self, blocks: int, wide: int, skip: bool, drop: float, num_classes: int) -> None:
        super().__init__()
        block = WideBasic if wide else Basic
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.Identity() if wide else nn.BatchNorm2d(16)
        channels = 16
        for stage, base in enumerate(FILTERS, start=1):
            layer, filters = nn.Sequential(), base * max(1, wide)
            for index in range(blocks):
                layer.append(block(channels, filters, 2 if stage > 1 and index == 0 else 1, skip))
                channels = filters
            self.add_module(f"layer{stage}", layer)
        self.last = nn.BatchNorm2d(channels) if wide else nn.Identity()
        self.fc = nn.Linear(channels, num_classes)
        self.wide = wide
        stochastic_depth(self, drop)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.conv1(x)
        if not self.wide:
            x = torch.relu(self.bn1(x))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        if self.wide:
            x = torch.relu(self.last(x))
        return self.fc(x.mean((2, 3)))


# top-1 is on CIFAR-10's test images
# fmt: off
VARIANTS = {
    "resnet20_cifar": {"args": {"blocks": 3}, "input": [3, 32, 32], "resize": 0, "digits": 32, "classes": 10,
        "params": 269722, "macs": 40800000, "top1": 91.25, "dataset": "cifar10",
        "source": "He et al. 2015, table 6 (0.27 M)"},
    "resnet32_cifar": {"args": {"blocks": 5}, "input": [3, 32, 32], "resize": 0, "digits": 32, "classes": 10,
        "params": 464154, "top1": 92.49, "dataset": "cifar10", "source": "He et al. 2015, table 6 (0.46 M)"},
    "resnet44_cifar": {"args": {"blocks": 7}, "input": [3, 32, 32], "resize": 0, "digits": 32, "classes": 10,
        "params": 658586, "top1": 92.83, "dataset": "cifar10", "source": "He et al. 2015, table 6 (0.66 M)"},
    "resnet56_cifar": {"args": {"blocks": 9}, "input": [3, 32, 32], "resize": 0, "digits": 32, "classes": 10,
        "params": 853018, "top1": 93.03, "dataset": "cifar10", "source": "He et al. 2015, table 6 (0.85 M)"},
    "resnet110_cifar": {"args": {"blocks": 18}, "input": [3, 32, 32], "resize": 0, "digits": 32, "classes": 10,
        "params": 1727962, "top1": 93.57, "dataset": "cifar10", "source": "He et al. 2015, table 6 (1.7 M)"},
    "resnet1202_cifar": {"args": {"blocks": 200}, "input": [3, 32, 32], "resize": 0, "digits": 32, "classes": 10,
        "params": 19421274, "top1": 92.07, "dataset": "cifar10", "source": "He et al. 2015, table 6 (19.4 M)"},
    "plain20_cifar": {"args": {"blocks": 3, "skip": False}, "input": [3, 32, 32], "resize": 0, "digits": 32,
        "classes": 10, "params": 269722, "source": "He et al. 2015: the same net without the skip"},
    "wrn28_10": {"args": {"blocks": 4, "wide": 10}, "aliases": ["wide_resnet28_10"], "input": [3, 32, 32], "resize": 0,
        "digits": 32, "classes": 10, "params": 36479194, "top1": 96.0, "dataset": "cifar10",
        "source": "Zagoruyko and Komodakis 2016, tables 4 and 5 (36.5 M)",
        "paper": "Zagoruyko and Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146"},
    "wrn16_8": {"args": {"blocks": 2, "wide": 8}, "aliases": ["wide_resnet16_8"], "input": [3, 32, 32], "resize": 0,
        "digits": 32, "classes": 10, "params": 10961370, "top1": 95.73, "dataset": "cifar10",
        "source": "Zagoruyko and Komodakis 2016, table 5 (11.0 M)",
        "paper": "Zagoruyko and Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146"},
}
# fmt: on


def build(blocks: int, wide: int = 0, skip: bool = True, drop: float = 0.0, num_classes: int = 10) -> nn.Module:
    """Build a net of `blocks` blocks per stage; `wide` multiplies the filters, `skip=False` omits the addition.

    `drop` is the probability that stochastic depth drops the last block in training.
    """
    return CifarResNet(blocks, wide, skip, drop, num_classes)
