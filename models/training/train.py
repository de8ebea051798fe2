"""Training, as the lectures teach it: one loop over whole-tensor batches, deterministic for a seed and thread count.

    images ─ preprocess ─▶ one tensor ─ augment ─▶ network ─ cross entropy ─▶ AdamW or SGD, one-cycle or plateau

After each epoch everything that the next one depends on can be kept in one file, so that a killed run continues as if
nothing had happened: equal bit for bit on one thread.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...runtime import datasets
from ...runtime.spec import ModelSpec
from .. import catalog
from .augment import augment
from .batches import Feed, black
from .optimizers import groups, scheduler
from .recipes import Recipe, check, find
from .run_state import Keeper

Say = Callable[[dict[str, float]], None]
AUX_WEIGHT = 0.3  # of each auxiliary classifier's loss (GoogLeNet, Inception)


@dataclass(frozen=True)
class TrainResult:
    """What training came to: accuracies in per cent, times in seconds, one dictionary for each epoch."""

    spec: ModelSpec
    module: nn.Module = field(repr=False)
    top1_percent: dict[str, float]
    seconds: float
    history: tuple[dict[str, float], ...]
    recipe: Recipe
    data_digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return all of it but the module as plain values."""
        return {
            "model": self.spec.name,
            "top1_percent": self.top1_percent,
            "seconds": self.seconds,
            "epochs": len(self.history),
            "history": list(self.history),
            "recipe": dataclasses.asdict(self.recipe),
            "data_digest": self.data_digest,
        }


def train(
    name: str,
    data: str = "digits",
    *,
    recipe: Recipe | str = "onecycle",
    seed: int = 0,
    start: str | Path = "random",
    keep: Path | None = None,
    resume: bool = False,
    say: Say = lambda row: None,
) -> TrainResult:
    """Train a network on the embedded digits or a folder of images.

    Args:
        name: A variant of the catalogue.
        data: "digits", or a folder as `runtime.datasets.load` takes it.
        recipe: A recipe, or the name of one.
        seed: Of the weights, the order of the images and their changes.
        start: "random", or a checkpoint to start from; its last layer may have another number of classes.
        keep: A file that holds the state of the run after each epoch.
        resume: Continue from `keep`.
        say: Called with one dictionary after each epoch.

    Returns:
        The trained module in eval mode, with its accuracy on the test and hard splits.

    Raises:
        UsageError: An unknown name, recipe or data; `resume` with nothing to resume.
        DataError: The images cannot be used; each bad one is named before training starts.
        ModelError: The checkpoint cannot be used.
    """
    from .transfer import begin

    recipe = check(find(recipe) if isinstance(recipe, str) else recipe)
    if catalog.find(name).row.get("fixed"):
        recipe = dataclasses.replace(recipe, small=0.0)
    whole = datasets.load(data, "train")
    spec = catalog.spec(name, "digits" if data == "digits" else "random")
    spec = dataclasses.replace(spec, num_classes=len(whole.classes), labels=whole.classes, weights=data)
    torch.manual_seed(seed)
    module = begin(catalog.build(name, len(whole.classes)), start)
    feed = Feed.of(whole, spec)
    splits = ("test", "hard") if data == "digits" else ("test",)
    judges = {split: Feed.of(datasets.load(data, split), spec) for split in splits}
    began = time.perf_counter()
    history = fit(module, feed, recipe, seed=seed, keeper=Keeper(keep, resume, recipe.digest), say=say)
    found = {split: accuracy(module, judge) for split, judge in judges.items()}
    seconds = time.perf_counter() - began
    return TrainResult(spec, module, found, seconds, tuple(history), recipe, whole.digest)


def fit(
    module: nn.Module, feed: Feed, recipe: Recipe, *, seed: int = 0, keeper: Keeper | None = None, say: Say
) -> list[dict[str, float]]:
    """Train a module in place; it is left in eval mode, with its averaged or best weights where the recipe has them.

    Args:
        module: The network.
        feed: Preprocessed images and labels.
        recipe: How.
        seed: Of the order of the images and their changes.
        keeper: Keeps and restores the state of the run.
        say: Called after each epoch.

    Returns:
        One dictionary for each epoch: epoch, loss, lr, seconds, and val_loss where images are held out.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(module, *feed.held_out(recipe.patience > 0 or recipe.schedule == "plateau"), recipe, seed, device)
    keeper = keeper or Keeper(None, False, recipe.digest)
    keeper.restore(run)
    while run.epoch < recipe.epochs and not run.exhausted:
        row = run.one_epoch()
        keeper.save(run)
        say(row)
    run.settle()
    module.to("cpu").eval()
    return run.history


class Run:
    """One training run between two epochs; `Keeper` writes and restores what is in it."""

    def __init__(
        self, module: nn.Module, feed: Feed, held: Feed | None, recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        self.module, self.feed, self.held, self.recipe, self.device = module, feed, held, recipe, device
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
        """Whether patience has run out."""
        return 0 < self.recipe.patience <= self.since_best

    def one_epoch(self) -> dict[str, float]:
        """Pass over the training images once."""
        began, total = time.perf_counter(), 0.0
        self._mode()
        for x, y in self._batches():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                loss = self._loss(self.module(x), y)
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
        """Put the averaged or the best weights in place."""
        chosen = self.best if self.best is not None else self.average
        if chosen is not None:
            self.module.load_state_dict(chosen)

    def _mode(self) -> None:
        """Training mode; with frozen features batch norm must not learn either, so only what trains is switched."""
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

    def _loss(self, out: Any, y: torch.Tensor) -> torch.Tensor:
        main, *others = out if isinstance(out, tuple) else (out,)
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(main, y, label_smoothing=smoothing)
        for other in others:
            loss = loss + AUX_WEIGHT * F.cross_entropy(other, y, label_smoothing=smoothing)
        return loss

    def _average(self) -> None:
        if self.average is None:
            return
        for key, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - self.recipe.ema)
            else:
                self.average[key].copy_(value)

    def _validate(self) -> dict[str, float]:
        if self.held is None:
            return {}
        loss = mean_loss(self.module, self.held, self.device)
        self.since_best += 1
        if loss < self.best_loss:
            self.best_loss, self.since_best = loss, 0
            self.best = self._copy()
        if self.recipe.schedule == "plateau":
            self.scheduler.step(loss)
        return {"val_loss": loss}

    def _copy(self) -> dict[str, torch.Tensor]:
        return {key: value.detach().clone() for key, value in self.module.state_dict().items()}


def mean_loss(module: nn.Module, feed: Feed, device: torch.device) -> float:
    """Return the mean cross entropy in eval mode."""
    module.eval()
    with torch.inference_mode():
        losses = [F.cross_entropy(module(x.to(device)), y.to(device), reduction="sum").item() for x, y in feed.all()]
    return sum(losses) / len(feed)


def accuracy(module: nn.Module, feed: Feed) -> float:
    """Return the top-1 accuracy in per cent, in eval mode; the module is left in it."""
    module.eval()
    device = next(module.parameters()).device
    with torch.inference_mode():
        right = sum(int((module(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in feed.all())
    return 100 * right / len(feed)
