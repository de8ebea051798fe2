"""Blocks shared by several networks, and the initialisations of the papers."""

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
    """Convolution without bias, batch norm, activation (none if `act` is None); keys 0, 1.

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


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, ReLU if `act`; keys conv, bn: the unit of Inception (eps 1e-3) and of timm.

    (N, inputs, H, W) -> (N, outputs, H', W'); `pad` None keeps the size at stride 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: int | None = None,
        act: bool = True,
        *,
        groups: int = 1,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pad is None else (pad, pad)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=eps)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        x = self.bn(self.conv(x))
        return nn.functional.relu(x, inplace=True) if self.act else x


class SqueezeExcite(nn.Module):
    """Scale each channel by a factor in [0, 1] computed from the means of all channels (Hu et al. 2017).

    Global pool, 1x1 down to `squeezed`, `act`, 1x1 up, `gate`. (N, C, H, W) -> (N, C, H, W); keys as in `keys`.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        act: Layer = relu,
        gate: Layer = nn.Sigmoid,
        keys: tuple[str, str] = ("fc1", "fc2"),
    ) -> None:
        super().__init__()
        self.keys = keys
        self.add_module(keys[0], nn.Conv2d(channels, squeezed, 1))
        self.add_module(keys[1], nn.Conv2d(squeezed, channels, 1))
        self.activation = act()
        self.scale_activation = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled input."""
        reduce, expand = (self.get_submodule(key) for key in self.keys)
        scale = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * self.scale_activation(expand(self.activation(reduce(scale))))


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels at each position of (N, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x normalised."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StochasticDepth(nn.Module):
    """In training drop a residual branch for some images of the batch, scale it for the others (Huang et al. 2016)."""

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, or 0 if the branch is dropped."""
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        mask = torch.empty(x.shape[0], *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype).bernoulli_(keep)
        return x * (mask / keep if keep else mask)


def stochastic_depth(module: nn.Module, last: float) -> None:
    """Set the drop probability of blocks in training: it grows with depth, up to `last` for the last block.

    Args:
        module: Its `StochasticDepth` layers are set, in the order of the network.
        last: 0 drops none; Huang et al. 2016 use 0.5.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, StochasticDepth)]
    for index, layer in enumerate(layers, start=1):
        layer.probability = last * index / len(layers)


def trunc_normal_init(module: nn.Module, std: float = 0.1) -> None:
    """Initialise convolutions and linear layers from N(0, std), truncated at 2, as in Inception; batch norm 1 and 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, 0.0, getattr(layer, "std", std), -2, 2)


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
        linear_std: Initialise linear layers from N(0, std) with bias 0; None keeps PyTorch's uniform initialisation.
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


class StagedClassifier(nn.Module):
    """A stem, stages, and a linear layer on each channel's mean, with timm's keys: (N, 3, H, W) -> (N, num_classes)."""

    def __init__(self, stem: nn.Module, stages: list[nn.Sequential], channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem, self.stages, self.head = stem, nn.Sequential(*stages), nn.Module()
        self.head.fc = nn.Linear(channels, num_classes)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head.fc(self.stages(self.stem(x)).mean((2, 3)))  # type: ignore[operator]
