"""`edgesmith models` and `train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ..models import catalog
from ..runtime.common.packages import require_package
from ..runtime.common.progress import note, progress
from ..runtime.datasets import DIGITS
from ..runtime.errors import UsageError
from ..runtime.tasks import find
from .console import command, emit, overwrite, table


@command("models", short_help="List the networks, with parameters, operations and published accuracy.")
@click.argument("pattern", default="")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw accuracy against operations: .svg or .png.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    multiple=True,
    help="With --plot: plot measured latency, not operations, from `bench` results or rows of the zoo's table.",
)
@overwrite
def models_command(pattern: str, plot: Path | None, results: tuple[Path, ...], overwrite: bool, as_json: bool) -> None:
    """List the networks whose name, alias or family holds PATTERN, with their published figures.

    Parameters in millions, multiply-adds in millions for one image of the input's size, accuracy in per cent on the
    data set named beside it: figures on different data sets cannot be compared.
    """
    from ..runtime.common.plugins import normalise

    fragment = normalise(pattern)
    entries = [catalog.find_network(name) for name in catalog.network_names()]
    entries = [e for e in entries if any(fragment in normalise(word) for word in (e.name, e.family, *e.aliases))]
    if not entries:
        raise UsageError(f"no network matches {pattern!r}", do="`edgesmith models` lists them all")
    if results and not plot:
        raise UsageError("--results works only with --plot", do="give --plot FILE as well")
    if plot:
        from ..models.accuracy_chart import draw_chart, read_latencies
        from ..runtime.outputs import claim

        claim(plot, "picture", overwrite=overwrite)
        note(f"{draw_chart(entries, plot, read_latencies(results) if results else None)} networks drawn in {plot}")
        return
    rows = [
        {
            "name": entry.name,
            "family": entry.family,
            "input": list(entry.input_shape),
            **dataclasses.asdict(entry.figures),
            "aliases": list(entry.aliases),
            "paper": entry.paper,
        }
        for entry in entries
    ]
    emit(rows, as_json, lambda: _draw_models(rows))


def _draw_models(rows: list[dict[str, Any]]) -> None:
    columns = ("model", "family", "input", "params M", "MACs M", "top-1 %", "top-5 %", "measured on", "figures from")
    cells = [
        (
            row["name"],
            row["family"],
            "x".join(map(str, row["input"])),
            row["params"] and f"{row['params'] / 1e6:.2f}",
            row["macs"] and f"{row['macs'] / 1e6:.1f}",
            row["top1"] and f"{row['top1']:.2f}",
            row["top5"] and f"{row['top5']:.2f}",
            row["dataset"],
            row["source"],
        )
        for row in rows
    ]
    table(f"{len(rows)} networks", columns, cells, left=3, spare=("figures from", "measured on", "top-5 %", "family"))


@command("train", short_help="Train a network on embedded data or a folder of images.")
@click.argument("model")
@click.option(
    "--data",
    default="",
    help="digits, scenes, or a folder of images.  [default: scenes to detect or segment, else digits]",
)
@click.option(
    "--recipe",
    help="onecycle, onecycle-long, onecycle-short, detect, segment, resnet, probe or finetune.  [default: the "
    "network's own]",
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs.  [default: the recipe's]")
@click.option("--batch", type=click.IntRange(2), help="Images per step.  [default: the recipe's]")
@click.option("--lr", type=float, help="Highest learning rate.  [default: the recipe's]")
@click.option("--ema", type=float, help="Decay per step of the averaged weights.  [default: the recipe's]")
@click.option("--patience", type=click.IntRange(0), help="Stop after this many epochs without improvement.")
@click.option("--seed", default=0, show_default=True, help="Random seed of weights, image order and augmentation.")
@click.option(
    "--start", default="", help="Initial weights: random, or a checkpoint.  [default: random, or the package's of "
    "the backbone]",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the weights (.safetensors).")
@click.option("--log", type=click.Path(path_type=Path), help="Where to write a CSV with a row per epoch.")
@click.option("--resume", is_flag=True, help="Continue a run that was stopped.")
@overwrite
def train_command(
    model: str, data: str, recipe: str | None, seed: int, start: str, out: Path | None, log: Path | None,
    resume: bool, overwrite: bool, as_json: bool, **changes: Any,
) -> None:  # fmt: skip
    """Train MODEL and write its weights.

    The state of the run stands beside them, in OUT with the ending .state, until it is done: --resume continues there.
    """
    require_package("torch")
    from ..models import weights
    from ..models.training import recipes
    from ..models.training.train import train
    from ..runtime.outputs import claim

    entry = catalog.find_network(model)
    data = data or catalog.embedded_data(entry.name) or DIGITS
    weights.trainable(entry.name)
    start = start or str(weights.usual_start(entry.name))
    chosen = recipes.find_recipe(recipe or entry.row.get("recipe", "onecycle"))
    chosen = dataclasses.replace(chosen, **{key: value for key, value in changes.items() if value is not None})
    out = out or weights.FOLDER / f"{entry.name}-{Path(data).name}-trained.safetensors"
    state = out.with_suffix(".state")
    for path, kind in ((out, "weights"), (state, "state"), *([(log, "csv")] if log else [])):
        claim(path, kind, overwrite=overwrite)
    if state.is_file() and not (resume or overwrite):
        raise UsageError(
            f"{state} is a run that was stopped", expected="--resume, which continues it",
            do="or choose another --out, or give --overwrite to start from the beginning",
        )  # fmt: skip
    _before(find(entry.row.get("task", "classify")).truth, data, start, state if resume else None)
    with progress(entry.name, chosen.epochs) as advance:
        result = train(
            entry.name, data, recipe=chosen, seed=seed, start=start, keep=state, resume=resume,
            say=lambda row: advance(1),
        )  # fmt: skip
    weights.save_weights(out, result.module, result.spec)
    if log:
        _log(log, result.history)
    state.unlink(missing_ok=True)
    emit({**result.to_dict(), "weights": str(out)}, as_json, lambda: _draw_training(result, out))


def _before(kind: str, data: str, start: str, resumed: Path | None) -> None:
    """Check the options and the disk before images are read."""
    from ..models.training.run_state import nothing_to_resume
    from ..runtime import datasets
    from ..runtime.common.files import existing_file

    for split in ("train", "test"):
        datasets.load(data, split).require_truth(kind, "training")
    if start != "random":
        existing_file(start, "checkpoint")
    if resumed and not resumed.is_file():
        raise nothing_to_resume(resumed)


def _log(path: Path, history: Any) -> None:
    import csv

    from ..runtime.common.files import atomic_file

    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def _draw_training(result: Any, out: Path) -> None:
    task = find(result.spec.task)
    table(
        "", ("split", f"{task.title} {task.unit}"), [(split, f"{value:.2f}") for split, value in result.scores.items()]
    )
    note(f"{result.spec.name}: {len(result.history)} epochs in {result.seconds:.0f} s; weights in {out}")
