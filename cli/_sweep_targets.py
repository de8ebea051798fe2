"""`edgesmith sweep`, for networks by name and at several resolutions too: bundles are made where there are none."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from ..runtime.errors import UsageError
from . import sweep
from .console import guarded

_plain = sweep.sweep_command


def _run(resolutions: str, bundles: Path, paths: tuple[str, ...], debug: bool, **options: Any) -> None:
    found: list[str] = []
    early = {name: options[name] for name in inspect.signature(sweep.before).parameters}

    def prepare() -> None:
        sweep.before(**early)
        found.extend(targets(paths, resolutions, bundles))

    code = guarded(prepare, debug=debug)
    if code:
        raise SystemExit(code)
    assert _plain.callback is not None
    _plain.callback(paths=tuple(found), debug=debug, **options)


def targets(paths: tuple[str, ...], resolutions: str, bundles: Path) -> list[str]:
    """Return what to measure: paths as they are, and for each network's name a bundle for each resolution.

    Args:
        paths: Bundles, files, and names of networks.
        resolutions: Sides in pixels, as "160,224"; "" for the network's own.
        bundles: Where bundles of networks stand; those that are absent are made, with random weights.

    Raises:
        UsageError: A resolution is no number, or was given where there is no network to make.
        EdgesmithError: A network cannot be made at this resolution.
    """
    sides = [_side(word) for word in resolutions.split(",") if word]
    names = [path for path in paths if not Path(path).exists() and "/" not in path and not Path(path).suffix]
    if sides and not names:
        raise UsageError(
            "--resolutions needs networks by their names", got=", ".join(paths), expected="such as mobilenetv2",
            do="a bundle or file has the resolution that it was exported with",
        )  # fmt: skip
    found: list[str] = []
    for path in paths:
        found += [str(made) for made in _made(path, sides, bundles)] if path in names else [path]
    return found


def _made(name: str, sides: list[int], bundles: Path) -> list[Path]:
    from ..export import untrained
    from ..models import catalog

    known = catalog.find(name).name
    return [untrained.ensure(known, bundles, side) for side in sides or [0]]


def _side(word: str) -> int:
    if not word.strip().isdecimal() or not 8 <= int(word) <= 4096:
        raise UsageError("a resolution makes no sense", got=repr(word), expected="pixels, such as 160,224")
    return int(word)


sweep_command = click.Command(
    "sweep",
    callback=_run,
    help=_plain.help,
    params=[
        click.Argument(["paths"], nargs=-1, required=True, metavar="NETWORK | BUNDLE | FILE.onnx | FILE.py…"),
        click.Option(["--resolutions"], default="", help="Of networks given by name, in pixels: 128,160,224."),
        click.Option(
            ["--bundles"], type=click.Path(path_type=Path), default=Path("bundles"), help="Where theirs are made."
        ),
        *(parameter for parameter in _plain.params if parameter.name != "paths"),
    ],
)
