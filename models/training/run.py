"""One training run between two epochs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .augment import augment
from .batches import Batches, black
from .optimizers import groups, scheduler
from .recipes import Recipe


class TrainingRun:
    """One training run between two epochs; `Keeper` writes and restores its state."""

    def __init__(
        self,
        module: nn.Module,
        feed: Batches,
        validation: Batches | None,
        recipe: Recipe,
        seed: int,
        device: torch.device,
    ) -> None:
        self.module, self.feed, self.validation, self.recipe, self.device = module, feed, validation, recipe, device
        self.mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()  # needs no scaling of the loss
        self.steps = -(-len(feed) // recipe.batch)
        parameters = groups(module, recipe)
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, recipe.lr)
            if recipe.optimizer == "adamw"
            else torch.optim.SGD(parameters, recipe.lr, momentum=0.9)
        )
        self.scheduler = scheduler(self.optimizer, recipe, self.steps)
        self.generator = torch.Generator().manual_seed(seed)
        self.black = black(feed.spec)
        self.average = self._copy() if recipe.ema else None
        self.best: dict[str, torch.Tensor] | None = None
        self.best_loss, self.since_best, self.epoch = float("inf"), 0, 0
        self.history: list[dict[str, float]] = []

    @property
    def exhausted(self) -> bool:
        """Whether the patience is exhausted."""
        return 0 < self.recipe.patience <= self.since_best

    def one_epoch(self) -> dict[str, float]:
        """Train one epoch."""
        began, total = time.perf_counter(), 0.0
        self._mode()
        for x, y in self._batches():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                loss = self.feed.objective.loss(self.module(x), y, self.recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.recipe.schedule == "onecycle":
                self.scheduler.step()
            self._average()
            total += loss.item() * len(y)
        self.epoch += 1
        row = {"epoch": float(self.epoch), "loss": total / len(self.feed), "lr": self.scheduler.get_last_lr()[-1]}
        row |= self._validate()
        row["seconds"] = time.perf_counter() - began
        self.history.append(row)
        return row

    def settle(self) -> None:
        """Load the averaged or the best weights into the module."""
        chosen = self.best if self.best is not None else self.average
        if chosen is not None:
            self.module.load_state_dict(chosen)

    def _mode(self) -> None:
        """Set training mode; with frozen features only for the trained layers, so that batch norm is frozen too."""
        self.module.train(not self.recipe.freeze)

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        small = self.epoch < round(self.recipe.small * self.recipe.epochs)
        order = torch.randperm(len(self.feed), generator=self.generator)
        for chosen in order.chunk(self.steps):
            x, y = self.feed.batch(chosen)
            x = augment(x, self.black, self.recipe.augment, self.generator)
            if small:
                x = F.interpolate(x, scale_factor=self.recipe.small_side, mode="bilinear", antialias=True)
            yield x.to(self.device, memory_format=torch.channels_last), y.to(self.device)

    def _average(self) -> None:
        if self.average is None:
            return
        for key, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - self.recipe.ema)
            else:
                self.average[key].copy_(value)

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        loss = mean_loss(self.module, self.validation, self.device)
        self.since_best += 1
        if loss < self.best_loss:
            self.best_loss, self.since_best = loss, 0
            self.best = self._copy()
        if self.recipe.schedule == "plateau":
            self.scheduler.step(loss)
        return {"val_loss": loss}

    def _copy(self) -> dict[str, torch.Tensor]:
        return {key: value.detach().clone() for key, value in self.module.state_dict().items()}


def mean_loss(module: nn.Module, feed: Batches, device: torch.device) -> float:
    """Return the mean loss in eval mode."""
    module.eval()
    with torch.inference_mode():
        losses = [len(y) * feed.objective.loss(module(x.to(device)), y.to(device), 0.0).item() for x, y in feed.all()]
    return sum(losses) / len(feed)
