"""The table of `runtime/common/complexity.py` for any torch module: it is run once on meta tensors.

Each operation that PyTorch dispatches is recorded with its module, so functional calls, branches and shared layers are
recorded correctly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..runtime.common.complexity import Complexity, Op, summarise
from ..runtime.errors import ModelError
from . import catalog

_VIEWS = (
    "view _unsafe_view reshape flatten permute transpose t expand slice split chunk select squeeze unsqueeze unbind "
    "alias detach narrow split_with_sizes as_strided lift_fresh unfold"
)
_ACTS = (
    "relu hardtanh sigmoid tanh silu gelu elu leaky_relu hardswish hardsigmoid _softmax _log_softmax clamp softplus "
    "mish prelu"
)
_KINDS = {
    "conv": "convolution",
    "pool": "max_pool1d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d",
    "global": "mean _adaptive_avg_pool2d _adaptive_avg_pool3d",
    "linear": "addmm mm",
    "matmul": "bmm baddbmm",
    "norm": "native_batch_norm cudnn_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "native_layer_norm native_group_norm",
    "dropout": "native_dropout",
    "concat": "cat",
    "pad": "constant_pad_nd",
    "view": _VIEWS,
    "act": _ACTS,
}
_KIND = {operation: kind for kind, operations in _KINDS.items() for operation in operations.split()}


def describe_network(
    name: str, input_shape: tuple[int, ...] | None = None, num_classes: int | None = None
) -> Complexity:
    """Describe a network of the catalogue; it is built without allocating its weights.

    Raises:
        UsageError: No such network.
        ModelError: It does not run on such an input.
    """
    entry = catalog.find_network(name)
    with torch.device("meta"):
        module = catalog.build_network(name, num_classes or entry.classes)
    return analyse_module(module, input_shape or entry.input_shape, entry.name)


def analyse_module(module: nn.Module, input_shape: tuple[int, ...], title: str = "") -> Complexity:
    """Describe any module in eval mode; its mode is restored.

    Args:
        module: Takes one float32 tensor of shape (1, *input_shape).
        input_shape: Without the batch.
        title: The table's title.

    Raises:
        ModelError: The module does not run on such an input.
    """
    was_training = module.training
    module.eval()
    recorder = _Recorder(module)
    try:
        ops, source = recorder.run(input_shape)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{title or type(module).__name__} does not run on {input_shape}", got=reason, do="try another input size"
        ) from error
    finally:
        module.train(was_training)
    params = sum(parameter.numel() for parameter in module.parameters())
    return summarise(f"{title or type(module).__name__}, input {_x(input_shape)}", ops, {source: input_shape}, params)


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Recorder of operations; a value's name is its number, and tensors are kept alive so that ids stay unique."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module = module
        self.weights = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self.values: dict[int, str] = {}
        self.alive: list[Any] = []
        self.ops: list[Op] = []
        self.stack: list[str] = []
        self.counted: set[int] = set()

    def run(self, input_shape: tuple[int, ...]) -> tuple[list[Op], str]:
        """Run the module once and return its operations and the input's name."""
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        device = next((tensor.device for tensor in (*self.module.parameters(), *self.module.buffers())), "cpu")
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stack.enter_context(self._names())
            stack.enter_context(torch.no_grad())
            stack.enter_context(fake)
            x = torch.empty(1, *input_shape, device=device)
            source = self._remember(x)
            with self:
                self.module(x)
        return self.ops, source

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.__name__.split(".")[0].rstrip("_")
        tensors = [value for value in _flat((args, kwargs)) if isinstance(value, torch.Tensor)]
        inputs = [tensor for tensor in tensors if id(tensor) in self.values]
        results = [value for value in _flat(out) if isinstance(value, torch.Tensor)]
        if not inputs:
            self._derive(tensors, results)
            return out
        read = tuple(self.values[id(tensor)] for tensor in inputs)
        for value in results if _KIND.get(name) == "view" else results[:1]:
            self._write(name, args, inputs, read, value, tensors)
        return out

    def _write(
        self, name: str, args: Any, inputs: list[torch.Tensor], read: tuple[str, ...], out: torch.Tensor, tensors: Any
    ) -> None:
        kind = _KIND.get(name, name)
        shape, shapes = tuple(out.shape[1:]), tuple(tuple(tensor.shape[1:]) for tensor in inputs)
        weights = [self.weights[id(tensor)] for tensor in tensors if id(tensor) in self.weights]
        params = sum(tensor.numel() for tensor in weights if self._new(tensor))
        facts: dict[str, Any] = {"params": params, "view": kind == "view"}
        if kind == "conv":
            facts |= _convolution(args, out)
        elif kind == "pool":
            facts |= _pool(args, len(shape) - 1)
        elif kind == "pad":
            facts |= _padding(args, len(shape) - 1)
        elif kind in ("linear", "matmul"):
            kind, facts["macs"] = _product(name, inputs, weights, args, out)
        kind = facts.pop("kind", kind)
        where = next((label for label in reversed(self.stack) if label), "") or name
        self.ops.append(Op(where, kind, read, self._remember(out), shapes, shape, **facts))

    def _derive(self, tensors: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Treat a value computed only from a weight (for example its transpose) as the weight."""
        sources = [self.weights[id(tensor)] for tensor in tensors if id(tensor) in self.weights]
        if sources:
            self.weights |= {id(value): sources[0] for value in results}
            self.alive += results

    def _new(self, tensor: torch.Tensor) -> bool:
        """Return whether a parameter is used for the first time; buffers do not count."""
        if not isinstance(tensor, nn.Parameter) or id(tensor) in self.counted:
            return False
        self.counted.add(id(tensor))
        return True

    def _remember(self, tensor: torch.Tensor) -> str:
        self.alive.append(tensor)
        self.values[id(tensor)] = f"v{len(self.alive)}"
        return self.values[id(tensor)]

    @contextmanager
    def _names(self) -> Iterator[None]:
        """Keep the name of the running module on top of `stack`."""

        def enter(label: str) -> Callable[..., None]:
            return lambda module, args: self.stack.append(label)

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            self.stack.pop()

        handles = []
        for label, layer in self.module.named_modules():
            handles += [layer.register_forward_pre_hook(enter(label)), layer.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value


def _convolution(args: Any, out: torch.Tensor) -> dict[str, Any]:
    x, weight, _, stride, pad, dilation, transposed, _, groups = args[:9]
    kernel = tuple(weight.shape[2:])
    per_output = weight[0].numel()
    places = math.prod(x.shape[2:]) * x.shape[1] if transposed else math.prod(out.shape[2:]) * out.shape[1]
    return {
        "kind": "deconv" if transposed else "conv",
        "kernel": kernel,
        "stride": tuple(stride),
        "pad": tuple(pad),
        "dilation": tuple(dilation),
        "groups": groups,
        "macs": places * per_output,
    }


def _pool(args: Any, dims: int) -> dict[str, Any]:
    def each(value: Any) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        return values * dims if len(values) == 1 else values

    kernel = each(args[1])
    stride = each(args[2]) if len(args) > 2 and args[2] else kernel
    pad = each(args[3]) if len(args) > 3 else (0,) * dims
    return {"kernel": kernel, "stride": stride, "pad": pad, "dilation": (1,) * dims}


def _padding(args: Any, dims: int) -> dict[str, Any]:
    """Record padding as a window of one pixel before the edge; `args[1]`: (before, after) per axis, last first."""
    before = [*args[1][::2], *[0] * dims][:dims]
    return {"kernel": (1,) * dims, "stride": (1,) * dims, "pad": tuple(reversed(before)), "dilation": (1,) * dims}


def _product(
    name: str, inputs: list[torch.Tensor], weights: list[torch.Tensor], args: Any, out: torch.Tensor
) -> tuple[str, int]:
    left = args[1] if name in ("addmm", "baddbmm") else args[0]
    return ("linear" if weights else "matmul"), out.numel() * left.shape[-1]
