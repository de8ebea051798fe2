"""`make corpus`: take every network of the corpus from its source to a judged bundle; resumable, sharded.

    python -m corpus --folder build/corpus [--only PATTERN] [--shard 1/3] [--sample]

Each network runs in processes of its own on one thread and leaves one JSON file under `rows`; a second call does only
those that are missing. The table is written from the files.
"""

from __future__ import annotations

import concurrent.futures
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from corpus import packages, photographs
from corpus.networks import ENTRIES, SAMPLE, Entry
from corpus.table import markdown
from edgesmith.cli.console import guarded
from edgesmith.runtime.common.files import atomic_file
from edgesmith.runtime.common.progress import note
from edgesmith.runtime.errors import UsageError

HERE = Path(__file__).resolve().parent
SMS = "8.6,12.0"
CALIBRATION = 64


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/corpus"), show_default=True)
@click.option("--only", multiple=True, help="Pattern of names; repeatable.")
@click.option("--shard", default="1/1", show_default=True, help="The first of three parts: 1/3.")
@click.option("--sample", is_flag=True, help="Only the few networks that CI runs.")
@click.option("--jobs", default=2, show_default=True, help="Networks at a time, each on one thread.")
@click.option("--timeout", "timeout_s", default=600, show_default=True, help="Seconds for one stage of one network.")
@click.option("--keep", is_flag=True, help="Keep each network's files.")
@click.option("--table", type=click.Path(path_type=Path), help="Write the table here too.")
def main(
    folder: Path, only: tuple[str, ...], shard: str, sample: bool, jobs: int, timeout_s: int, keep: bool,
    table: Path | None,
) -> None:  # fmt: skip
    """Take the corpus through every stage and write FOLDER/corpus.md."""
    entries = chosen(only or (SAMPLE if sample else ("*",)), shard)
    sys.exit(guarded(lambda: run(folder, entries, jobs, timeout_s, keep, table)))


def chosen(patterns: Sequence[str], shard: str) -> list[Entry]:
    """Return the entries of a shard whose names fit a pattern."""
    part, _, parts = shard.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise UsageError("not a shard", got=shard, expected="1/3")
    entries = [one for one in ENTRIES if any(fnmatch.fnmatch(one.name, pattern) for pattern in patterns)]
    return entries[int(part) - 1 :: int(parts)]


def run(
    folder: Path, entries: list[Entry], jobs: int, timeout_s: int, keep: bool = False, table: Path | None = None
) -> None:
    """Take entries through every stage, those without a row; write the table of all rows."""
    folder = folder.resolve()
    python = packages.environment(folder)
    for data in photographs.PICTURES:
        if not (folder / "images" / data / ".ready").exists():
            photographs.write_crops(folder / "files", folder, data)
            (folder / "images" / data / ".ready").touch()
    (folder / "rows").mkdir(exist_ok=True)
    missing = [entry for entry in entries if not (folder / "rows" / f"{entry.name}.json").exists()]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        rows = pool.map(lambda entry: _network(entry, folder, python, timeout_s, keep), missing)
        for number, line in enumerate(rows, start=1):
            note(f"{number}/{len(missing)} {line}")
    text = markdown([json.loads(path.read_text()) for path in sorted((folder / "rows").glob("*.json"))])
    for place in filter(None, (folder / "corpus.md", table)):
        with atomic_file(place) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _network(entry: Entry, folder: Path, python: Path, timeout_s: int, keep: bool) -> str:
    """Take one network through the stages, write its row, and return a line that says how it went."""
    work = folder / "work" / entry.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    images, held_out = (photographs.folder(folder, entry.data, split) for split in ("calibration", "held-out"))
    asked = ("--sm", SMS, "--calibration", str(CALIBRATION), "--threads", "1", "--json")
    row: dict[str, Any] = {"name": entry.name, "kind": entry.kind, "trained": entry.trained, "stages": {}}
    for stage, command in (
        ("prepare", [HERE / "prepare.py", entry.kind, entry.what, str(_side(entry)), work, images]),
        ("export", [HERE / "launch.py", "export", *_source(entry, work), "--data", images, *entry.options, *asked,
                    "--out", work / "bundle"]),
        ("judge", [HERE / "judge.py", work, images, held_out]),
    ):  # fmt: skip
        seconds, why = _child([python, *command], work / stage, packages.variables(folder), timeout_s)
        row["stages"][stage] = seconds
        if stage == "export":
            row["export"] = _json(work / "export.out")
            (work / "export.err").replace(work / "export.txt")
        if why:
            row["failed"] = f"{stage}: {why}"
            break
    row["files"] = _json(work / "judged.json")
    with atomic_file(folder / "rows" / f"{entry.name}.json") as temporary:
        temporary.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    if not keep:
        shutil.rmtree(work)
    return f"{entry.name}: {row.get('failed', 'done')}, {sum(row['stages'].values()):.0f} s"


def _side(entry: Entry) -> int:
    """Return the side of the square image that a network of a package is made for."""
    given = entry.options[entry.options.index("--size") + 1] if "--size" in entry.options else "224"
    return 320 if entry.kind == "yolo" else int(given) if given.isdigit() else 224


def _source(entry: Entry, work: Path) -> list[str | Path]:
    """Return SOURCE and the options that say which weights it gets and how it is judged."""
    # A thousand random classes lie so near each other that their order says nothing: SQNR alone decides.
    judged = [] if entry.trained else ["--min-agreement", "0"]
    if entry.kind in ("file", "yolo"):
        return [work / "raw.onnx", *judged]
    if entry.kind == "python":
        return [f"corpus.factories:{entry.what}"]
    return [f"{entry.kind}:{entry.what}", "--weights", work / "weights.pth", *judged]


def _json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text[text.index("{") :])  # packages print lines of their own before it
    except (OSError, ValueError):
        return None


def _child(command: list[Any], place: Path, given: dict[str, str], timeout_s: float) -> tuple[float, str]:
    """Run a stage; return its wall-clock seconds, and why it failed, in one line, or an empty string."""
    began = time.monotonic()
    with place.with_suffix(".out").open("wb") as out, place.with_suffix(".err").open("wb") as err:
        child = subprocess.Popen(
            [str(word) for word in command], stdout=out, stderr=err, env=given, cwd=place.parent, start_new_session=True
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return timeout_s, f"no end after {timeout_s} s"
    seconds = round(time.monotonic() - began, 1)
    lines = place.with_suffix(".err").read_text(errors="replace").strip().splitlines()
    return seconds, "" if code == 0 else (lines or [f"ended with {code}"])[-1][:300]


if __name__ == "__main__":
    main()
