"""Resources that are released by `close`, or at the end of a `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

Own = TypeVar("Own", bound="Closeable")


class Closeable(ABC):
    """A context manager that closes itself; an exception in the block is propagated."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
