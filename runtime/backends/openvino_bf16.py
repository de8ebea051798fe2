"""OpenVINO on the CPU with float layers in BF16: reads the same ONNX files; for CPUs with AMX or AVX-512 BF16.

INT8 layers stay INT8. A bundle's golden outputs decide whether the network bears BF16 (`TOLERANCE`); `export` measures
its accuracy where the machine can.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common.machine import BF16_FLAGS, cpu
from . import openvino

# Largest max |a - b| / max |b| of a replay: BF16 keeps 8 bits of FP16's 11, and FP16 is allowed 0.02
# (`bundle.writer.TOLERANCES`); a classifier's error here is 0.005.
TOLERANCE = 0.05


def available() -> tuple[bool, str]:
    """Return whether openvino is installed and the CPU computes in BF16, and if not, what is missing."""
    ready, reason = openvino.available()
    if not ready:
        return ready, reason
    if not cpu()[1] & BF16_FLAGS:
        return False, "this CPU has no BF16 instructions (AMX or AVX-512 BF16): it would only emulate them"
    return True, "openvino is installed, and the CPU computes in BF16"


def open(path: str | Path, *, threads: int | None = None, **options: Any) -> openvino.OpenvinoSession:
    """Load an ONNX file with float layers in BF16; see `openvino.open`. Inputs and outputs keep their types.

    Raises:
        UsageError: There is no such file, or `threads` is below 1.
        ModelError: OpenVINO cannot read or compile it.
        NotAvailable: openvino is not installed.
    """
    return openvino.open(path, threads=threads, **{"INFERENCE_PRECISION_HINT": "bf16", **options})
