"""Blocks that two or more networks share, and the initialisations that the papers name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Layer = Callable[[], nn.Module]


def relu() -> nn.Module:
    """Return max(0, x), in place."""
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    """Return min(max(0, x), 6), in place: the range stays small enough for low precision."""
    return nn.ReLU6(inplace=True)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, activation (none when `act` is None); keys 0, 1.

    (N, in, H, W) -> (N, out, H / stride, W / stride): padded so that stride 1 keeps the size.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        act: Layer | None = relu,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        padding = (kernel - 1) // 2 * dilation
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
            nn.BatchNorm2d(outputs, eps=eps, momentum=momentum),
            *([act()] if act else []),
        )


def round_channels(channels: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of `divisor`, never down by more than 10 % (MobileNet's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Interleave the channels of `groups` groups: (g, c) becomes (c, g), so the next grouped layer sees all of them."""
    return nn.functional.channel_shuffle(x, groups)


def he_init(module: nn.Module, linear_std: float | None = None) -> None:
    """He initialisation (He et al. 2015) in fan-out mode for convolutions; batch norm 1 and 0.

    Args:
        module: Changed in place.
        linear_std: Draw linear layers from N(0, std) with bias 0; None leaves PyTorch's own uniform draw.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.GroupNorm) and layer.weight is not None:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear) and linear_std is not None:
            nn.init.normal_(layer.weight, 0.0, linear_std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
