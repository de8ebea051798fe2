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
        what: Name of the software that runs the files.
        backends: Backends of the runtime with kernels for its INT8 files, best first.
        device: Type of device: "cpu" or "gpu".
        machines: Values of `platform.machine()` on machines of a CPU target.
        place: Place of its INT8 files in the order of preference on such machines, lowest first; FP32 has 50.
        place_elsewhere: Place on other machines with the same backend; None means after FP32.
        simulated_elsewhere: On other machines ONNX Runtime computes its files as written, without INT8 kernels.
        precisions: Precisions of its files and engines.
        engine: TensorRT flavour of its form, "standard" or "rtx"; "" if no engine is built.
        passes: Graph passes in addition to the generic ones (`optimize/recipes.py`), in order.
        channel_blocks: (processor flag, channels per block of its kernels): the first flag that the processor has is
            used, "" matches always; empty means one channel.
        qdq: The Q/DQ rules, by the names of `optimize.quantize.targets.Target`; None if there is no INT8 form.
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
        """Return whether this machine is of the target's type."""
        return platform.machine() in self.machines

    def is_simulated(self) -> bool:
        """Return whether ONNX Runtime on this machine only simulates the target's kernels."""
        if self.qdq is None:
            return False
        return "ort" not in self.backends or (self.simulated_elsewhere and not self.is_here())

    def int8_place(self, backend: str, otherwise: int) -> int:
        """Return the place of INT8 files on a backend of this machine; `otherwise` without matching kernels."""
        if backend not in self.backends:
            return otherwise
        place = self.place if self.is_here() else self.place_elsewhere
        return otherwise if place is None else place
