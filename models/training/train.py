"""Training in one loop over whole-tensor batches, deterministic for a seed and thread count.

    images ─ preprocess ─▶ one tensor ─ augment ─▶ network ─ the task's loss ─▶ AdamW or SGD, one-cycle or plateau

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
from ...runtime.common.packages import need
from ...runtime.errors import UsageError
from ...runtime.spec import ModelSpec
from ...runtime.tasks import find as find_task
from .. import catalog
from .batches import Batches
from .recipes import Recipe, check_recipe, find_recipe
from .run import TrainingRun
from .run_state import RunState

Say = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class TrainResult:
    """Result of training: the task's metric by split (top-1 in per cent), seconds, one dictionary per epoch."""

    spec: ModelSpec
    module: nn.Module = field(repr=False)
    scores: dict[str, float]
    seconds: float
    history: tuple[dict[str, float], ...]
    recipe: Recipe
    data_digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the module as plain values."""
        return {
            "model": self.spec.name,
            "metric": find_task(self.spec.task).title,
            "scores": self.scores,
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
    """Train a network on the embedded digits or scenes, or a folder of images.

    Args:
        name: A variant of the catalogue.
        data: "digits", "scenes", or a folder as `runtime.datasets.load` takes it.
        recipe: A recipe, or the name of one.
        seed: Seed of the weights, the image order and the augmentation.
        start: "random", or a checkpoint to start from; its last layer may have another number of classes, or it may be
            one of the network that is the backbone (`weights.usual_start`).
        keep: File for the state of the run after each epoch.
        resume: Resume from `keep`.
        say: Called with one dictionary after each epoch.

    Returns:
        The trained module in eval mode, with its score on the test split, and on the hard one of embedded data.

    Raises:
        UsageError: An unknown name, recipe or data; no run to resume, or one with another of these.
        DataError: The images cannot be used; each bad one is named before training starts.
        ModelError: The checkpoint cannot be used.
    """
    from .transfer import start_from

    recipe = check_recipe(find_recipe(recipe) if isinstance(recipe, str) else recipe)
    whole = datasets.load(data, "train")
    feed = Batches.of(whole, spec_for(name, data, whole))
    spec, row = feed.spec, catalog.find_network(name).row
    recipe = _fitted(recipe, feed, bool(row.get("fixed")))
    torch.manual_seed(seed)
    module = start_from(catalog.build_network(name, spec.num_classes), start, row.get("backbone", ""))
    splits = ("test", "hard") if data in datasets.EMBEDDED else ("test",)
    judges = {split: Batches.of(datasets.load(data, split), spec) for split in splits}
    facts = {"recipe": recipe.digest, "seed": str(seed), "data": whole.digest, "start": _digest_of(start)}
    began, keeper = time.perf_counter(), RunState(keep, resume, facts)
    history = fit_module(module, feed, recipe, seed=seed, keeper=keeper, say=say)
    scores, seconds = {split: score(module, judge) for split, judge in judges.items()}, time.perf_counter() - began
    return TrainResult(spec, module, scores, seconds, tuple(history), recipe, whole.digest)


def _fitted(recipe: Recipe, feed: Batches, fixed: bool) -> Recipe:
    """Return the recipe as a network can follow it, and require the package that judges its task.

    Raises:
        UsageError: It moves what the network is to find.
        NotAvailable: The package is not installed.
    """
    spec, objective = feed.spec, feed.objective
    if objective.spatial and recipe.augment.moves:
        expected = f"--recipe {spec.task}, or another without"
        raise UsageError(f"this recipe moves what {spec.name} is to find", expected=expected)
    if package := find_task(spec.task).package:
        need(package)
    return dataclasses.replace(recipe, small=0.0) if fixed or objective.one_size else recipe


def spec_for(name: str, data: str, images: datasets.Dataset) -> ModelSpec:
    """Return the spec of a network that is trained on a data set.

    Raises:
        UsageError: No such network; or nobody names the classes.
    """
    if data in datasets.EMBEDDED and data == catalog.embedded_data(name):
        return catalog.network_spec(name, data)
    if not images.classes:
        raise UsageError(f"nobody names the classes of {images.name}", expected="classes.txt, or names in its files")
    spec, count = catalog.network_spec(name, "random"), len(images.classes)
    return dataclasses.replace(spec, num_classes=count, labels=images.classes, weights=data)


def _digest_of(start: str | Path) -> str:
    return sha256(start) if Path(start).is_file() else str(start)


def fit_module(
    module: nn.Module, feed: Batches, recipe: Recipe, *, seed: int = 0, keeper: RunState | None = None, say: Say
) -> list[dict[str, float]]:
    """Train a module in place; leave it in eval mode, with averaged or best weights if the recipe has them.

    Args:
        module: The network.
        feed: Preprocessed images and their truths.
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


def score(module: nn.Module, feed: Batches) -> float:
    """Return the value of the task's metric, times its scale (top-1 in per cent); sets the module to eval mode."""
    module.eval()
    spec, task, device = feed.spec, find_task(feed.spec.task), next(module.parameters()).device
    answers: list[Any] = []
    for x, _ in feed.all():
        with torch.inference_mode():
            out = module(x.to(device))
        outputs = out if isinstance(out, dict) else {spec.output_names[0]: out}
        tables = {name: outputs[name].float().cpu().numpy() for name in spec.output_names}
        answers += [
            task.reduce({name: table[at] for name, table in tables.items()}, spec.context()) for at in range(len(x))
        ]
    batch = {name: [answer[name] for answer in answers] for name in answers[0]}
    truths = [feed.truths[at] for at in feed.chosen.tolist()]
    return task.scale * task.score(batch, truths, spec.context()).values[task.metric]
