"""ShuffleNet v1: grouped 1x1 convolutions, and a channel shuffle that mixes the groups.

The paper's table 2 prints one number of operations for each width; if the channels are not divisible by the groups,
they are rounded up, and 4 and 8 groups at the small widths then cost more than printed (docs/zoo.md).
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import ConvNormAct, he_init, shuffle

PAPER = "Zhang et al., ShuffleNet: An Extremely Efficient CNN for Mobile Devices, 2017, arXiv:1707.01083"

# groups: output channels of stage 2 at width 1; stages 3 and 4 have twice and four times as many (the paper's table 1)
NETWORK = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
REPEATS = (4, 8, 4)
STEM = {0.25: 12, 0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}  # by width, rounded up to a multiple of the groups


class Unit(nn.Module):
    """1x1 grouped - shuffle - 3x3 depthwise - 1x1 grouped; added at stride 1, concatenated with pooling at stride 2.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        branch_outputs = outputs - inputs if stride == 2 else outputs
        middle = -(-(outputs // 4) // groups) * groups
        self.groups, self.stride = groups, stride
        self.squeeze = ConvNormAct(inputs, middle, 1, groups=1 if first else groups)
        self.depthwise = ConvNormAct(middle, middle, 3, stride, groups=middle, act=None)
        self.expand = ConvNormAct(middle, branch_outputs, 1, groups=groups, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        out = self.expand(self.depthwise(shuffle(self.squeeze(x), self.groups)))
        if self.stride == 1:
            return torch.relu(x + out)
        return torch.relu(torch.cat([nn.functional.avg_pool2d(x, 3, 2, 1), out], dim=1))


class ShuffleNetV1(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); H and W are divided by 32."""

    def __init__(self, groups: int, width: float, num_classes: int) -> None:
        super().__init__()
        channels = -(-STEM[width] // groups) * groups
        layers: list[nn.Module] = [ConvNormAct(3, channels, 3, 2), nn.MaxPool2d(3, 2, 1)]
        for stage, repeats in enumerate(REPEATS):
            outputs = int(NETWORK[groups] * width) << stage
            for index in range(repeats):
                layers.append(Unit(channels, outputs, 2 if index == 0 else 1, groups, first=stage == index == 0))
                channels = outputs
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)
        he_init(self, linear_std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.fc(self.features(x).mean((2, 3)))


# fmt: off
VARIANTS = {
    "shufflenetv1_g1": {"args": {"groups": 1}, "macs": 143000000, "top1": 66.4, "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g2": {"args": {"groups": 2}, "macs": 140000000, "top1": 67.3, "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g3": {"args": {"groups": 3}, "aliases": ["shufflenetv1", "shufflenet_v1"], "macs": 137000000,
        "top1": 67.4, "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g4": {"args": {"groups": 4}, "macs": 133000000, "top1": 67.2, "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g8": {"args": {"groups": 8}, "macs": 137000000, "top1": 67.6, "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g1_0.5": {"args": {"groups": 1, "width": 0.5}, "macs": 38000000, "top1": 54.9,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g2_0.5": {"args": {"groups": 2, "width": 0.5}, "macs": 38000000, "top1": 55.6,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g3_0.5": {"args": {"groups": 3, "width": 0.5}, "macs": 38000000, "top1": 56.8,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g4_0.5": {"args": {"groups": 4, "width": 0.5}, "macs": 38000000, "top1": 58.4,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g8_0.5": {"args": {"groups": 8, "width": 0.5}, "top1": 57.7,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g1_0.25": {"args": {"groups": 1, "width": 0.25}, "macs": 13000000, "top1": 42.9,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g2_0.25": {"args": {"groups": 2, "width": 0.25}, "macs": 13000000, "top1": 43.2,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g3_0.25": {"args": {"groups": 3, "width": 0.25}, "macs": 13000000, "top1": 45.0,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g4_0.25": {"args": {"groups": 4, "width": 0.25}, "top1": 45.8,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g8_0.25": {"args": {"groups": 8, "width": 0.25}, "top1": 47.3,
        "source": "Zhang et al. 2017, table 2"},
    "shufflenetv1_g3_1.5": {"args": {"groups": 3, "width": 1.5}, "macs": 292000000, "top1": 71.5,
        "source": "Zhang et al. 2017, table 5"},
    "shufflenetv1_g3_2.0": {"args": {"groups": 3, "width": 2.0}, "macs": 524000000, "top1": 73.7,
        "source": "Zhang et al. 2017, table 5"},
}
# fmt: on


def build(groups: int = 3, width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Build ShuffleNet v1 with 1x1 convolutions in `groups` groups, at `width` times the channels."""
    return ShuffleNetV1(groups, width, num_classes)
