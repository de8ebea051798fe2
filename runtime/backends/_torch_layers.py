"""Operators of the torch backend that compute, from ONNX's specification."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..errors import ModelError
from ..packages import need
from ._torch_common import Attributes, Function, from_input, padded


def _pads(attributes: Attributes, spatial: list[int], kernel: list[int]) -> list[int]:
    """Return begins, then ends."""
    strides = attributes.get("strides", [1] * len(kernel))
    dilations = attributes.get("dilations", [1] * len(kernel))
    kind = attributes.get("auto_pad", b"NOTSET").decode()
    if kind in ("NOTSET", "VALID"):
        return list(attributes.get("pads", [0] * 2 * len(kernel))) if kind == "NOTSET" else [0] * 2 * len(kernel)
    total = [
        max((math.ceil(size / stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        for size, stride, width, dilation in zip(spatial, strides, kernel, dilations, strict=True)
    ]
    less, more = [value // 2 for value in total], [value - value // 2 for value in total]
    return less + more if kind == "SAME_UPPER" else more + less


def _conv(attributes: Attributes) -> Function:
    def run(x: Any, weight: Any, bias: Any = None) -> Any:
        functional = need("torch").nn.functional
        kernel = list(weight.shape[2:])
        x = padded(x, _pads(attributes, list(x.shape[2:]), kernel))
        rank = len(kernel)
        convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
        return convolve(
            x, weight, bias, attributes.get("strides", [1] * rank), 0, attributes.get("dilations", [1] * rank),
            attributes.get("group", 1),
        )  # fmt: skip

    return run


def _conv_transpose(attributes: Attributes) -> Function:
    if "output_shape" in attributes or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ModelError(
            "the torch backend has no ConvTranspose with output_shape or auto_pad", do="use the backend ort"
        )

    def run(x: Any, weight: Any, bias: Any = None) -> Any:
        functional, rank = need("torch").nn.functional, weight.ndim - 2
        pads = attributes.get("pads", [0] * 2 * rank)
        convolve = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[
            rank
        ]
        y = convolve(
            x, weight, bias, attributes.get("strides", [1] * rank), 0, attributes.get("output_padding", [0] * rank),
            attributes.get("group", 1), attributes.get("dilations", [1] * rank),
        )  # fmt: skip
        return padded(y, [-pad for pad in pads])

    return run


def _pool(attributes: Attributes, average: bool) -> Function:
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", [1] * len(kernel))
    dilations = attributes.get("dilations", [1] * len(kernel))

    def run(x: Any) -> Any:
        torch, rank, sizes = need("torch"), len(kernel), list(x.shape[2:])
        pads = _pads(attributes, sizes, kernel)
        beyond = _beyond(sizes, pads, kernel, strides, dilations) if attributes.get("ceil_mode") else [0] * rank
        pads = [*pads[:rank], *(end + more for end, more in zip(pads[rank:], beyond, strict=True))]
        functional = torch.nn.functional
        if not average:
            pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
            return pool(padded(x, pads, -math.inf), kernel, strides, 0, dilations)
        pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
        inside = torch.ones_like(x[:1, :1])
        if attributes.get("count_include_pad"):
            inside = padded(inside, [*pads[:rank], *(p - b for p, b in zip(pads[rank:], beyond, strict=True))], 1.0)
            inside = padded(inside, [0] * rank + beyond)
        else:
            inside = padded(inside, pads)
        if any(dilation != 1 for dilation in dilations):
            raise ValueError("dilated average pooling is not known here")
        return pool(padded(x, pads), kernel, strides) / pool(inside, kernel, strides)

    return run


def _beyond(sizes: list[int], pads: list[int], kernel: Any, strides: Any, dilations: Any) -> list[int]:
    """Return how far the last window of ceil_mode reaches over the padded end; one that starts there does not count."""
    found, rank = [], len(sizes)
    for at, size in enumerate(sizes):
        reach = (kernel[at] - 1) * dilations[at] + 1
        count = math.ceil((size + pads[at] + pads[rank + at] - reach) / strides[at]) + 1
        if (count - 1) * strides[at] >= size + pads[at]:
            count -= 1
        found.append(max((count - 1) * strides[at] + reach - size - pads[at] - pads[rank + at], 0))
    return found


def _gemm(attributes: Attributes) -> Function:
    def run(a: Any, b: Any, c: Any = None) -> Any:
        a, b = a.T if attributes.get("transA") else a, b.T if attributes.get("transB") else b
        y = attributes.get("alpha", 1.0) * (a @ b)
        return y if c is None else y + attributes.get("beta", 1.0) * c

    return run


def _batch_norm(attributes: Attributes) -> Function:
    def run(x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
        functional = need("torch").nn.functional
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, attributes.get("epsilon", 1e-5))

    return run


def _layer_norm(attributes: Attributes) -> Function:
    def run(x: Any, scale: Any, bias: Any = None) -> Any:
        shape = x.shape[attributes.get("axis", -1) % x.ndim :]
        return need("torch").nn.functional.layer_norm(x, shape, scale, bias, attributes.get("epsilon", 1e-5))

    return run


def _lrn(attributes: Attributes) -> Function:
    def run(x: Any) -> Any:
        size = attributes["size"]
        squared = need("torch").nn.functional.pad(x * x, [0, 0, 0, 0, (size - 1) // 2, size // 2])
        total = squared.unfold(1, size, 1).sum(-1)
        base = attributes.get("bias", 1.0) + attributes.get("alpha", 1e-4) / size * total
        return x / base ** attributes.get("beta", 0.75)

    return run


def _clip(attributes: Attributes) -> Function:
    def run(x: Any, low: Any = None, high: Any = None) -> Any:
        low = attributes.get("min") if low is None else low.to(x.device)
        high = attributes.get("max") if high is None else high.to(x.device)
        return x if low is None and high is None else need("torch").clamp(x, low, high)

    return run


def _softmax(attributes: Attributes) -> Function:
    new = attributes["opset"] >= 13
    axis = attributes.get("axis", -1 if new else 1)

    def run(x: Any) -> Any:
        softmax = need("torch").softmax
        # Until opset 13 all dimensions from the axis on were one.
        return softmax(x, axis) if new else softmax(x.flatten(axis % x.ndim), -1).reshape(x.shape)

    return run


def _gelu(attributes: Attributes) -> Function:
    kind = attributes.get("approximate", b"none").decode()
    return lambda x: need("torch").nn.functional.gelu(x, approximate=kind)


def _along(parameter: Any, axis: int, rank: int) -> Any:
    return (
        parameter.reshape([-1 if at == axis % rank else 1 for at in range(rank)]) if parameter.ndim == 1 else parameter
    )


def _quantize(attributes: Attributes) -> Function:
    def run(x: Any, scale: Any, zero: Any = None) -> Any:
        torch, axis = need("torch"), attributes.get("axis", 1)
        kind = torch.uint8 if zero is None else zero.dtype
        limits = torch.iinfo(kind)
        shift = 0 if zero is None else _along(zero, axis, x.ndim).float()
        # Rounds half to even, as the specification asks.
        rounded = torch.round(x.float() / _along(scale, axis, x.ndim).float()) + shift
        return rounded.clamp(limits.min, limits.max).to(kind)

    return run


def _dequantize(attributes: Attributes) -> Function:
    def run(x: Any, scale: Any, zero: Any = None) -> Any:
        axis = attributes.get("axis", 1)
        shift = 0 if zero is None else _along(zero, axis, x.ndim).to(scale.dtype)
        return (x.to(scale.dtype) - shift) * _along(scale, axis, x.ndim)

    return run


def _reduce(name: str) -> Callable[[Attributes], Function]:
    def make(attributes: Attributes) -> Function:
        def run(x: Any, axes: Any = None) -> Any:
            wanted = from_input(attributes, "axes", axes)
            if not wanted and attributes.get("noop_with_empty_axes"):
                return x
            return getattr(need("torch"), name)(x, wanted or list(range(x.ndim)), bool(attributes.get("keepdims", 1)))

        return run

    return make


def _plain(function: Callable[..., Any]) -> Callable[[Attributes], Function]:
    """Wrap a function of torch and the inputs, for operators without attributes."""
    return lambda attributes: lambda *inputs: function(need("torch"), *inputs)


def _chain(name: str) -> Callable[[Attributes], Function]:
    """Wrap a function of two tensors, for operators that take any number of them."""
    return lambda attributes: lambda *parts: functools.reduce(getattr(need("torch"), name), parts)


def _integer_or_true(torch: Any, a: Any, b: Any) -> Any:
    """Divide; integers towards zero."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _activation(name: str, **defaults: float) -> Callable[[Attributes], Function]:
    """Wrap a function of torch.nn.functional whose parameters are the attributes of the operator."""

    def make(attributes: Attributes) -> Function:
        values = {key: attributes.get(key, value) for key, value in defaults.items()}
        return lambda x: getattr(need("torch").nn.functional, name)(x, *values.values())

    return make


def _hard_sigmoid(attributes: Attributes) -> Function:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0, 1)


TABLE: dict[str, Callable[[Attributes], Function]] = {
    "Abs": _plain(lambda torch, x: x.abs()),
    "Add": _plain(lambda torch, a, b: a + b),
    "AveragePool": lambda attributes: _pool(attributes, True),
    "BatchNormalization": _batch_norm,
    "CastLike": _plain(lambda torch, x, like: x.to(like.dtype)),
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize,
    "Div": _plain(_integer_or_true),
    "Dropout": _plain(lambda torch, x, *rest: x),
    "Elu": _activation("elu", alpha=1.0),
    "Erf": _plain(lambda torch, x: torch.erf(x)),
    "Exp": _plain(lambda torch, x: x.exp()),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(lambda torch, x: x.mean(list(range(2, x.ndim)), keepdim=True)),
    "GlobalMaxPool": _plain(lambda torch, x: x.amax(list(range(2, x.ndim)), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(lambda torch, x: torch.nn.functional.hardswish(x)),
    "Identity": _plain(lambda torch, x: x),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _activation("leaky_relu", alpha=0.01),
    "LRN": _lrn,
    "MatMul": _plain(lambda torch, a, b: a @ b),
    "Max": _chain("maximum"),
    "MaxPool": lambda attributes: _pool(attributes, False),
    "Min": _chain("minimum"),
    "Mul": _plain(lambda torch, a, b: a * b),
    "Neg": _plain(lambda torch, x: -x),
    "Pow": _plain(lambda torch, x, power: x**power),
    "PRelu": _plain(lambda torch, x, slope: torch.where(x < 0, slope * x, x)),
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduce("amax"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Relu": _plain(lambda torch, x: x.relu()),
    "Sigmoid": _plain(lambda torch, x: x.sigmoid()),
    "Softmax": _softmax,
    "Softplus": _plain(lambda torch, x: torch.nn.functional.softplus(x)),
    "Sqrt": _plain(lambda torch, x: x.sqrt()),
    "Sub": _plain(lambda torch, a, b: a - b),
    "Sum": _chain("add"),
    "Tanh": _plain(lambda torch, x: x.tanh()),
}
