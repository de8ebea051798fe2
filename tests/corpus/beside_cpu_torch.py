"""Make torchvision importable beside a CPU build of torch.

torchvision's wheels hold operators that are compiled against a CUDA build of torch. Beside a CPU build they cannot be
loaded, and `import torchvision` fails where it declares shapes for them. Its networks are Python and need none.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def _declare_shapes(declare: Any) -> Any:
    """Return torch.library.register_fake that passes over operators of torchvision that are not there."""

    def register_fake(name: str, *arguments: Any, **options: Any) -> Any:
        missing = isinstance(name, str) and name.startswith("torchvision::")
        return (lambda function: function) if missing else declare(name, *arguments, **options)

    return register_fake


class _Library(torch.library.Library):
    def impl(self, *arguments: Any, **options: Any) -> None:
        """Register an implementation, where the operator is there."""
        with contextlib.suppress(RuntimeError):
            super().impl(*arguments, **options)


def allow_torchvision() -> None:
    """Call this before torchvision is imported for the first time."""
    torch.library.register_fake = _declare_shapes(torch.library.register_fake)
    torch.library.Library = _Library  # type: ignore[misc]
