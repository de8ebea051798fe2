"""Callgrind client requests from inside the measured process, which count the instructions of one part of a program.

A client request is a sequence of instructions that changes nothing on a processor and that valgrind recognises
(Valgrind's manual, "The client request mechanism", and its header `valgrind.h`). Python cannot emit them, so they
are written into a page of executable memory and called through ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import platform
from collections.abc import Iterator
from functools import cache
from typing import Any

from ...runtime.errors import NotAvailable

# rax: address of six words; rdx: the answer outside of valgrind (0). Four rotations of rdi by 128 bits in all, then
# xchg rbx, rbx; the answer comes back in rdx.
X86_64 = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3".replace(" ", ""))
RUNNING_ON_VALGRIND = 0x1001
_CALLGRIND = (ord("C") << 24) + (ord("T") << 16)
TOGGLE_COLLECT, START_INSTRUMENTATION, STOP_INSTRUMENTATION = _CALLGRIND + 2, _CALLGRIND + 4, _CALLGRIND + 5


@cache
def _page() -> tuple[mmap.mmap, Any]:
    """Return the page and the function in it; the page must live as long as the function."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise NotAvailable("instructions can be counted only on x86-64", got=platform.machine())
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError as error:
        raise NotAvailable("this system does not allow executable memory", got=str(error)) from error
    page.write(X86_64)
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
    return page, kind(ctypes.addressof(ctypes.c_char.from_buffer(page)))


def request(code: int) -> int:
    """Make one client request without arguments; return 0 if valgrind is not running.

    Raises:
        NotAvailable: Not supported on this processor, or this system forbids executable memory.
    """
    words = (ctypes.c_uint64 * 6)(code)
    return int(_page()[1](ctypes.addressof(words)))


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Count the instructions of the body; Callgrind runs with `--instr-atstart=no --collect-atstart=no`.

    Raises:
        NotAvailable: As `request`, or valgrind is not running.
    """
    if not request(RUNNING_ON_VALGRIND):
        raise NotAvailable("this process does not run under valgrind")
    request(START_INSTRUMENTATION)
    request(TOGGLE_COLLECT)
    try:
        yield
    finally:
        request(TOGGLE_COLLECT)
        request(STOP_INSTRUMENTATION)
