"""Named lists of passes, one per target, in the order in which they run; the list repeats until nothing changes."""

from __future__ import annotations

from pathlib import Path

from ..runtime.common.plugins import did_you_mean
from ..runtime.errors import UsageError

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
    "mean_to_pool",
    "eliminate_channel_shuffles",
)
GENERIC = (*CLEAN, *FUSE)

RECIPES: dict[str, tuple[str, ...]] = {
    "generic": GENERIC,
    "ort-x86": (*GENERIC, "mean_to_pool_flat", "split_convs"),
    "trt": GENERIC,
    "openvino": GENERIC,
}


def channel_block(target: str) -> int:
    """Return how many channels a target works on together: ONNX Runtime 16 with AVX-512 and 8 without, here."""
    if target != "ort-x86":
        return 1
    try:
        return 16 if "avx512f" in Path("/proc/cpuinfo").read_text() else 8
    except OSError:
        return 8


def recipe(target: str) -> tuple[str, ...]:
    """Return the names of a target's passes.

    Raises:
        UsageError: No such target.
    """
    if target not in RECIPES:
        raise UsageError(
            f"unknown target {target!r}",
            expected=", ".join(RECIPES),
            do=did_you_mean(target, RECIPES) or "choose one of these",
        )
    return RECIPES[target]
