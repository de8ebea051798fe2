"""Reading and writing weights without executing code from the file: safetensors, or a .pth with `weights_only=True`."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.common.files import atomic_file, existing_file
from ..runtime.errors import ModelError
from ..runtime.spec import SPEC_KEY, ModelSpec

if TYPE_CHECKING:
    import torch

_LONGEST_HEADER = 100_000_000
_SHOWN = 5


def checkpoint_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata of a .safetensors file; only the standard library is needed.

    Raises:
        UsageError: There is no such file.
        ModelError: It is not a safetensors file.
    """
    path = existing_file(path, "checkpoint")
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_LONGEST_HEADER, path.stat().st_size):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        return {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    except (ValueError, struct.error, AttributeError, RecursionError) as error:
        raise _broken(path, error) from error


def checkpoint_spec(path: str | Path) -> ModelSpec | None:
    """Return the ModelSpec in the metadata of a checkpoint of Edgesmith; None for other checkpoints."""
    if Path(path).suffix != ".safetensors":
        return None
    text = checkpoint_metadata(path).get(SPEC_KEY)
    return ModelSpec.from_json(text) if text else None


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict.

    Args:
        path: .safetensors, or .pth / .pt with a state dict (or one under "state_dict" or "model").

    Returns:
        Key to tensor, on the CPU, in the dtypes of the file.

    Raises:
        UsageError: There is no such file.
        ModelError: It is damaged, has entries that are not tensors, or is a pickle with code.
    """
    import torch

    path = existing_file(path, "checkpoint")
    if path.suffix == ".safetensors":
        checkpoint_metadata(path)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors: dict[str, torch.Tensor] = load_file(path)
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise _broken(path, error) from error
        return _plain(path, tensors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for a damaged file the unpickler may raise any exception
        raise _broken(path, error) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path} holds no state dict", got=type(state).__name__, expected="keys and tensors")
    return _plain(path, state)


def _plain(path: Path, state: Mapping[Any, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors by their keys as strings, if all are dense tensors of real numbers."""
    import torch

    for key, value in state.items():
        odd = {
            "a sparse": value.layout != torch.strided, "a quantised": value.is_quantized, "an empty": value.is_meta,
            "a complex": value.is_complex(),
        }  # fmt: skip
        if what := next((name for name, is_so in odd.items() if is_so), ""):
            raise ModelError(f"{path} holds {what} tensor", got=str(key)[:200], expected="dense tensors of numbers")
    return {str(key): value for key, value in state.items()}


def write_checkpoint(
    path: str | Path, state: Mapping[str, torch.Tensor], notes: Mapping[str, str], half: bool = False
) -> None:
    """Write a .safetensors file; it is written completely or not at all.

    Args:
        path: The file.
        state: Key to tensor.
        notes: Metadata, string to string.
        half: Store tensors with two or more axes as float16.
    """
    import torch
    from safetensors.torch import save_file

    kept = {
        key: value.detach().to("cpu", torch.float16 if half and value.dim() > 1 else value.dtype).contiguous().clone()
        for key, value in state.items()
    }
    with atomic_file(path) as temporary:
        save_file(kept, temporary, metadata=dict(notes))
        _settle(temporary)


def _settle(file: Path) -> None:
    """Sort the metadata, which safetensors writes in a random order, so that equal weights give equal files."""
    with file.open("r+b") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            stream.seek(8)
            stream.write(text.ljust(length))


def load_checkpoint(
    module: torch.nn.Module, state: Mapping[str, torch.Tensor], origin: str,
    suggest: Callable[[Mapping[str, torch.Tensor]], str] = lambda state: "",
) -> None:  # fmt: skip
    """Copy a state dict into a module: all of it, or nothing.

    Args:
        module: Changed in place; floating-point tensors take the module's dtype. Its `new_key`, if it has one, returns
            the key of today for one of an earlier layout.
        state: Key to tensor; a missing `num_batches_tracked` (written by old versions of PyTorch) is allowed.
        origin: Its name in the error.
        suggest: Returns the network that matches a state dict (`nearest.nearest_network`); "" if none does.

    Raises:
        ModelError: Keys are missing, unexpected or of the wrong shape; all three lists are in the message.
    """
    own, original = module.state_dict(), state
    new_key: Callable[[str], str] = getattr(module, "new_key", str)
    state = {key if key in own else new_key(key): value for key, value in state.items()}
    state = {**{key: value for key, value in own.items() if key.endswith("num_batches_tracked")}, **state}
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        lists = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
        raise ModelError(
            f"{origin} does not fit the network; nothing was loaded",
            got="; ".join(_listed(title, keys) for title, keys in lists),
            expected=f"the {len(own)} keys of {type(module).__name__}",
            do=suggest(original) or "check the model's name, its width and its number of classes",
        )
    module.load_state_dict(dict(state))


def _listed(title: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {title}" + (f" ({', '.join(keys[:_SHOWN])}{more})" if keys else "")


def _broken(path: Path, error: Exception) -> ModelError:
    text = " ".join(str(error).split())
    if "weights_only" in text or "Unsupported global" in text or "WeightsUnpickler" in text:
        return ModelError(
            f"{path} was refused: it is a pickle that holds more than tensors, and loading it could run code",
            expected="a .safetensors file, or a .pth with a plain state dict",
            do="convert it where you trust it: safetensors.torch.save_file(model.state_dict(), ...)",
        )
    return ModelError(
        f"{path} is not a checkpoint that can be read",
        got=f"{type(error).__name__}: {text[:160]}",
        expected=".safetensors, or .pth with a state dict",
        do="fetch or make it again",
    )
