"""The device catalogue: peak rates of boards and cards, with the source of each figure.

Figures are dense (no sparsity), at the named clock. `confidence` says which were read in a source and which recalled
from a named document. Where a figure is not known it is None, and what needs it says so. `power_modes.csv` has the
clocks of boards' power modes (`nvpmodel`); the catalogue's own figures are those of the highest mode.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass, replace
from importlib.resources import files

from ...runtime.common.plugins import did_you_mean, normalise
from ...runtime.engines.cost import DEVICES, Gpu, gpu_of_row
from ...runtime.errors import UsageError

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
    l2_mb: float | None
    power_modes_w: str
    tensorrt: str
    tensorrt_rtx: str
    source: str
    confidence: str
    note: str
    mode: str = ""  # of power; "" for the highest
    slowdown: float = 1.0  # the full clock over this mode's

    @property
    def is_gpu(self) -> bool:
        """Whether it has an NVIDIA GPU."""
        return bool(self.sm)

    @property
    def gpu(self) -> Gpu:
        """The rates that the cost model needs; of a CPU too, which has no family there."""
        return gpu_of_row(vars(self))


@dataclass(frozen=True)
class PowerMode:
    """One power mode of a board: clocks in MHz, multiprocessors left on, and where that is from."""

    mode: str
    gpu_mhz: float
    multiprocessors: float
    memory_share: float
    source: str
    confidence: str


@functools.cache
def power_modes(device: str) -> dict[str, PowerMode]:
    """Return the power modes of a device whose clocks are known, by name, the highest first; none for most cards."""
    text = files(__package__).joinpath("power_modes.csv").read_text(encoding="utf-8")
    return {
        row["mode"]: PowerMode(
            row["mode"], float(row["gpu_mhz"]), float(row["multiprocessors"]),
            float(row["memory_mhz"]) / float(row["full_memory_mhz"]), row["source"], row["confidence"],
        )
        for row in csv.DictReader(text.splitlines()) if row["device"] == device
    }  # fmt: skip


def in_mode(board: Device, mode: str) -> Device:
    """Return the board with the peaks and the bandwidth of a power mode: peaks go with clock times multiprocessors.

    Args:
        board: Of the catalogue, in its highest mode.
        mode: A name of `power_modes(board.device)`, or a GPU clock such as "612MHz", with memory at full speed.

    Raises:
        UsageError: No such mode is known, or the clock is not above 0 and at most the board's own.
    """
    known = power_modes(board.device)
    power = {normalise(name): each for name, each in known.items()}.get(normalise(mode))
    if power is None:
        power = PowerMode(mode, _clock(board, mode, list(known)), board.multiprocessors or 1, 1.0, "given", "given")
    clock = power.gpu_mhz / (board.clock_mhz or power.gpu_mhz)
    share = clock * power.multiprocessors / (board.multiprocessors or power.multiprocessors)
    return replace(
        board, fp32_tflops=_scaled(board.fp32_tflops, share), fp16_tflops=_scaled(board.fp16_tflops, share),
        int8_tops=_scaled(board.int8_tops, share), memory_gb_s=board.memory_gb_s * power.memory_share,
        clock_mhz=power.gpu_mhz, multiprocessors=power.multiprocessors, mode=power.mode, slowdown=1 / clock,
        confidence=f"{board.confidence}; {power.mode}: {power.confidence} ({power.source})",
    )  # fmt: skip


def _scaled(value: float | None, share: float) -> float | None:
    return None if value is None else value * share


def _clock(board: Device, mode: str, known: list[str]) -> float:
    """Read "612MHz"."""
    digits = normalise(mode).removesuffix("mhz")
    full = board.clock_mhz or 0.0
    if normalise(mode).endswith("mhz") and digits.isdigit() and board.is_gpu and 0 < int(digits) <= full:
        return float(digits)
    names = ", ".join(known) or "no mode by name"
    expected = f"{names}, or a GPU clock up to {full:g}MHz" if board.is_gpu else "none: it has no GPU"
    do = "`nvpmodel -p --verbose` on the board has its clocks" if board.is_gpu else "leave --power out"
    raise UsageError(f"unknown power mode of the {board.device}", got=repr(mode), expected=expected, do=do)


@functools.cache
def catalogue() -> dict[str, Device]:
    """Return every device by its name, in the order of the file."""
    text = DEVICES.read_text(encoding="utf-8")
    return {row["device"]: _device(row) for row in csv.DictReader(text.splitlines())}


def find_device(name: str) -> Device:
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
