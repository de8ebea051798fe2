"""A network from a file of `torch.export.save`: a graph that torch captured, with its weights and input shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.common.packages import need
from ...runtime.errors import ModelError, UsageError
from ...runtime.spec import DTYPES, InputSpec

if TYPE_CHECKING:
    import torch


def load(path: Path, arguments: Mapping[str, Any]) -> tuple[torch.nn.Module, list[InputSpec]]:
    """Return the program as a module in eval mode, and its inputs.

    Raises:
        UsageError: It takes arguments by keyword, something else than tensors, or `arguments` were given.
        ModelError: torch cannot read the file.
    """
    torch = need("torch")
    if arguments:
        raise UsageError("a captured program takes no arguments", got=", ".join(arguments), do="leave --arg out")
    try:
        program = torch.export.load(path)
    except Exception as error:
        got = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        do = "write it with torch.export.save(torch.export.export(module, example), path)"
        raise ModelError(f"torch cannot read {path}", got=got, do=do) from error
    examples, keywords = program.example_inputs or ((), {})
    tensors = [one for one in examples if isinstance(one, torch.Tensor) and one.ndim]
    if keywords or not tensors or len(tensors) < len(examples):
        got = ", ".join([*(type(one).__name__ for one in examples), *keywords]) or "no inputs"
        raise UsageError(f"the inputs of {path} cannot be fed", got=got, expected="tensors with a batch, by place")
    inputs = [
        InputSpec(name, tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in zip(program.graph_signature.user_inputs, tensors, strict=True)
    ]
    if odd := next((one for one in inputs if one.dtype not in DTYPES), None):
        raise UsageError(f"the input {odd.name!r} of {path} has a type that cannot be fed", got=odd.dtype)
    return _fixed(program.module()), inputs


def _fixed(inner: torch.nn.Module) -> torch.nn.Module:
    """Return a module that computes what a captured one does, and takes `eval()`, which that one refuses."""

    class CapturedProgram(need("torch").nn.Module):  # type: ignore[misc]  # torch is imported when it is used
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *inputs: Any) -> Any:
            return self.inner(*inputs)

        def train(self, mode: bool = True) -> Any:
            self.training = mode
            return self

    module: torch.nn.Module = CapturedProgram()
    return module.eval()
