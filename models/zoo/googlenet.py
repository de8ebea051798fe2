"""GoogLeNet: Inception modules of four parallel branches, with 1x1 bottlenecks to reduce the cost (paper below).

Two auxiliary classifiers add gradients in the middle in training; eval mode does not use them. The 5x5 branch is 3x3,
as in torchvision's checkpoint, and every convolution has batch norm. `NaiveInception` is the module without
bottlenecks, for the comparison in the lectures.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import ConvBN, trunc_normal_init

PAPER = "Szegedy et al., Going Deeper with Convolutions, 2014, arXiv:1409.4842"

# name: input channels; filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection (the paper's table 1)
NETWORK = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """(N, inputs, H, W) -> (N, one + three + five + pool, H, W); `last` is the kernel size of the third branch."""

    def __init__(
        self, inputs: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int, last: int = 3
    ) -> None:
        super().__init__()
        self.branch1 = ConvBN(inputs, one, 1)
        self.branch2 = nn.Sequential(ConvBN(inputs, reduce3, 1), ConvBN(reduce3, three, 3))
        self.branch3 = nn.Sequential(ConvBN(inputs, reduce5, 1), ConvBN(reduce5, five, last))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvBN(inputs, pool, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches side by side."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class NaiveInception(nn.Module):
    """1x1, 3x3, 5x5 and max pooling in parallel, directly on the input: (N, C, H, W) -> (N, sum + C, H, W)."""

    def __init__(self, inputs: int, one: int, three: int, five: int) -> None:
        super().__init__()
        kernels = ((one, 1), (three, 3), (five, 5))
        self.branches = nn.ModuleList([nn.Conv2d(inputs, n, k, padding=k // 2, bias=False) for n, k in kernels])
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches side by side."""
        return torch.cat([*(branch(x) for branch in self.branches), self.pool(x)], dim=1)


class Auxiliary(nn.Module):
    """A classifier on an intermediate layer, for training only. (N, inputs, H, W) -> (N, num_classes)."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvBN(inputs, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.conv(nn.functional.adaptive_avg_pool2d(x, 4))
        return self.fc2(self.dropout(torch.relu(self.fc1(torch.flatten(x, 1)))))


class GoogLeNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes) in eval mode; in training (logits, logits of 4a, logits of 4d)."""

    def __init__(self, aux: bool, num_classes: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, 64, 7, 2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = ConvBN(64, 64, 1)
        self.conv3 = ConvBN(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        for name, row in NETWORK.items():
            self.add_module(f"inception{name}", Inception(*row))
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        if aux:
            self.aux1, self.aux2 = Auxiliary(512, num_classes), Auxiliary(528, num_classes)
        self.aux = aux
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, num_classes)
        trunc_normal_init(self, 0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return logits."""
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        others = []
        for name in NETWORK:
            x = self.get_submodule(f"inception{name}")(x)
            if name in ("3b", "4e"):
                x = self.maxpool3(x) if name == "3b" else self.maxpool4(x)
            if self.training and self.aux and name in ("4a", "4d"):
                others.append((self.aux1 if name == "4a" else self.aux2)(x))
        logits = self.fc(self.dropout(x.mean((2, 3))))
        return (logits, *others) if others else logits


# fmt: off
VARIANTS = {
    "googlenet": {"args": {"aux": True}, "aliases": ["inception_v1"], "params": 13004888, "macs": 1498000000,
        "top1": 69.778, "top5": 89.53, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "checkpoint": "googlenet-1378be20.pth"},
    "googlenet_noaux": {"args": {"aux": False}, "params": 6624904, "macs": 1498000000, "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5], "source": "torchvision's count without auxiliary classifiers"},
}
# fmt: on


def build(aux: bool = True, num_classes: int = 1000) -> nn.Module:
    """Build GoogLeNet; `aux` adds the classifiers that only training uses."""
    return GoogLeNet(aux, num_classes)
