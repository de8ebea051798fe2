"""The errors that Edgesmith raises, with their exit codes.

    EdgesmithError                1  an input or a result is wrong
    ├── UsageError                2  wrong use: an option, a name, a path that does not exist
    ├── CheckFailed               1  a check failed (parity, digest, accuracy, precision)
    ├── ModelError                1  an ONNX file, a checkpoint or a graph that cannot be used
    ├── DataError                 1  images or arrays that cannot be used
    ├── BundleError               1  a bundle that is broken or was tampered with
    ├── BuildError                1  an engine could not be built
    ├── RunError                  1  a backend failed while running
    └── NotAvailable              3  not installed, or not possible on this machine

A message is one line in four parts: the problem, the actual value, the expected value, what to do next.
"""

from __future__ import annotations

LONGEST_PART = 1600


class EdgesmithError(Exception):
    """The base class: `what` and, if useful, `got`, `expected` and `do`.

    Args:
        what: The problem, with the name of the file, node or option.
        got: The actual value.
        expected: The expected value.
        do: The next step for the user.
    """

    exit_code = 1

    def __init__(self, what: str, *, got: str = "", expected: str = "", do: str = "") -> None:
        self.what, self.got, self.expected, self.do = what, got, expected, do
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        parts += [f"got {self.got}"] if self.got else []
        parts += [f"expected {self.expected}"] if self.expected else []
        parts += [f"do: {self.do}"] if self.do else []
        return "; ".join(_shortened(" ".join(part.split())) for part in parts)


def _shortened(part: str) -> str:
    """Shorten a part that a hostile file may have made very long, such as a name of a megabyte."""
    return part if len(part) <= LONGEST_PART else f"{part[:LONGEST_PART]}…"


class UsageError(EdgesmithError):
    """Wrong use: an unknown name or option, a path that does not exist."""

    exit_code = 2


class CheckFailed(EdgesmithError):
    """A check was completed and failed."""


class ModelError(EdgesmithError):
    """An ONNX file, a checkpoint or a graph that cannot be used."""


class DataError(EdgesmithError):
    """Images or arrays that cannot be used: missing, corrupt, of the wrong shape, dtype or layout."""


class BundleError(EdgesmithError):
    """A bundle that is incomplete, broken, or does not match its manifest."""


class BuildError(EdgesmithError):
    """A TensorRT engine could not be built."""


class RunError(EdgesmithError):
    """A backend failed while it was running a model."""


class NotAvailable(EdgesmithError):
    """Not installed, or not possible on this machine; exit code 3, like «cannot tell»."""

    exit_code = 3


CANNOT = (NotAvailable, BuildError, ModelError, RunError)
"""Errors after which another artefact may still run here; BundleError is not one of them."""
