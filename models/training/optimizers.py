"""Parameter groups and learning-rate schedules of a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .recipes import Recipe


def groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return parameter groups: weight decay on matrices and kernels only, lower layers at lower learning rates.

    With `recipe.freeze` only the last layer with weights requires gradients. With `recipe.lower_lr` below 1
    the layers, in the order of the network, fall into thirds: `lower_lr` squared, `lower_lr`, 1; the last layer is
    always in the top third.
    """
    owners = [layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))]
    last = next(layer for layer in reversed(owners) if isinstance(layer, nn.Linear | nn.Conv2d))
    by_setting: dict[tuple[float, float], list[nn.Parameter]] = {}
    for index, layer in enumerate(owners):
        third = 2 if layer is last else 3 * index // len(owners)
        factor = recipe.lower_lr ** (2 - third)
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(not recipe.freeze or layer is last)
            if parameter.requires_grad:
                decay = recipe.weight_decay if parameter.dim() > 1 else 0.0
                by_setting.setdefault((factor, decay), []).append(parameter)
    ordered = sorted(by_setting.items(), key=lambda item: item[0])
    return [{"params": own, "lr": recipe.lr * factor, "weight_decay": decay} for (factor, decay), own in ordered]


def scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    """Return the schedule: one-cycle over all steps, division by 10 on a plateau of the validation loss, or none."""
    rates = [group["lr"] for group in optimizer.param_groups]
    if recipe.schedule == "onecycle":
        total = max(3, recipe.epochs * steps)
        rise = max(0.15, 1.5 / total)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=total, pct_start=rise, div_factor=10)
    if recipe.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, total_iters=0)
