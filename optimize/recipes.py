"""The passes of each target, in the order in which they run; the list repeats until nothing changes."""

from __future__ import annotations

from ..runtime import targets
from ..runtime.common.machine import cpu

CLEAN = (
    "drop_identity",
    "drop_dropout",
    "fold_constants",
    "fold_shapes",
    "eliminate_common_subexpressions",
    "eliminate_dead_nodes",
)
FUSE = (
    "sequence_to_split",
    "slices_to_split",
    "merge_transposes",
    "merge_reshapes",
    "fuse_clips",
    "recognise_activations",
    "drop_redundant_clips",
    "fold_pad",
    "fuse_batchnorm",
    "fold_affine",
    "fold_affine_forward",
    "merge_parallel_convs",
    "merge_consecutive_convs",
    "mean_to_pool",
    "eliminate_channel_shuffles",
)
GENERIC = (*CLEAN, *FUSE)


def recipes() -> dict[str, tuple[str, ...]]:
    """Return the names of each target's passes: the generic ones, then those of its row."""
    return {name: (*GENERIC, *targets.row(name).passes) for name in targets.names()}


def channel_block(target: str) -> int:
    """Return a target's channel block: for ONNX Runtime on this machine 16 with AVX-512 and 8 without."""
    flags = cpu()[1]
    return next((count for flag, count in targets.row(target).channel_blocks if not flag or flag in flags), 1)


def recipe(target: str) -> tuple[str, ...]:
    """Return the names of a target's passes.

    Raises:
        UsageError: No such target.
    """
    return (*GENERIC, *targets.row(target).passes)
