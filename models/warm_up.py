"""Batch norm of a network with random weights, set so that what comes out of it is neither constant nor infinite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def warm_up_batchnorm(module: torch.nn.Module, input_shape: tuple[int, ...]) -> None:
    """Set batch norm statistics to nine tenths of those of four inputs of noise; the module is left in eval mode.

    With its initial statistics batch norm has no effect in eval mode, so the activations of a deep network vanish or
    explode and exceed FP16's range. One tenth of the initial variance of 1 is kept: the variance of a few values may be
    almost zero, and a division by it would amplify rounding errors.
    """
    import torch

    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.9
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module.train()(torch.randn(4, *input_shape))
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum
    module.eval()
