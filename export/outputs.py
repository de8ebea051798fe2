"""The outputs of a module, in any container, as tensors in the order of their names.

A container is a tensor, a tuple, a list, a dict, a dataclass, a named tuple, or a nesting of these. If there are keys,
the keys and not the order decide which tensor has which name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..runtime.common.packages import need
from ..runtime.errors import ModelError

if TYPE_CHECKING:
    import torch

Path = tuple[str | int, ...]


def arranged(outputs: Any, names: Sequence[str]) -> list[torch.Tensor]:
    """Return the tensors of a module's outputs, one for each name.

    A tensor of a dict or a dataclass has its key as name; in a nested container its keys joined with "." or "_", as
    "heads.0", or the last key if it is unique. Tensors without a key, and a single tensor, are taken in their order.
    Entries that are None are omitted.

    Raises:
        ModelError: The number of tensors differs from the number of names, an entry is not
            a tensor, or a key is missing.
    """
    leaves = list(_leaves(outputs, ()))
    if wrong := [(path, leaf) for path, leaf in leaves if not isinstance(leaf, need("torch").Tensor)]:
        path, leaf = wrong[0]
        raise ModelError(f"the module returns a {type(leaf).__name__}", got=_joined(path), expected="tensors only")
    known = ", ".join(_joined(path) or "a tensor" for path, _ in leaves)
    if len(leaves) != len(names):
        raise ModelError(
            f"the module returns {len(leaves)} tensors, and {len(names)} outputs are named", got=known or "nothing",
            expected=", ".join(names), do="name each in ModelSpec.output_names",
        )  # fmt: skip
    tensors = _by_key(leaves, names)
    if tensors is not None:
        return tensors
    if len(leaves) > 1 and any(isinstance(step, str) for path, _ in leaves for step in path) and not _is_row(outputs):
        raise ModelError(
            "the keys of the module's outputs differ from ModelSpec.output_names", got=known, expected=", ".join(names),
            do="name them by their keys in ModelSpec.output_names",
        )  # fmt: skip
    return [leaf for _, leaf in leaves]


def named_leaves(outputs: Any) -> dict[str, torch.Tensor]:
    """Return a module's tensors by name: their keys joined with "_", or "output", "output0", "output1", ...

    Raises:
        ModelError: An entry is not a tensor, or there is no tensor.
    """
    leaves = list(_leaves(outputs, ()))
    if wrong := [(path, leaf) for path, leaf in leaves if not isinstance(leaf, need("torch").Tensor)]:
        path, leaf = wrong[0]
        raise ModelError(f"the module returns a {type(leaf).__name__}", got=_joined(path), expected="tensors only")
    if not leaves:
        raise ModelError("the module returns nothing", expected="one tensor or more")
    names = [_joined(path, "_") for path, _ in leaves]
    return {name if not name.isdigit() and name else f"output{name}": leaf
            for name, (_, leaf) in zip(names, leaves, strict=True)}  # fmt: skip


def is_plain(outputs: Any) -> bool:
    """Return whether the outputs are a tensor or a flat sequence of tensors, which an exporter accepts unchanged."""
    torch = need("torch")
    return isinstance(outputs, torch.Tensor) or (
        type(outputs) in (tuple, list) and all(isinstance(item, torch.Tensor) for item in outputs)
    )


def _is_row(outputs: Any) -> bool:
    """Return whether the container is a sequence; a named tuple is one, because its order matters too."""
    return isinstance(outputs, tuple) and all(isinstance(item, need("torch").Tensor) for item in outputs)


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        items: list[tuple[str | int, Any]] = [(str(key), item) for key, item in value.items()]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        items = list(zip(value._fields, value, strict=True))
    elif isinstance(value, (tuple, list)):
        items = list(enumerate(value))
    else:
        if value is not None:
            yield path, value
        return
    for step, item in items:
        yield from _leaves(item, (*path, step))


def _joined(path: Path, by: str = ".") -> str:
    return by.join(map(str, path))


def _by_key(leaves: list[tuple[Path, Any]], names: Sequence[str]) -> list[Any] | None:
    """Return the leaves in the order of the names, or None unless each name is the key of one of them."""
    lasts = [path[-1] if path else "" for path, _ in leaves]
    places = []
    for name in names:
        exact = [at for at, (path, _) in enumerate(leaves) if name in (_joined(path), _joined(path, "_"))]
        places += exact[:1] or [at for at, last in enumerate(lasts) if last == name and lasts.count(last) == 1]
    return [leaves[at][1] for at in places] if len(set(places)) == len(names) == len(places) else None
