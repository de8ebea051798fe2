"""Old import paths from earlier documentation: they work for one release, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from types import ModuleType

# Old module -> (new module, {old name: new name}), below this package.
MOVED: dict[str, tuple[str, dict[str, str]]] = {
    "runtime.session": ("runtime.model", {}),
    "runtime.stream": ("runtime.serving.stream", {}),
    "runtime.live": ("runtime.serving.reload", {"Live": "ReloadingModel", "Pool": "WorkerPool"}),
    "optimize.runner": ("optimize.optimizer", {}),
    "optimize.precision": ("optimize.fp16.convert", {}),
    "optimize.preprocessing": ("optimize.embed_preprocessing", {}),
    "optimize.best_mix": ("optimize.trt.autotune", {"best_mix": "autotune"}),
    "export.metadata": ("optimize.graph.spec_metadata", {}),
}


class _Finder:
    """Finder of the old modules, last in `sys.meta_path`.

    It implements the methods of importlib's finders and loaders without inheriting from them: `importlib.abc` would
    import more of the standard library while the working directory may be in the path (`python -m edgesmith`).
    """

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec for an old path, None for any other name."""
        old = name.removeprefix(f"{self.package}.")
        return ModuleSpec(name, cast("Loader", self)) if name != old and old in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Use Python's default module type."""

    def exec_module(self, module: ModuleType) -> None:
        """Make an old module look up each name in the new one."""
        new, names = MOVED[module.__name__.removeprefix(f"{self.package}.")]
        target = import_module(f"{self.package}.{new}")
        warnings.warn(f"{module.__name__} is now {self.package}.{new}", DeprecationWarning, stacklevel=2)

        def look_up(name: str) -> Any:
            return getattr(target, names.get(name, name))

        module.__dict__["__getattr__"] = look_up


def install(package: str) -> None:
    """Register the old paths in a package; a second call does nothing."""
    if not any(isinstance(finder, _Finder) and finder.package == package for finder in sys.meta_path):
        sys.meta_path.append(_Finder(package))
