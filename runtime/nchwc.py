"""The blocked layout of ONNX Runtime's own optimised graphs: how many channels a block has here, and on what it rests.

For convolutions on CPUs ONNX Runtime keeps (N, C, H, W) in memory as (N, C/b, H, W, b), in operators of a domain of its
own. A file with these operators is right only where b is the same: loaded with another b it may compute something else
without an error. So b is not guessed from the processor's flags but read off an operator that ONNX Runtime runs here.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .errors import BuildError, NotAvailable
from .machine import cpu
from .packages import need

ROLE, TARGET, DOMAIN = "nchwc", "ort-x86", "com.microsoft.nchwc"
# What a blocked file's contract must name, and what is said of it.
CONTRACT = ("onnxruntime", "block", "isa", "machine")
# ONNX Runtime takes these flags in this order for its kernels.
ISA = ("avx512f", "avx2", "avx", "asimd")
CHANNELS = 64
# ReorderInput of x (1, 64, 1, 2) as an ONNX file; tests write it again with onnx and compare.
PROBE = bytes.fromhex(
    "08083a6b0a2c0a01781201791a0172220c52656f72646572496e7075743a13636f6d2e6d6963726f736f66742e6e636877631201"
    "705a1b0a017812160a14080112100a0208010a0208400a0208010a020802621b0a017912160a14080112100a0208010a0208400a"
    "0208010a02080242040a00101142170a13636f6d2e6d6963726f736f66742e6e636877631001"
)


@functools.lru_cache(maxsize=1)
def block() -> int:
    """Return how many channels ONNX Runtime keeps together here; 0 where it has no blocked layout.

    Raises:
        NotAvailable: onnxruntime is not installed.
    """
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    image = np.arange(2 * CHANNELS, dtype=np.float32).reshape(1, CHANNELS, 1, 2)
    try:
        session = ort.InferenceSession(PROBE, options, providers=["CPUExecutionProvider"])
        (laid,) = session.run(None, {"x": image})
    except Exception:  # whatever a build without these operators raises: it has no blocked layout
        return 0
    flat = laid.reshape(-1)
    # Within a block lie the channels of one pixel, two apart in `image`; the next value is the second pixel's first.
    size = int(np.argmax(flat == 1)) if flat.size == image.size else 0
    return size if size > 1 and np.array_equal(flat, blocked(image, size).reshape(-1)) else 0


def blocked(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return (N, C, H, W) as (N, C/b, H, W, b); C is a multiple of b."""
    n, channels, height, width = image.shape
    return image.reshape(n, channels // size, size, height, width).transpose(0, 1, 3, 4, 2)


def facts() -> dict[str, str]:
    """Return what a blocked file's contract rests on: onnxruntime's version, block and isa; nothing without it."""
    from .backends import ort

    if not ort.available()[0]:
        return {}
    return {"onnxruntime": str(need("onnxruntime").__version__), "block": str(block()), "isa": isa()}


def isa() -> str:
    """Return the widest vector instructions that ONNX Runtime would use here, by the processor's flags."""
    return next((flag for flag in ISA if flag in cpu()[1]), "none")


def contract() -> dict[str, str]:
    """Return the contract of a blocked file that is made here.

    Raises:
        NotAvailable: ONNX Runtime is not installed, or keeps no blocked layout on this machine.
    """
    from .contract import facts as of_machine

    need("onnxruntime")
    if not block():
        raise NotAvailable(
            "ONNX Runtime keeps no blocked layout on this machine", got=of_machine()["machine"],
            expected="a processor for which it has NCHWc convolutions", do="use the portable file",
        )  # fmt: skip
    return {**facts(), "machine": of_machine()["machine"]}


def check(name: str, requires: dict[str, str], known: dict[str, str]) -> None:
    """Compare a blocked file's contract with this machine; what is not named or not known does not hold.

    Raises:
        BuildError: It does not hold; the message has the first point.
    """
    for key in CONTRACT:
        if requires.get(key, "") != known.get(key) or key not in requires:
            raise BuildError(
                f"{name} was made for another ONNX Runtime or processor",
                got=f"{key} {known.get(key, 'not known')}", expected=f"{key} {requires.get(key, 'in its contract')}",
                do="the portable file is used; `edgesmith optimize --blocked` makes another",
            )  # fmt: skip
