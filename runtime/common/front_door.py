"""Packages that can be called: `es.export(...)`, where `edgesmith.export` is a folder too."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is one of its functions; `_front` names it: (module below the package, function)."""

    _front: tuple[str, str]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the package's function, which is imported now."""
        return self._function()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's, so that `help` and completion show its parameters."""
        return inspect.signature(self._function())

    def _function(self) -> Any:
        module, function = self._front
        return getattr(import_module(f".{module}", self.__name__), function)


def make_callable(package: str, module: str, function: str) -> None:
    """Let a package that is being imported be called.

    Args:
        package: Its `__name__`.
        module: The module below it that holds the function, imported at the first call.
        function: The function's name.
    """
    itself = sys.modules[package]
    itself.__class__ = CallablePackage
    itself._front = module, function  # type: ignore[attr-defined]
