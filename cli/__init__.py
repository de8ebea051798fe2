"""`edgesmith`: one subcommand per stage; the module of a command is imported only when the command is called.

Exit codes: 0 done, 1 a check failed, 2 wrong use, 3 cannot tell or not available here.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from .. import __version__

# name -> (module, one line of help); the function in the module is called `<name>_command`.
COMMANDS = {
    "models": ("models", "List the networks, with parameters, operations and published accuracy."),
    "describe": ("describe", "Show a network or an ONNX file layer by layer."),
    "train": ("models", "Train a network on the embedded digits or a folder of images."),
    "export": ("export", "Take a network, ours or yours, to a verified bundle."),
    "spec": ("spec", "Write down what is known of a network's input and output."),
    "optimize": ("optimize", "Rewrite an ONNX file into a smaller, faster one with the same outputs."),
    "quantize": ("quantize", "Cast an ONNX file to FP16, or calibrate it to INT8."),
    "build": ("build", "Build a TensorRT engine from an ONNX file."),
    "verify": ("run", "Recompute a bundle's digests and replay its golden inputs here."),
    "run": ("run", "Run a bundle on images."),
    "keygen": ("run", "Make a key pair for signing bundles."),
    "sign": ("run", "Sign a bundle, so that a device can tell who made it."),
    "pack": ("run", "Write a bundle as one .zip, or as a Triton model repository."),
    "doctor": ("run", "Show what is installed here, what is missing, and how to install it."),
    "bench": ("bench", "Measure latency, memory and accuracy."),
    "gate": ("gate", "Is the new version slower? Exit 0 no, 1 yes, 3 cannot tell."),
    "compare": ("compare", "Compare two results: faster, slower or cannot tell."),
    "sweep": ("sweep", "Measure many networks or bundles with many settings, here or on a cluster; resumable."),
    "advise": ("advise", "Pick a network for a device by accuracy and modelled latency."),
    "report": ("compare", "Show results as tables, or as an HTML page."),
}

# Commands that read foreign files run in a child process; its time limit in seconds, None for no limit.
FOREIGN: dict[str, float | None] = {
    "describe": 3600, "spec": 3600, "optimize": 3600, "quantize": 3600, "build": 3600, "verify": 3600, "sign": 3600,
    "pack": 3600, "run": None, "export": None,
}  # fmt: skip


class Lazy(click.Group):
    """A group that lists its commands from COMMANDS and imports one when it is run."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **settings: Any) -> Any:
        """Run the command line; without `args`, run `sys.argv`, with commands on foreign files in a child process."""
        run = functools.partial(super().main, args, *others, **settings)
        if args is not None:
            return run()
        from . import console
        from ._streams import prepare_streams

        prepare_streams()
        name = sys.argv[1] if len(sys.argv) > 1 else ""
        foreign = name in FOREIGN and (name != "export" or any(word.endswith(".onnx") for word in sys.argv))
        if foreign and hasattr(os, "fork"):
            sys.exit(console.guarded(lambda: _contained(name, run)))
        sys.exit(console.guarded(run))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the flow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and return the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that the first word names, or suggest the nearest one."""
        from ..runtime.common.plugins import did_you_mean

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = did_you_mean(args[0], COMMANDS) or "see `edgesmith --help`"
            raise click.UsageError(f"unknown command {args[0]!r}; do: {near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the list of commands without importing any."""
        with formatter.section("Commands, in the order of the flow"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _contained(name: str, run: Callable[[], Any]) -> int:
    from ..runtime.common import isolation

    limits = isolation.Limits.from_environment(FOREIGN[name])
    ended = isolation.run_isolated(run, limits)
    if error := ended.error(f"`edgesmith {name}`", limits):
        raise error
    return ended.code


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgesmith")
def main() -> None:
    """Take a convolutional network from PyTorch to the edge, and prove at each step that nothing was lost.

    Exit codes: 0 done, 1 a check failed, 2 wrong use, 3 cannot tell or not available here.
    """
