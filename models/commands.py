"""`edgesmith models`, `describe` and `train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ..runtime.console import command, emit, note, progress, table
from . import catalog


@command("models", short_help="List the networks, with parameters, operations and published accuracy.")
@click.argument("pattern", default="")
def models_command(pattern: str, as_json: bool) -> None:
    """List the networks whose name, alias or family holds PATTERN, with their published figures.

    Parameters in millions, multiply-adds in millions for one image of the input's size, accuracy in per cent on
    ImageNet's validation images.
    """
    from ..runtime.plugins import normalise

    wanted = normalise(pattern)
    entries = [catalog.find(name) for name in catalog.names()]
    entries = [e for e in entries if any(wanted in normalise(word) for word in (e.name, e.family, *e.aliases))]
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
    columns = ("model", "family", "input", "params M", "MACs M", "top-1 %", "top-5 %", "figures from")
    cells = [
        (
            row["name"],
            row["family"],
            "x".join(map(str, row["input"])),
            row["params"] and f"{row['params'] / 1e6:.2f}",
            row["macs"] and f"{row['macs'] / 1e6:.1f}",
            row["top1"] and f"{row['top1']:.2f}",
            row["top5"] and f"{row['top5']:.2f}",
            row["source"],
        )
        for row in rows
    ]
    table(f"{len(rows)} networks", columns, cells, left=3)


@command("describe", short_help="Show a network layer by layer.")
@click.argument("model")
@click.option("--classes", type=click.IntRange(1), help="Size of the last layer, instead of the paper's.")
@click.option("--side", type=click.IntRange(1), help="Height and width of the input, instead of the paper's.")
def describe_command(model: str, classes: int | None, side: int | None, as_json: bool) -> None:
    """Show MODEL layer by layer: output, parameters, multiply-adds; nothing is computed or downloaded."""
    from .complexity import describe

    entry = catalog.find(model)
    channels, height, width = entry.input_shape
    shape = (channels, side or height, side or width)
    report = describe(entry.name, shape, classes or entry.classes)
    emit(report.to_dict(), as_json, lambda: complexity_table(report))


def complexity_table(report: Any) -> None:
    """Draw a complexity report."""
    rows = [
        (layer.name, layer.kind, "x".join(map(str, layer.output)), layer.params, f"{layer.macs / 1e6:.2f}")
        for layer in report.layers
    ]
    table(report.title, ("layer", "kind", "output", "params", "MACs M"), rows, left=2)


@command("train", short_help="Train a network on the embedded digits or a folder of images.")
@click.argument("model")
@click.option("--data", default="digits", show_default=True, help="digits, or a folder of images by class.")
@click.option("--recipe", default="onecycle", show_default=True, help="onecycle, resnet, probe or finetune.")
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option("--lr", type=float, help="Highest learning rate, instead of the recipe's.")
@click.option("--seed", default=0, show_default=True, help="Of weights, order and augmentation.")
@click.option("--start", default="random", show_default=True, help="random, or a checkpoint to start from.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the weights (.safetensors).")
@click.option("--resume", is_flag=True, help="Continue a run that was stopped.")
def train_command(
    model: str, data: str, recipe: str, epochs: int | None, lr: float | None, seed: int, start: str,
    out: Path | None, resume: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train MODEL and write its weights.

    The state of the run stands in OUT.state until it is done, so that --resume continues a run that was stopped.
    """
    from ..runtime.console import need
    from . import recipes, weights

    need("torch")
    from .train import train

    entry = catalog.find(model)
    chosen = recipes.find(recipe)
    chosen = dataclasses.replace(chosen, epochs=epochs or chosen.epochs, lr=lr or chosen.lr)
    out = out or weights.FOLDER / f"{entry.name}-{Path(data).name}.safetensors"
    state = out.with_suffix(".state")
    with progress(entry.name, chosen.epochs) as advance:
        result = train(
            entry.name, data, recipe=chosen, seed=seed, start=start, keep=state, resume=resume,
            say=lambda row: advance(1),
        )  # fmt: skip
    weights.save(out, result.module, result.spec)
    state.unlink(missing_ok=True)
    emit({**result.to_dict(), "weights": str(out)}, as_json, lambda: _draw_training(result, out))


def _draw_training(result: Any, out: Path) -> None:
    rows = [(split, f"{value:.2f}") for split, value in result.top1_percent.items()]
    table(f"{result.spec.name}, {len(result.history)} epochs, {result.seconds:.0f} s", ("split", "top-1 %"), rows)
    note(f"weights in {out}")
