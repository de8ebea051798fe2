"""Compute NumPy's linear algebra on one thread.

OpenBLAS's threads wait for each other by spinning: on two cores that others use too, solving for the weights of a layer
takes three times the CPU time of one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the body with one thread in the OpenBLAS that NumPy's wheels bring; another BLAS stays as it is."""
    library = _openblas()
    count = library.scipy_openblas_get_num_threads64_() if library else 0
    if library:
        library.scipy_openblas_set_num_threads64_(1)
    try:
        yield
    finally:
        if library:
            library.scipy_openblas_set_num_threads64_(count)


def _openblas() -> Any:
    """Return NumPy's own OpenBLAS, or None where it has none that can be told."""
    folder = Path(np.__file__).parent
    for path in (*folder.parent.glob("numpy.libs/*openblas*"), *folder.glob(".dylibs/*openblas*")):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        if hasattr(library, "scipy_openblas_set_num_threads64_"):
            return library
    return None
