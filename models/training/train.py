"""Training in one loop over whole-tensor batches, deterministic for a seed and thread count.

    images ─ preprocess ─▶ one tensor ─ augment ─▶ network ─ cross entropy ─▶ AdamW or SGD, one-cycle or plateau

After each epoch the complete state can be written to one file, so that a killed run can be resumed, bit-exactly on one
thread.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...runtime import datasets
from ...runtime.common.files import sha256
from ...runtime.spec import ModelSpec
from ...runtime.tasks import CLASS
from .. import catalog
from .batches import Batches
from .recipes import Recipe, check_recipe, find_recipe
from .run import TrainingRun
from .run_state import RunState

Say = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class TrainResult:
    """Result of training: accuracies in per cent, times in seconds, one dictionary per epoch."""

    spec: ModelSpec
    module: nn.Module = field(repr=False)
    top1_percent: dict[str, float]
    seconds: float
    history: tuple[dict[str, float], ...]
    recipe: Recipe
    data_digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the module as plain values."""
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
        seed: Seed of the weights, the image order and the augmentation.
        start: "random", or a checkpoint to start from; its last layer may have another number of classes.
        keep: File for the state of the run after each epoch.
        resume: Resume from `keep`.
        say: Called with one dictionary after each epoch.

    Returns:
        The trained module in eval mode, with its accuracy on the test and hard splits.

    Raises:
        UsageError: An unknown name, recipe or data; no run to resume, or one with another of these.
        DataError: The images cannot be used; each bad one is named before training starts.
        ModelError: The checkpoint cannot be used.
    """
    from .transfer import start_from

    recipe = check_recipe(find_recipe(recipe) if isinstance(recipe, str) else recipe)
    if catalog.find_network(name).row.get("fixed"):
        recipe = dataclasses.replace(recipe, small=0.0)
    whole = datasets.load(data, "train")
    whole.require_truth(CLASS, "training")
    spec = catalog.network_spec(name, "digits" if data == "digits" else "random")
    spec = dataclasses.replace(spec, num_classes=len(whole.classes), labels=whole.classes, weights=data)
    torch.manual_seed(seed)
    module = start_from(catalog.build_network(name, len(whole.classes)), start)
    feed = Batches.of(whole, spec)
    splits = ("test", "hard") if data == "digits" else ("test",)
    judges = {split: Batches.of(datasets.load(data, split), spec) for split in splits}
    facts = {"recipe": recipe.digest, "seed": str(seed), "data": whole.digest, "start": _digest_of(start)}
    began, keeper = time.perf_counter(), RunState(keep, resume, facts)
    history = fit_module(module, feed, recipe, seed=seed, keeper=keeper, say=say)
    top1, seconds = {split: accuracy(module, judge) for split, judge in judges.items()}, time.perf_counter() - began
    return TrainResult(spec, module, top1, seconds, tuple(history), recipe, whole.digest)


def _digest_of(start: str | Path) -> str:
    return sha256(start) if Path(start).is_file() else str(start)


def fit_module(
    module: nn.Module, feed: Batches, recipe: Recipe, *, seed: int = 0, keeper: RunState | None = None, say: Say
) -> list[dict[str, float]]:
    """Train a module in place; leave it in eval mode, with averaged or best weights if the recipe has them.

    Args:
        module: The network.
        feed: Preprocessed images and labels.
        recipe: The recipe.
        seed: Seed of the image order and the augmentation.
        keeper: Writes and restores the state of the run.
        say: Called after each epoch.

    Returns:
        One dictionary per epoch: epoch, loss, lr, seconds, and val_loss if images are held out.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = TrainingRun(module, *feed.held_out(recipe.patience > 0 or recipe.schedule == "plateau"), recipe, seed, device)
    keeper = keeper or RunState(None, False, {})
    keeper.restore(run)
    while run.epoch < recipe.epochs and not run.exhausted:
        row = run.one_epoch()
        keeper.save(run)
        say(row)
    run.settle()
    module.to("cpu").eval()
    return run.history


def accuracy(module: nn.Module, feed: Batches) -> float:
    """Return the top-1 accuracy in per cent; sets the module to eval mode."""
    module.eval()
    device = next(module.parameters()).device
    with torch.inference_mode():
        right = sum(int((module(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in feed.all())
    return 100 * right / len(feed)
