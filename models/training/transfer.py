"""Transfer learning: start from the weights of a checkpoint, or use its features unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...runtime.common.plugins import did_you_mean
from ...runtime.errors import UsageError
from ...runtime.spec import ModelSpec
from .. import catalog, checkpoints
from ..nearest import nearest_network


def start_from(module: nn.Module, start: str | Path, backbone: str = "") -> nn.Module:
    """Load the weights of a checkpoint, except for layers whose shape depends on the number of classes.

    Args:
        module: Changed in place.
        start: "random" changes nothing; otherwise a checkpoint, of the network or of its backbone.
        backbone: The network that `module.backbone.features` is; "" if it has none.

    Raises:
        UsageError: There is no such file.
        ModelError: More than the last layer of a head does not match the checkpoint; nothing was loaded.
    """
    if str(start) == "random":
        return module
    spec = checkpoints.checkpoint_spec(start)
    if spec and spec.name == backbone:
        return _with_backbone(module, start, spec)
    state, own = checkpoints.read_checkpoint(start), module.state_dict()
    heads = {name.rpartition(".")[0] for name, value in own.items() if value.dim() == 2}
    for key, value in own.items():
        if key in state and state[key].shape != value.shape and key.rpartition(".")[0] in heads:
            state[key] = value
    checkpoints.load_checkpoint(module, state, str(start), nearest_network)
    return module


def _with_backbone(module: nn.Module, start: str | Path, spec: ModelSpec) -> nn.Module:
    """Load the layers of a classifier into the backbone, which has them in the same order under other names."""
    source: Any = catalog.build_network(spec.name, spec.num_classes)
    checkpoints.load_checkpoint(source, checkpoints.read_checkpoint(start), str(start))
    target: Any = module.backbone
    pairs = zip(target.features.state_dict(), source.features.state_dict().values(), strict=True)
    target.features.load_state_dict(dict(pairs))
    return module


def feature_extractor(module: nn.Module, layer: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from images to the activations of one layer: off-the-shelf features.

    Args:
        module: Any network; it is switched to eval mode.
        layer: A name in `module.named_modules()`, such as "layer3.0.conv1".

    Returns:
        A function: float32 (N, C, H, W) to the layer's output, without gradients.

    Raises:
        UsageError: No such layer; the message suggests the nearest name.
    """
    layers = dict(module.named_modules())
    if layer not in layers or not layer:
        raise UsageError(f"unknown layer {layer!r}", do=did_you_mean(layer, layers) or "see `edgesmith describe`")

    def extract(x: torch.Tensor) -> torch.Tensor:
        activations: list[torch.Tensor] = []

        def keep(_: nn.Module, __: Any, out: torch.Tensor) -> None:
            activations.append(out.detach().clone())

        module.eval()
        handle = layers[layer].register_forward_hook(keep)
        try:
            with torch.inference_mode():
                module(x)
        finally:
            handle.remove()
        return activations[-1]

    return extract
