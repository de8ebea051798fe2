"""Facts of a `torch.nn.Module`: from a package's configuration, and from a call of the module."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...runtime.common.packages import need
from ...runtime.common.sizes import parse_sizes
from ...runtime.errors import UsageError
from ...runtime.spec import InputSpec
from ..outputs import named_leaves
from .facts import GUESS, Facts, add_decoder
from .input_ranges import Dims, gather_ranges, settle_ranges

if TYPE_CHECKING:
    import torch

SIDE = 224  # pixels, the default


def add_timm_config(config: Any, origin: str, facts: Facts) -> None:
    """Add the facts of timm's `pretrained_cfg`, which timm's networks have, and its folders in config.json."""
    if not isinstance(config, Mapping) or len(config.get("input_size") or ()) != 3:
        return
    _, height, width = config["input_size"]
    crop = config.get("crop_pct") or 1.0
    stretched = config.get("crop_mode") == "squash"
    labels = config.get("label_names") or None
    facts.add(
        origin, size=(height, width), interpolation=config.get("interpolation"),
        mean=_numbers(config.get("mean")), std=_numbers(config.get("std")),
        resize=0 if stretched else int(min(height, width) / crop),
        labels=tuple(labels) if labels else None,
    )  # fmt: skip


def _numbers(values: Any) -> tuple[float, ...] | None:
    return tuple(map(float, values)) if values else None


def add_called(
    module: torch.nn.Module, facts: Facts, shapes: str, inputs: list[InputSpec] | None = None
) -> None:  # fmt: skip
    """Call the module once on zeros, and add the shapes of its inputs and what it returns.

    Args:
        module: In eval mode; it is not changed.
        facts: Added to.
        shapes: Sizes of inputs with the batch, as `--shape` has them; by the names of `forward`'s arguments.
        inputs: Those of the module, where they are known.

    Raises:
        UsageError: The module cannot compute an input of this shape.
    """
    torch = need("torch")
    inputs = inputs or _inputs(module, facts, shapes)
    examples = [torch.zeros(1, *one.shape, dtype=getattr(torch, one.dtype)) for one in inputs]
    try:
        with torch.no_grad():
            outputs = module(*examples)
    except Exception as error:
        got = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        shown = ", ".join(f"{one.name} {(1, *one.shape)}" for one in inputs)
        do = "give --size 320, or --shape 1x3x320x320; --shape a=1x3x32x32,b=1x4 for several inputs"
        raise UsageError(f"the network cannot compute {shown}", got=got, do=do) from error
    first, *others = inputs
    layout = {3: "NCHW", 2: "NCT", 4: "NCDHW"}.get(len(first.shape))
    _add_ranges(inputs, layout or "", facts)
    facts.confirm("the module", input_name=first.name, shape=first.shape, dtype=first.dtype,
                  **({"layout": layout} if layout else {}))  # fmt: skip
    facts.add("the module", other_inputs=tuple(others) or None)
    leaves = named_leaves(outputs)
    if len(facts.get("output_names", leaves)) != len(leaves):
        got, expected = ", ".join(facts.get("output_names")), ", ".join(leaves)
        raise UsageError(f"the network returns {len(leaves)} tensors", got=f"names {got}", expected=expected)
    facts.add("the module", output_names=tuple(leaves))
    shape = tuple(next(iter(leaves.values())).shape) if leaves else ()
    if len(shape) == 2 and shape[1] > 1 and len(leaves) == 1 and facts.has_image:
        facts.add(f"{GUESS}: the output is (N, {shape[1]})", task="classify", num_classes=shape[1])
    add_decoder(facts, {name: list(value.shape) for name, value in leaves.items()})
    facts.add(f"{GUESS}: nothing is known of the outputs", task="features")


def _add_ranges(inputs: list[InputSpec], layout: str, facts: Facts) -> None:
    facts.ranges = gather_ranges(facts, inputs[0].name, layout)
    shapes: dict[str, Dims] = {one.name: (1, *one.shape) for one in inputs}
    settle_ranges(facts.ranges, shapes, {name: ("",) * len(shape) for name, shape in shapes.items()})


def _inputs(module: torch.nn.Module, facts: Facts, shapes: str) -> list[InputSpec]:
    arguments = [
        name for name, one in inspect.signature(module.forward).parameters.items()
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    sizes = parse_sizes(shapes)
    if sizes:
        names = [name or "input" for name in sizes]
        if len(names) > 1 and (unknown := [name for name in names if name not in arguments]):
            expected = ", ".join(arguments) or "arguments that forward has"
            raise UsageError("--shape names no input", got=", ".join(unknown), expected=expected)
        order = sorted(sizes, key=lambda name: arguments.index(name) if name in arguments else 0)
        return [InputSpec(name or "input", sizes[name][1:]) for name in order]
    if len(arguments) > 1:
        do = f"give --shape {','.join(f'{name}=SIZES' for name in arguments)}"
        raise UsageError("the network has several inputs", got=", ".join(arguments), expected="a shape for each", do=do)
    return [InputSpec(facts.get("input_name", "input"), (_colours(module), *_size(facts)))]


def _size(facts: Facts) -> tuple[int, int]:
    if "height" in facts or "width" in facts:
        sides = [facts.get(word).middle if word in facts else SIDE for word in ("height", "width")]
        facts.add(f"{GUESS}: the middle of the range", size=tuple(sides))
    facts.add(GUESS, size=(SIDE, SIDE))
    height, width = facts.get("size")
    return int(height), int(width)


def _colours(module: torch.nn.Module) -> int:
    """Return the input channels of the first convolution; 3 if there is none."""
    convolution = need("torch").nn.Conv2d
    return next((int(layer.in_channels) for layer in module.modules() if isinstance(layer, convolution)), 3)


def warm_up(module: Any, facts: Facts) -> None:
    """Adjust the batch norms of a network with random weights on noise; otherwise a deep one has constant output."""
    from ...models.weights import warm_up_batchnorm

    if "other_inputs" not in facts:
        warm_up_batchnorm(module, tuple(facts.get("shape")))
