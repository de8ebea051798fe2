"""The options that describe a network's input and output; `export` and `spec` share them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = (
    click.option("--spec", type=click.Path(path_type=Path), help="What the network takes: a file of `edgesmith spec`."),
    click.option("--size", default="", metavar="H[xW]", help="Height and width of the image, where they are free."),
    click.option("--shape", default="", metavar="[NAME=]1x3x320x320", help="Shapes of inputs that leave them free."),
    click.option("--mean", default="", metavar="R,G,B", help="Of pixels from 0 to 1, or from 0 to 255."),
    click.option("--std", default="", metavar="R,G,B", help="Standard deviation, on the same scale."),
    click.option("--channels", default="", metavar="RGB|BGR|GRAY", help="Order of the colours."),
    click.option("--resize", default="", metavar="PIXELS|stretch", help="Shorter side before the crop, or stretch."),
    click.option("--fit", default="", metavar="FIT", help="crop, stretch, letterbox or pad."),
    click.option(
        "--fill", default="", metavar="PIXEL|R,G,B", help="Beside the image, 0 to 255, for letterbox and pad."
    ),
    click.option("--interpolation", default="", metavar="METHOD", help="bilinear, opencv-linear, torch-bilinear, ..."),
    click.option("--labels", type=click.Path(path_type=Path), help="A text file with a label on each line."),
    click.option("--layout", default="", metavar="NCHW|NHWC", help="Layout of the image."),
    click.option("--task", default="", help="What the network does: classify, detect, segment, ..."),
    click.option("--arg", "args", multiple=True, metavar="NAME=VALUE", help="An argument of the class or function."),
)


def spec_options(function: Function) -> Function:
    """Add these options to a command."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
