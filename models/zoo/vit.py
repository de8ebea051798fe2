"""Vision transformer: an image is a sequence of patches, with one learnt [class] token as the head's input.

Attention is written as matrix products, so that operations and export match the paper. State-dict keys are
torchvision's.
"""

from __future__ import annotations

import math

import torch
from torch import nn

PAPER = "Dosovitskiy et al., An Image is Worth 16x16 Words, 2020, arXiv:2010.11929"

# layers, heads, width, width of the perceptron (the paper's table 1)
NETWORK = {"B": (12, 12, 768, 3072), "L": (24, 16, 1024, 4096), "H": (32, 16, 1280, 5120)}


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in `heads` heads. (N, T, width) -> (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attended values."""
        count, tokens, width = x.shape
        joint = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        joint = joint.reshape(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = joint[0], joint[1], joint[2]
        scores = (queries * (width // self.heads) ** -0.5) @ keys.transpose(-2, -1)
        mixed = (scores.softmax(-1) @ values).transpose(1, 2).reshape(count, tokens, width)
        return self.out_proj(mixed)


class Block(nn.Module):
    """Norm - attention, norm - perceptron, each added to its input. (N, T, width) -> (N, T, width)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = SelfAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, width), nn.Dropout(0.0)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        x = x + self.self_attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """(N, 3, side, side) -> (N, num_classes)."""

    def __init__(self, size: str, patch: int, side: int, num_classes: int) -> None:
        super().__init__()
        layers, heads, width, hidden = NETWORK[size]
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.empty(1, (side // patch) ** 2 + 1, width).normal_(std=0.02))
        self.encoder.layers = nn.Sequential()
        for index in range(layers):
            self.encoder.layers.add_module(f"encoder_layer_{index}", Block(width, heads, hidden))
        self.encoder.ln = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.Sequential()
        self.heads.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.conv_proj.weight, std=math.sqrt(1 / (3 * patch * patch)))
        nn.init.zeros_(self.conv_proj.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.heads.head.weight)
        nn.init.zeros_(self.heads.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        tokens = self.encoder.layers(tokens + self.encoder.pos_embedding)  # type: ignore[operator]
        return self.heads(self.encoder.ln(tokens)[:, 0])  # type: ignore[operator]


# fmt: off
VARIANTS = {
    "vit_b_16": {"args": {"size": "B", "patch": 16}, "digits": 224, "fixed": True, "params": 86567656,
        "macs": 17564000000,
        "top1": 81.072, "top5": 95.318, "checkpoint": "vit_b_16-c867db91.pth"},
    "vit_l_16": {"args": {"size": "L", "patch": 16}, "digits": 224, "fixed": True, "resize": 242, "params": 304326632,
        "macs": 61555000000, "top1": 79.662, "top5": 94.638, "checkpoint": "vit_l_16-852ce7e3.pth"},
    "vit_h_14": {"args": {"size": "H", "patch": 14}, "digits": 224, "fixed": True, "params": 632045800,
        "macs": 167295000000,
        "source": "torchvision's count at 224x224"},
}
# fmt: on


def build(size: str, patch: int, side: int = 224, num_classes: int = 1000) -> nn.Module:
    """Build a size of NETWORK for images of `side` x `side` in patches of `patch` x `patch`."""
    return ViT(size, patch, side, num_classes)
