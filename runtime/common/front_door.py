"""Callable packages: `es.export(...)`, although `edgesmith.export` is also a folder."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that calls one of its functions; `_front` is (module in the package, function)."""

    _front: tuple[str, str]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Import the function and call it."""
        return self._function()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature of the function, so that `help` and completion show its parameters."""
        return inspect.signature(self._function())

    def _function(self) -> Any:
        module, function = self._front
        return getattr(import_module(f".{module}", self.__name__), function)


def make_callable(package: str, module: str, function: str) -> None:
    """Make a package callable while it is imported.

    Args:
        package: Its `__name__`.
        module: The module in it that defines the function, imported at the first call.
        function: The function's name.
    """
    itself = sys.modules[package]
    itself.__class__ = CallablePackage
    itself._front = module, function  # type: ignore[attr-defined]
