"""Kill -9 at random moments of each job, start it again, and compare with an undisturbed run.

python tests/support/faults.py --moments 200

A job passes when its second run ends well, what it made is the same as undisturbed, nothing of the first run is left
beside it, and no process of the first run lives on.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edgesmith.runtime.common import files
from support import sameness
from support.patience import PATIENCE_S

MARK = "EDGESMITH_FAULT_MARK"
EDGESMITH = [sys.executable, "-c", "import edgesmith.cli; edgesmith.cli.main()"]
LOAD = """import sys, numpy as np
from edgesmith.runtime import load
with load(sys.argv[1]) as model:
    model(np.zeros((20, 20, 3), np.uint8))
"""


@dataclass(frozen=True)
class Job:
    """A command, run in a folder that holds copies of its material, and what it makes there, in a form to compare."""

    name: str
    command: list[str]
    made: Callable[[Path], object]


def folder_of(name: str) -> Callable[[Path], object]:
    return lambda place: sameness.core(place / name)


def weights(place: Path) -> object:
    return {path.name: files.sha256(path) for path in place.rglob("*.safetensors")}


def engine(place: Path) -> object:
    facts = json.loads((place / "n.engine.json").read_text())
    return facts["source_sha256"], facts["bytes"], facts["sm"], (place / "n.engine").stat().st_size


def cells(place: Path) -> object:
    values = [json.loads(path.read_text()) for path in sorted((place / "sweep" / "cells").glob("*.json"))]
    return [one["results"][0]["subject"] for one in values]


def choices(place: Path) -> object:
    """The cache holds choices that can be read; which one was fastest may differ."""
    return [sorted(json.loads(path.read_text())) for path in sorted((place / "cache").glob("*.json"))]


JOBS = (
    Job("export", [*EDGESMITH, "export", "lenet5", "--weights", "random", "--target", "ort-x86", "--calibration", "32",
                   "--threads", "1", "--out", "out/lenet5"], folder_of("out/lenet5")),
    Job("train", [*EDGESMITH, "train", "lenet5", "--data", "images", "--epochs", "2", "--out", "weights/w.safetensors"],
        weights),
    Job("build", [*EDGESMITH, "build", "n.onnx", "-o", "n.engine", "--fp16"], engine),
    Job("sweep", [*EDGESMITH, "sweep", "colours", "--precision", "fp32", "--threads", "1,2", "--processes", "1",
                  "--seconds", "0.1", "--out", "sweep"], cells),
    Job("load", [sys.executable, "-c", LOAD, "colours"], choices),
)  # fmt: skip


def material(folder: Path) -> None:
    from support.bundles import LABELS, colour_bundle, picture
    from support.engine_graphs import saved, small_net

    folder.mkdir()
    colour_bundle(folder / "colours")
    for path in folder.glob("*.onnx"):
        path.unlink()
    saved(small_net("fp16"), folder / "n.onnx")
    for colour in LABELS:
        for number in range(8):
            place = folder / "images" / ("val" if number < 2 else "train") / colour
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(picture(colour), number, axis=0)).save(place / f"{number}.png")


@dataclass(frozen=True)
class Undisturbed:
    """How long a job takes, what it makes, and which files it leaves."""

    seconds: float
    made: object
    files: set[str]


def environment(place: Path, mark: str) -> dict[str, str]:
    own = {"EDGESMITH_CACHE": str(place / "cache"), MARK: mark, "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def start(job: Job, place: Path, mark: str = "") -> subprocess.Popen:
    with (place.parent / "said").open("wb") as said:
        return subprocess.Popen(job.command, cwd=place, env=environment(place, mark), stdout=said, stderr=said)


def undisturbed(job: Job, source: Path, place: Path) -> Undisturbed:
    shutil.copytree(source, place)
    began = time.monotonic()
    if start(job, place).wait(PATIENCE_S):
        raise RuntimeError(f"{job.name}: {(place.parent / 'said').read_text()[-500:]}")
    found = Undisturbed(time.monotonic() - began, job.made(place), names(place))
    shutil.rmtree(place)
    return found


def names(place: Path) -> set[str]:
    """List what stands there; a cache's names depend on the machine's state, so they are counted by kind."""
    found = (path.relative_to(place) for path in place.rglob("*"))
    return {str(path) if path.parts[0] != "cache" else f"cache/*{path.suffix}" for path in found}


def one(job: Job, normal: Undisturbed, source: Path, place: Path, moment: float) -> list[str]:
    """Kill the job after `moment` seconds, run it again, and say what is wrong."""
    shutil.copytree(source, place)
    mark = uuid.uuid4().hex
    process = start(job, place, mark)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wrong = [f"{len(alive)} processes live on"] if (alive := orphans(mark)) else []
    code = start(job, place).wait(PATIENCE_S)
    if code:
        wrong.append(f"exit code {code}: {(place.parent / 'said').read_text()[-300:]}")
    else:
        if (found := job.made(place)) != normal.made:
            wrong.append(f"made {str(found)[:200]}")
        if left := sorted(names(place) - normal.files):
            wrong.append(f"left {left[:3]}")
    shutil.rmtree(place)
    return wrong


def orphans(mark: str, patience_s: float = PATIENCE_S) -> list[int]:
    """Return the processes that carry a mark in their environment and do not end within some seconds."""
    deadline = time.monotonic() + patience_s
    while (found := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def marked(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def run(moments: int, seed: int = 0, jobs: tuple[Job, ...] = JOBS, say: Callable[[str], object] = str) -> list[str]:
    """Kill each job at its share of the moments, spread over its time at random; return what is wrong."""
    rng, faults = random.Random(seed), []
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        material(folder / "material")
        for at, job in enumerate(jobs):
            normal = undisturbed(job, folder / "material", folder / "work")
            share = moments // len(jobs) + (at < moments % len(jobs))
            wrong = []
            for number in range(share):
                moment = normal.seconds * (number + rng.random()) / share
                found = one(job, normal, folder / "material", folder / "work", moment)
                wrong += [f"{job.name} killed after {moment:.2f} s: {what}" for what in found]
            say(f"{job.name}: {share} moments of {normal.seconds:.1f} s, {len(wrong)} faults")
            faults += wrong
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[job.name for job in JOBS], action="append")
    told = parser.parse_args()
    jobs = tuple(job for job in JOBS if told.only is None or job.name in told.only)
    faults = run(told.moments, told.seed, jobs, lambda line: (sys.stdout.write(line + "\n"), sys.stdout.flush()))
    sys.stdout.write("".join(f"  {fault}\n" for fault in faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
