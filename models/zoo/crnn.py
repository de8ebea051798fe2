"""CRNN: convolutions turn a line of text into a sequence of columns, two recurrent layers read it both ways (CTC).

The last poolings halve the height alone, so that letters keep their columns. Each step gives a score for each character
and for the blank, which stands first; the text is the best path. The height of the input is 32, its width any.
"""

from __future__ import annotations

import torch
from torch import nn

from ._layers import he_init, relu

PAPER = "Shi et al., An End-to-End Trainable Network for Image-Based Sequence Recognition, 2015, arXiv:1507.05717"

# filters, batch norm, pooling after it: height, width (the paper's table 1; the last convolution is 2x2, not padded)
NETWORK = ((64, False, (2, 2)), (128, False, (2, 2)), (256, False, None), (256, False, (2, 1)), (512, True, None),
           (512, True, (2, 1)))  # fmt: skip
HIDDEN = 256


class CRNN(nn.Module):
    """(N, 1, 32, W) -> scores (N, W / 4 - 1, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for filters, norm, pool in NETWORK:
            layers += [nn.Conv2d(inputs, filters, 3, padding=1), *([nn.BatchNorm2d(filters)] if norm else []), relu()]
            layers += [nn.MaxPool2d(pool)] if pool else []
            inputs = filters
        self.features = nn.Sequential(*layers, nn.Conv2d(inputs, 512, 2), relu())
        self.recurrent = nn.ModuleList(
            nn.LSTM(width, HIDDEN, batch_first=True, bidirectional=True) for width in (512, 256)
        )
        self.between, self.last = nn.Linear(2 * HIDDEN, 256), nn.Linear(2 * HIDDEN, num_classes)
        he_init(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of each step."""
        steps = self.features(x).squeeze(2).permute(0, 2, 1)
        steps = self.between(self.recurrent[0](steps)[0])
        return self.last(self.recurrent[1](steps)[0])


# fmt: off
VARIANTS = {
    "crnn": {"task": "text", "input": [1, 32, 100], "classes": 37, "mean": [0.5], "std": [0.5], "params": 8330789,
        "source": "Shi et al. 2015, section 3.4: 8.3 M", "labels": "0123456789abcdefghijklmnopqrstuvwxyz"},
}
# fmt: on


def build(num_classes: int = 37) -> nn.Module:
    """Build CRNN for the characters and the blank."""
    return CRNN(num_classes)
