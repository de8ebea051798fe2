"""SSD's loss: which default box learns which object, and what it costs (Liu et al. 2015, arXiv:1512.02325).

L = (smooth L1 of the deltas of positives + cross entropy of positives and of hard negatives) / positives
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

OVERLAP = 0.5  # IoU from which a default box learns an object
NEGATIVES = 3  # background boxes, those with the highest loss, for each positive of the image


def loss(
    deltas: torch.Tensor, scores: torch.Tensor, truth: torch.Tensor, anchors: torch.Tensor,
    variances: Sequence[float], smoothing: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Return the loss of a batch, a scalar.

    Args:
        deltas: (N, A, 4), of centre and size.
        scores: (N, A, 1 + classes), the background first.
        truth: (N, M, 5): x1, y1, x2, y2 in pixels and the class; -1 where there is no box.
        anchors: (A, 4): centre and size in pixels.
        variances: What deltas are divided by.
        smoothing: Of the classes.
    """
    index = match(truth, anchors)
    positive = index >= 0
    own = truth.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, 5))
    labels = torch.where(positive, own[..., 4].long() + 1, 0)
    wanted = encode(own[..., :4], anchors, variances)
    boxes = F.smooth_l1_loss(deltas[positive], wanted[positive], reduction="sum")
    each = F.cross_entropy(scores.transpose(1, 2), labels, reduction="none", label_smoothing=smoothing)
    rank = each.detach().masked_fill(positive, -torch.inf).argsort(1, descending=True).argsort(1)
    negative = (rank < NEGATIVES * positive.sum(1, keepdim=True)) & ~positive
    return (boxes + each[positive | negative].sum()) / positive.sum().clamp(min=1)


def match(truth: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Return the row of `truth` that each default box learns, int64 (N, A), -1 for the background.

    It is the one with the largest overlap, if that is at least OVERLAP; and each object has the default box that
    overlaps it most, whatever the overlap is; of two objects with the same one the later row.
    """
    low, high = anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2
    sides = torch.minimum(high[:, None], truth[:, None, :, 2:4]) - torch.maximum(low[:, None], truth[:, None, :, :2])
    shared = sides.clamp(min=0).prod(-1)
    areas = (truth[..., 2:4] - truth[..., :2]).prod(-1)[:, None] + anchors[:, 2:].prod(-1)[:, None]
    real = truth[..., 4] >= 0
    overlaps = (shared / (areas - shared)).masked_fill(~real[:, None], -1.0)
    best, index = overlaps.max(2)
    index[best < OVERLAP] = -1
    nearest = overlaps.argmax(1)
    for row in range(truth.shape[1]):
        images = real[:, row].nonzero()[:, 0]
        index[images, nearest[images, row]] = row
    return index


def encode(boxes: torch.Tensor, anchors: torch.Tensor, variances: Sequence[float]) -> torch.Tensor:
    """Return the deltas of boxes (..., A, 4), x1, y1, x2, y2, to default boxes (A, 4), centre and size."""
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6)
    deltas = torch.cat([(centre - anchors[:, :2]) / anchors[:, 2:], (size / anchors[:, 2:]).log()], -1)
    return deltas / deltas.new_tensor(variances)
