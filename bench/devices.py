"""The device catalogue: what a board or card can do at most, with the source of each figure.

Figures are dense (no sparsity), at the named clock. `confidence` says which were read in a source and which recalled
from a named document. Where a figure is not known it is None, and what needs it says so.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files

from ..runtime.errors import UsageError
from ..runtime.plugins import did_you_mean, normalise

_TEXT = ("device", "architecture", "sm", "power_modes_w", "tensorrt", "tensorrt_rtx", "source", "confidence", "note")


@dataclass(frozen=True)
class Device:
    """One row: peaks in TFLOPS (10^12 operations a second, a multiply-add counts two), memory in GB and GB/s."""

    device: str
    architecture: str
    sm: str
    multiprocessors: float | None
    clock_mhz: float | None
    fp32_tflops: float | None
    fp16_tflops: float | None
    int8_tops: float | None
    dla_int8_tops: float | None
    memory_gb_s: float
    memory_gb: float
    power_modes_w: str
    tensorrt: str
    tensorrt_rtx: str
    source: str
    confidence: str
    note: str

    @property
    def is_gpu(self) -> bool:
        """Whether it has an NVIDIA GPU."""
        return bool(self.sm)

    def peak_flops(self, precision: str) -> float:
        """Return the peak in operations a second; INT8 falls back to FP16, and FP16 to FP32, where there is none."""
        found = {"fp32": [self.fp32_tflops], "fp16": [self.fp16_tflops, self.fp32_tflops],
                 "int8": [self.int8_tops, self.fp16_tflops, self.fp32_tflops]}[precision]  # fmt: skip
        return next(value for value in found if value) * 1e12

    def core_flops(self, precision: str) -> float:
        """Return the peak without tensor cores, which depthwise convolutions cannot use."""
        return (self.fp32_tflops or 0.0) * (1e12 if precision == "fp32" else 2e12)


@functools.cache
def catalogue() -> dict[str, Device]:
    """Return every device by its name, in the order of the file."""
    text = files(__package__).joinpath("devices.csv").read_text(encoding="utf-8")
    return {row["device"]: _device(row) for row in csv.DictReader(text.splitlines())}


def find(name: str) -> Device:
    """Find a device by its name or a part of it, without regard to case, `_`, `-` and blanks.

    Raises:
        UsageError: No device, or several, have such a name.
    """
    known = catalogue()
    plain = {normalise(key).replace("jetson", ""): key for key in known}
    wanted = normalise(name).replace("jetson", "")
    if wanted in plain:
        return known[plain[wanted]]
    matches = [key for short, key in plain.items() if short.startswith(wanted)]
    first = [key for key in matches if "super" not in normalise(key)]
    if wanted and len(first) == 1:
        return known[first[0]]
    if wanted and matches:
        raise UsageError(f"several devices are called {name!r}", got=", ".join(matches), do="say which")
    raise UsageError(
        f"unknown device {name!r}", expected=", ".join(known), do=did_you_mean(name, known) or "choose one"
    )


def _device(row: dict[str, str]) -> Device:
    numbers = {key: float(value) if value else None for key, value in row.items() if key not in _TEXT}
    return Device(**{key: row[key] for key in _TEXT}, **numbers)  # type: ignore[arg-type]
