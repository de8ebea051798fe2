"""The columns of a target's row."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")


@dataclass(frozen=True)
class TargetRow:
    """One target, as plain data.

    Attributes:
        what: What runs the files, for people.
        backends: The runtime's backends whose own kernels compute its INT8 files, best first.
        device: The kind of device: "cpu" or "gpu".
        machines: What `platform.machine()` is called where a CPU target is at home.
        place: The place of its INT8 files in the order of preference at home, least first; FP32 has 50.
        place_elsewhere: Their place on other machines with the same backend; None is behind FP32.
        simulated_elsewhere: On other machines ONNX Runtime computes its files as written, not by its own INT8 kernels.
        precisions: What files and engines can be made in.
        engine: The TensorRT that its form is made for, "standard" or "rtx"; "" where no engine is built.
        passes: Graph passes beside the generic ones (`optimize/recipes.py`), in their order.
        channel_blocks: (processor flag, channels) that its kernels work on together: the first flag that the processor
            has counts, "" is always there; empty is one channel.
        qdq: The Q/DQ rules, by the names of `optimize.quantize.targets.Target`; None where there is no INT8 form.
    """

    what: str
    backends: tuple[str, ...] = ()
    device: str = "cpu"
    machines: tuple[str, ...] = ()
    place: int = 10
    place_elsewhere: int | None = None
    simulated_elsewhere: bool = False
    precisions: tuple[str, ...] = ("fp32", "int8")
    engine: str = ""
    passes: tuple[str, ...] = ()
    channel_blocks: tuple[tuple[str, int], ...] = ()
    qdq: Mapping[str, Any] | None = None

    def is_here(self) -> bool:
        """Say whether this is the kind of machine."""
        return platform.machine() in self.machines

    def is_simulated(self) -> bool:
        """Say whether ONNX Runtime on this machine only stands in for the target's own kernels."""
        if self.qdq is None:
            return False
        return "ort" not in self.backends or (self.simulated_elsewhere and not self.is_here())

    def int8_place(self, backend: str, otherwise: int) -> int:
        """Return the place of INT8 files on a backend of this machine, `otherwise` where its kernels are not here."""
        if backend not in self.backends:
            return otherwise
        place = self.place if self.is_here() else self.place_elsewhere
        return otherwise if place is None else place
