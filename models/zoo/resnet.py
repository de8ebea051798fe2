"""ResNet, and its variants with one changed number: plain nets, Wide ResNet and ResNeXt (papers below).

A block computes F(x) + x, so a deeper net can always represent a shallower one. Bottleneck: 1x1 narrow, 3x3, 1x1
widen (stride in the 3x3, as in torchvision, whose ResNet-50 therefore has 4.1 G multiply-adds and the paper's
3.8 G). ResNeXt splits the 3x3 into groups; Wide ResNet widens it; the plain net omits the addition. State-dict
keys are torchvision's.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import ConvNormAct, StochasticDepth, he_init, relu, stochastic_depth

PAPER = "He et al., Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385"

# depth: block, repeats in each of the four stages (the paper's table 1); stages have 64, 128, 256, 512 filters
NETWORK = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


class Block(nn.Module):
    """Base of both blocks: ReLU of the sum of F(x) (`branch`) and the input (projected if the shapes differ)."""

    expansion = 1

    def __init__(self, inputs: int, outputs: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.relu, self.drop = relu(), StochasticDepth()
        self.skip = skip
        project = skip and (stride != 1 or inputs != outputs)
        self.downsample = ConvNormAct(inputs, outputs, 1, stride, act=None) if project else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        out = self.branch(x)
        if self.skip:
            out = self.drop(out) + (x if self.downsample is None else self.downsample(x))
        return self.relu(out)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """Return F(x)."""
        raise NotImplementedError


class Basic(Block):
    """3x3 - 3x3. (N, inputs, H, W) -> (N, filters, H / stride, W / stride)."""

    def __init__(
        self, inputs: int, filters: int, stride: int, skip: bool, groups: int, base: int, dilation: int = 1
    ) -> None:
        super().__init__(inputs, filters, stride, skip)
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """Return F(x)."""
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    """1x1 - 3x3 in `groups` groups - 1x1. (N, inputs, H, W) -> (N, 4 * filters, H / stride, W / stride).

    `base` is the width of one group for `filters` 64: 64 for ResNet, 128 for Wide ResNet-50-2, 4 for 32x4d.
    """

    expansion = 4

    def __init__(
        self, inputs: int, filters: int, stride: int, skip: bool, groups: int, base: int, dilation: int = 1
    ) -> None:
        super().__init__(inputs, filters * self.expansion, stride, skip)
        width = filters * base // 64 * groups
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, filters * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(filters * self.expansion)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """Return F(x)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


BLOCKS: dict[str, type[Basic] | type[Bottleneck]] = {"basic": Basic, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32.

    `dilated` of the last stages have dilation in place of stride, the first block with the dilation before it: H and W
    are divided by 32 / 2 ** dilated.
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(
        self, depth: int, groups: int, base: int, skip: bool, drop: float, num_classes: int, dilated: int = 0
    ) -> None:
        super().__init__()
        kind, repeats = NETWORK[depth]
        block = BLOCKS[kind]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = relu()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, count in enumerate(repeats):
            filters, blocks = 64 << stage, nn.Sequential()
            for index in range(count):
                stride = 2 if 0 < stage < 4 - dilated and index == 0 else 1
                dilation = 1 << max(0, stage + dilated - 3 - (index == 0))
                blocks.append(block(inputs, filters, stride, skip, groups, base, dilation))
                inputs = filters * block.expansion
            self.add_module(f"layer{stage + 1}", blocks)
        self.fc = nn.Linear(inputs, num_classes)
        stochastic_depth(self, drop)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(self.maps(x)[-1], 1), 1))

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of the four stages."""
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(x))))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps[1:]


class Trunk(ResNet):
    """The stages of a ResNet, for networks of other tasks; `widths` are the filters of their four outputs."""

    def __init__(self, depth: int, dilated: int = 0) -> None:
        super().__init__(depth, 1, 64, True, 0.0, 1, dilated)
        expansion = BLOCKS[NETWORK[depth][0]].expansion
        self.widths = [filters * expansion for filters in (64, 128, 256, 512)]
        del self.fc

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # type: ignore[override]
        """Return the outputs of the four stages."""
        return self.maps(x)


# fmt: off
VARIANTS = {
    "resnet18": {"args": {"depth": 18}, "recipe": "onecycle-short",
        "params": 11689512, "macs": 1814000000, "top1": 69.758, "top5": 89.078,
        "checkpoint": "resnet18-f37072fd.pth"},
    "resnet34": {"args": {"depth": 34}, "recipe": "onecycle-short",
        "params": 21797672, "macs": 3664000000, "top1": 73.314, "top5": 91.42,
        "checkpoint": "resnet34-b627a593.pth"},
    "resnet50": {"args": {"depth": 50}, "recipe": "onecycle-short",
        "params": 25557032, "macs": 4089000000, "top1": 76.13, "top5": 92.862,
        "checkpoint": "resnet50-0676ba61.pth"},
    "resnet101": {"args": {"depth": 101}, "params": 44549160, "macs": 7801000000, "top1": 77.374, "top5": 93.546,
        "checkpoint": "resnet101-63fe2227.pth"},
    "resnet152": {"args": {"depth": 152}, "params": 60192808, "macs": 11514000000, "top1": 78.312, "top5": 94.046,
        "checkpoint": "resnet152-394f9c45.pth"},
    "plain18": {"args": {"depth": 18, "skip": False}, "params": 11515688,
        "source": "ResNet-18 less its projections"},
    "plain34": {"args": {"depth": 34, "skip": False}, "params": 21623848, "macs": 3640000000,
        "source": "He et al. 2015, figure 3: 3.6 G; ResNet-34 less its projections"},
    "wide_resnet50_2": {"args": {"depth": 50, "base": 128}, "aliases": ["wrn50_2"], "params": 68883240,
        "macs": 11398000000, "top1": 78.468, "top5": 94.086, "checkpoint": "wide_resnet50_2-95faca4d.pth",
        "paper": "Zagoruyko and Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146"},
    "wide_resnet101_2": {"args": {"depth": 101, "base": 128}, "aliases": ["wrn101_2"], "params": 126886696,
        "macs": 22753000000, "top1": 78.848, "top5": 94.284, "checkpoint": "wide_resnet101_2-32ee1156.pth",
        "paper": "Zagoruyko and Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146"},
    "resnext50_2x40d": {"args": {"depth": 50, "groups": 2, "base": 40}, "top1": 77.0,
        "source": "Xie et al. 2016, table 3",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext50_4x24d": {"args": {"depth": 50, "groups": 4, "base": 24}, "top1": 77.4,
        "source": "Xie et al. 2016, table 3",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext50_8x14d": {"args": {"depth": 50, "groups": 8, "base": 14}, "top1": 77.7,
        "source": "Xie et al. 2016, table 3",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext50_32x4d": {"args": {"depth": 50, "groups": 32, "base": 4}, "params": 25028904, "macs": 4230000000,
        "top1": 77.618, "top5": 93.698, "checkpoint": "resnext50_32x4d-7cdf4587.pth",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext101_2x40d": {"args": {"depth": 101, "groups": 2, "base": 40}, "top1": 78.3,
        "source": "Xie et al. 2016, table 3",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext101_4x24d": {"args": {"depth": 101, "groups": 4, "base": 24}, "top1": 78.6,
        "source": "Xie et al. 2016, table 3",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext101_8x14d": {"args": {"depth": 101, "groups": 8, "base": 14}, "top1": 78.7,
        "source": "Xie et al. 2016, table 3",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext101_32x4d": {"args": {"depth": 101, "groups": 32, "base": 4}, "top1": 78.8,
        "source": "Xie et al. 2016, table 3",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext101_32x8d": {"args": {"depth": 101, "groups": 32, "base": 8}, "params": 88791336, "macs": 16414000000,
        "top1": 79.312, "top5": 94.526, "checkpoint": "resnext101_32x8d-8ba56ff5.pth",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
    "resnext101_64x4d": {"args": {"depth": 101, "groups": 64, "base": 4}, "params": 83455272, "macs": 15460000000,
        "top1": 83.246, "top5": 96.454, "resize": 232, "checkpoint": "resnext101_64x4d-173b62eb.pth",
        "paper": "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"},
}
# fmt: on


def build(
    depth: int, groups: int = 1, base: int = 64, skip: bool = True, drop: float = 0.0, num_classes: int = 1000
) -> nn.Module:
    """Build a ResNet; `groups` and `base` make ResNeXt and Wide ResNet, `skip=False` the plain net.

    `drop` is the probability that stochastic depth drops the last block in training.
    """
    return ResNet(depth, groups, base, skip, drop, num_classes)
