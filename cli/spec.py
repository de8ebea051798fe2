"""`edgesmith spec`: write the facts about a network's input and output to a file, to be corrected for `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..runtime.common.progress import note
from ._spec_options import spec_options
from .console import command, emit, overwrite, table


@command("spec", short_help="Write down what is known of a network's input and output.")
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The TOML file to write.")
@click.option("--data", default="", help="As for `export`: of arrays no preprocessing is guessed.")
@spec_options
@overwrite
def spec_command(
    source: str, output: Path | None, data: str, overwrite: bool, as_json: bool, **options: Any
) -> None:  # fmt: skip
    """Show each fact about SOURCE's input and output, and who says so; a guess is marked as one.

    SOURCE is as for `edgesmith export`: FILE.onnx, FILE.py:NAME (whose code is run), timm:NAME, ... With -o the facts
    are written as a file with comments. Correct it, and give it to `export --spec`.
    """
    from ..export.api import describe
    from ..export.sources.options import spec_text
    from ..runtime.common.files import atomic_file
    from ..runtime.outputs import claim

    if output is not None:
        claim(output, "spec", overwrite=overwrite)
    network = describe(source, data=data, **options)
    facts = {fact.name: fact for fact in network.facts}
    if output is not None:
        with atomic_file(output) as temporary:
            temporary.write_text(spec_text(facts), encoding="utf-8")
    values = {name: {"value": fact.value, "origin": fact.origin} for name, fact in facts.items()}
    rows = [(fact.title, fact.shown, fact.origin) for fact in network.facts]
    emit(values, as_json, lambda: table(network.spec.name, ("fact", "value", "who says so"), rows, left=3))
    guesses = sum(fact.is_guess for fact in network.facts)
    if output is not None:
        note(f"wrote {output}; {guesses} facts are guesses; then: edgesmith export {source} --spec {output}")
