"""EdgeNeXt: ConvNeXt's blocks; the last one of most stages is attention between channels (paper below).

Its cost grows with the number of pixels, not with its square. The channels are split first, and each part is convolved
together with the result of the part before it. State-dict keys are timm's.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ._layers import LayerNorm2d

PAPER = "Maaz et al., EdgeNeXt: Efficiently Amalgamated CNN-Transformer Architecture, 2022, arXiv:2206.10589"

# channels and blocks of the four stages; heads of attention
NETWORK = {
    "xx_small": ((24, 48, 88, 168), (2, 2, 6, 2), 4),
    "x_small": ((32, 64, 100, 192), (3, 3, 9, 3), 4),
    "small": ((48, 96, 160, 304), (3, 3, 9, 3), 8),
}
# of each stage: depthwise kernel; parts of the channels in its last block (0: that block has no attention)
KERNELS, PARTS = (3, 5, 7, 9), (0, 2, 3, 4)
POSITIONS = 1  # the stage whose attention adds an encoding of positions
WAVES = 32  # sines and cosines of each axis


class Perceptron(nn.Module):
    """Linear to 4 times the channels, GELU, and back. (..., C) -> (..., C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class ConvBlock(nn.Module):
    """ConvNeXt's block: depthwise, layer norm, perceptron, scale; added to the input. (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm, self.mlp = nn.LayerNorm(channels, eps=1e-6), Perceptron(channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.mlp(y)).permute(0, 3, 1, 2)


class PositionEncoding(nn.Module):
    """1x1 convolution of sines and cosines of the row and of the column: (1, channels, H, W), whatever the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * WAVES, channels, 1)

    def forward(self, height: int, width: int) -> torch.Tensor:
        """Return the encoding of an image of that size."""
        rows = self._waves(height)[:, None].expand(height, width, WAVES)
        columns = self._waves(width).expand(height, width, WAVES)
        return self.token_projection(torch.cat([rows, columns], -1).permute(2, 0, 1)[None])

    def _waves(self, size: int) -> torch.Tensor:
        """Return (size, WAVES): sine and cosine by turns, of one period to 1/10000 of a period of the whole axis."""
        like = self.token_projection.weight
        places = torch.arange(1, size + 1, device=like.device, dtype=like.dtype) * (2 * math.pi / (size + 1e-6))
        powers = torch.arange(0, WAVES, 2, device=like.device, dtype=like.dtype) / WAVES
        angles = places[:, None] / 10000.0**powers
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class CrossCovariance(nn.Module):
    """softmax(t Q^T K) V: attention between the channels of a head, queries and keys of length 1. (N, T, C) -> same."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attended values."""
        count, tokens, channels = x.shape
        heads = len(self.temperature)
        joint = self.qkv(x).reshape(count, tokens, 3, heads, channels // heads).permute(2, 0, 3, 4, 1)
        queries, keys, values = joint[0], joint[1], joint[2]
        scores = nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(keys, dim=-1).transpose(-2, -1)
        mixed = (scores * self.temperature).softmax(-1) @ values
        return self.proj(mixed.permute(0, 3, 1, 2).reshape(count, tokens, channels))


class SplitAttention(nn.Module):
    """Convolutions of the parts of the channels, attention, perceptron; added to the input.

    (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, channels: int, parts: int, heads: int, positions: bool) -> None:
        super().__init__()
        width = math.ceil(channels / parts)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(parts - 1))
        self.pos_embd = PositionEncoding(channels) if positions else None
        self.norm_xca, self.xca = nn.LayerNorm(channels, eps=1e-6), CrossCovariance(channels, heads)
        self.norm, self.mlp = nn.LayerNorm(channels, eps=1e-6), Perceptron(channels)
        self.gamma_xca = nn.Parameter(torch.full((channels,), 1e-6))
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        parts = list(x.chunk(len(self.convs) + 1, 1))
        for index, conv in enumerate(self.convs):
            parts[index] = conv(parts[index] if index == 0 else parts[index] + parts[index - 1])
        y = torch.cat(parts, 1)
        if self.pos_embd is not None:
            y = y + self.pos_embd(*y.shape[-2:])
        tokens = y.flatten(2).transpose(1, 2)
        tokens = tokens + self.gamma_xca * self.xca(self.norm_xca(tokens))
        tokens = self.gamma * self.mlp(self.norm(tokens))
        return x + tokens.transpose(1, 2).reshape(x.shape)


class EdgeNeXt(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, size: str, num_classes: int) -> None:
        super().__init__()
        widths, depths, heads = NETWORK[size]
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), LayerNorm2d(widths[0], eps=1e-6))
        self.stages, channels = nn.Sequential(), widths[0]
        for index, (width, depth, kernel, parts) in enumerate(zip(widths, depths, KERNELS, PARTS, strict=True)):
            stage = nn.Sequential()
            down = nn.Sequential(LayerNorm2d(channels, eps=1e-6), nn.Conv2d(channels, width, 2, 2))
            stage.add_module("downsample", down if index else nn.Identity())
            blocks: list[nn.Module] = [ConvBlock(width, kernel) for _ in range(depth)]
            if parts:
                blocks[-1] = SplitAttention(width, parts, heads, index == POSITIONS)
            stage.add_module("blocks", nn.Sequential(*blocks))
            self.stages.append(stage)
            channels = width
        self.head = nn.Sequential()
        self.head.add_module("norm", LayerNorm2d(channels, eps=1e-6))
        self.head.add_module("flatten", nn.Flatten(1))
        self.head.add_module("fc", nn.Linear(channels, num_classes))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(nn.functional.adaptive_avg_pool2d(self.stages(self.stem(x)), 1))


# fmt: off
VARIANTS = {
    "edgenext_xx_small": {"args": {"size": "xx_small"}, "input": [3, 256, 256], "resize": 284, "params": 1327216,
        "macs": 260000000, "top1": 71.132, "top5": 90.042, "source": "timm, in1k", "interpolation": "bicubic",
        "keys": "timm"},
    "edgenext_x_small": {"args": {"size": "x_small"}, "input": [3, 256, 256], "resize": 284, "params": 2336804,
        "macs": 540000000, "top1": 74.874, "top5": 92.304, "source": "timm, in1k", "interpolation": "bicubic",
        "keys": "timm"},
    "edgenext_small": {"args": {"size": "small"}, "input": [3, 256, 256], "resize": 269, "params": 5586832,
        "macs": 1260000000, "top1": 81.068, "top5": 95.33, "source": "timm, usi_in1k", "interpolation": "bicubic",
        "keys": "timm"},
}
# fmt: on


def build(size: str, num_classes: int = 1000) -> nn.Module:
    """Build a size of NETWORK."""
    return EdgeNeXt(size, num_classes)
