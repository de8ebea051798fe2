"""`edgesmith run`, `edgesmith verify` and `edgesmith doctor`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .console import command, emit, say, table


@command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--digest", help="SHA-256 that the manifest itself must have: pins the whole bundle.")
@click.option("--threads", type=click.IntRange(1), help="Threads for CPU backends.")
def verify_command(bundle: Path, digest: str | None, threads: int | None, as_json: bool) -> int:
    """Recompute the digests of BUNDLE (a folder or .zip) and replay its golden inputs on this device.

    Exit codes: 0 it is what it says and computes what it should, 1 it is not, 3 nothing in it runs here.
    """
    from .bundle import read, verify
    from .errors import BundleError

    opened = read(bundle)
    if digest and digest.lower() != opened.digest:
        raise BundleError(f"{bundle} is another bundle", got=opened.digest, expected=digest.lower())
    report = verify(opened, threads=threads)
    emit(report.to_dict(), as_json, lambda: _draw_verify(report))
    return {"passed": 0, "failed": 1, "cannot tell": 3}[report.verdict]


def _draw_verify(report: Any) -> None:
    rows = [
        (
            replay.artefact,
            replay.backend,
            replay.status,
            "" if replay.error is None else f"{replay.error:.1e}",
            "" if replay.tolerance is None else f"{replay.tolerance:g}",
            "" if replay.agreement is None else f"{100 * replay.agreement:.1f} %",
            replay.reason,
        )
        for replay in report.replays
    ]
    columns = ("artefact", "backend", "replay", "error", "allowed", "same top-1", "why")
    table(f"{report.bundle}: {report.files} files, manifest {report.digest[:12]}", columns, rows, left=3)
    for name, problem in report.problems.items():
        say(f"{name} {problem}")
    say(f"verdict: {report.verdict}")


@command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--device", default="auto", show_default=True, help="auto, cpu, gpu, or a backend: ort, trt.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, fp16 or int8.")
@click.option("--threads", type=click.IntRange(1), help="Threads for CPU backends.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many classes to show.")
def run_command(
    bundle: Path, images: tuple[Path, ...], device: str, precision: str, threads: int | None, top: int, as_json: bool
) -> int:
    """Run BUNDLE on IMAGES (files, or folders of them), and say what is on each."""
    from .errors import UsageError
    from .session import load

    files = [file for image in images for file in _image_files(image)]
    if not files:
        raise UsageError("no images to run on", expected="image files, or folders of them")
    with load(bundle, device, precision, threads) as model:
        rows = [_one(model, file, top) for file in files]
        value = {"why": model.why(), "images": rows}
        emit(value, as_json, lambda: _draw_run(model.why(), rows))
    return 0


def _image_files(path: Path) -> list[Path]:
    from .folders import SUFFIXES

    return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]


def _one(model: Any, file: Path, top: int) -> dict[str, Any]:
    start = time.perf_counter()
    answer = model(file)
    seconds = time.perf_counter() - start
    if answer.logits.ndim != 1:
        shapes = {name: list(value.shape) for name, value in answer.outputs.items()}
        return {"image": str(file), "seconds": seconds, "outputs": shapes}
    guesses = [vars(guess) for guess in answer.top(top)]
    return {"image": str(file), "seconds": seconds, "top": guesses}


def _draw_run(why: str, rows: list[dict[str, Any]]) -> None:
    say(why)
    for row in rows:
        title = f"{row['image']}: {1e3 * row['seconds']:.1f} ms, decoding included"
        if "top" in row:
            guesses = [(guess["label"], f"{100 * guess['probability']:.2f} %") for guess in row["top"]]
            table(title, ("class", "probability"), guesses)
        else:
            table(title, ("output", "shape"), [(name, str(shape)) for name, shape in row["outputs"].items()])


@command("doctor")
def doctor_command(as_json: bool) -> int:
    """Say for this machine what is installed, what is missing, and the command that mends it."""
    from .doctor import examine

    findings = examine()
    rows = [(finding.what, finding.state, finding.found, finding.mend) for finding in findings]
    columns = ("what", "state", "found", "to mend it")
    emit([vars(finding) for finding in findings], as_json, lambda: table("", columns, rows, left=4))
    return 0
