"""This machine's peak rates: multiply-accumulates per second in FP32 and INT8, and bytes per second from memory.

Measured with what the networks run on: the best of a few dense operators of ONNX Runtime (convolutions of 3x3 and 1x1,
a matrix product), whose arithmetic is large beside their memory traffic, and a copy of arrays larger than any cache.
The roofline model (Williams, Waterman & Patterson, 2009) then bounds a network's latency from below.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from ...runtime.common.ort_session import ort_session
from . import clock, environment

REPEATS = 15
COPIED_BYTES = 1 << 26
# channels in, channels out, side of the image, side of the kernel
DENSE = ((128, 128, 28, 3), (256, 256, 14, 3), (256, 512, 28, 1), (512, 512, 14, 1))


@dataclass(frozen=True)
class Ceilings:
    """The highest measured rates: multiply-accumulates per second by precision, bytes per second read and written."""

    macs_per_s: dict[str, float]
    bytes_per_s: float

    def limit_s(self, macs: float, moved_bytes: float, precision: str) -> float:
        """Return the lower bound in seconds for `macs` multiply-accumulates and `moved_bytes` bytes on this machine."""
        peak = self.macs_per_s.get(precision, self.macs_per_s["fp32"])
        return max(macs / peak, moved_bytes / self.bytes_per_s)


@functools.lru_cache(maxsize=4)
def measure_peaks(threads: int) -> Ceilings:
    """Measure this machine with `threads` threads (0: all cores); takes two seconds, once per process.

    Raises:
        NotAvailable: onnxruntime is not installed.
    """
    rates = {name: max(_rate(_dense(shape, name), shape, threads) for shape in DENSE) for name in ("fp32", "int8")}
    return Ceilings(rates, _bandwidth(threads))


def _rate(model: bytes, shape: tuple[int, int, int, int], threads: int) -> float:
    session = ort_session(model, threads=threads, log_level=3)
    wide, out, side, kernel = shape
    tensor = session.get_inputs()[0]
    feeds = {tensor.name: np.ones((1, wide, side, side), np.float32 if "float" in tensor.type else np.uint8)}
    spent = min(clock.once(lambda: session.run(None, feeds)) for _ in range(REPEATS))
    return wide * out * side * side * kernel * kernel / spent


def file_name(shape: tuple[int, int, int, int], precision: str) -> str:
    """Return the name of a dense operator's file in `dense/`: «fp32-128x128x28x3.onnx»."""
    return f"{precision}-{'x'.join(map(str, shape))}.onnx"


def _dense(shape: tuple[int, int, int, int], precision: str) -> bytes:
    """Return an ONNX file with one convolution, FP32 or U8 by S8, which tests/support/dense.py wrote."""
    return files(__package__).joinpath("dense").joinpath(file_name(shape, precision)).read_bytes()


def _bandwidth(threads: int) -> float:
    """Copy arrays in `threads` threads (numpy releases the GIL); bytes read and written are counted."""
    count = threads or environment.here().cores
    pairs = [(np.ones(COPIED_BYTES // 8 // count), np.empty(COPIED_BYTES // 8 // count)) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        spent = min(
            clock.once(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))) for _ in range(REPEATS)
        )
    return 2 * COPIED_BYTES / spent
