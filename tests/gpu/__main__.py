"""`make gpu-check`: the tests that need a GPU, then the zoo's latencies by every way that works here, into one JSON.

    PYTHONPATH=tests python -m gpu [--out FILE.json] [--networks …] [--seconds 480] [--dry]

A cell of the result is kept, so that a second run goes on. What is missing on this machine stands in the result with
the package that would bring it. Of each cell: median and 99th percentile of latency, joules an image by NVML, the
bound of the roofline and the estimate of the cost model where the GPU is in the catalogue. It has never run on a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from edgesmith.bench import stats
from edgesmith.bench.devices.roofline import network_works
from edgesmith.bench.measure import clock, environment, sensors
from edgesmith.models.complexity import describe_network
from edgesmith.runtime.common.files import atomic_file
from edgesmith.runtime.common.machine import gpu_possible
from edgesmith.runtime.common.progress import note
from edgesmith.runtime.engines import cost, gpu
from edgesmith.runtime.errors import EdgesmithError

from .files import PRECISIONS, make_files
from .ways import Cell, Opened, Way, finite, require_any, ways

NETWORKS = "mobilenetv2,resnet50,shufflenetv2,efficientnet_b0"
BATCHES = (1, 8, 64)
SAMPLE_S, WARM_UPS, LEAST = 0.4, 10, 20
ROOT = Path(__file__).resolve().parents[2]


def cells(networks: list[str], folder: Path, dry: bool) -> list[Cell]:
    """Return what is measured, the most telling first: batch 1 of every network, then larger batches."""
    precisions = ("fp32", "fp16") if dry else PRECISIONS
    files = {name: make_files(name, folder, precisions) for name in networks}
    batches = BATCHES[:1] if dry else BATCHES
    return [
        Cell(name, files[name], precision, batch)
        for batch in batches for name in networks for precision in precisions
    ]  # fmt: skip


def measured(opened: Opened, batch: int, meters: list[sensors.Sensor]) -> dict[str, Any]:
    """Return the latency of one call and the energy of an image; what the facts say where nothing can run."""
    if opened.call is None:
        return {"never_ran": "a dry run has no GPU", **opened.facts}
    for _ in range(WARM_UPS):
        outputs = opened.call()
    if isinstance(outputs, dict) and not finite(outputs):
        return {"failed": "its outputs hold NaN", **opened.facts}
    with sensors.watch(meters) as trace:
        seconds, _ = clock.sample(opened.call, SAMPLE_S, least=LEAST)
    watts = trace.power_w() if meters else None
    p50 = stats.percentile(seconds, 50)
    energy = None if watts is None else watts * p50 / batch
    return {"p50_s": p50, "p99_s": stats.percentile(seconds, 99), "samples": len(seconds), "joules_an_image": energy,
            **opened.facts}  # fmt: skip


def expected(cell: Cell) -> dict[str, float | None]:
    """Return the roofline's bound and the cost model's estimate on this GPU, in seconds; None where it is unknown."""
    card = cost.of_sm(gpu.device_sm()) if gpu_possible() else cost.of_sm("8.6")
    precision = {"bf16": "fp16"}.get(cell.precision, cell.precision)
    if card is None:
        return {"roofline_s": None, "estimate_s": None}
    works = network_works(describe_network(cell.name), precision)
    return {"roofline_s": sum(cost.rooflines_s(works, card, cell.batch)),
            "estimate_s": cost.estimate_s(works, card, cell.batch)}  # fmt: skip


def tested(dry: bool) -> dict[str, Any]:
    """Run the tests that are marked for a GPU; in a dry run they are collected, and say that they skip."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        str(ROOT / "tests" / "engines"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    return {"exit_code": done.returncode, "said": done.stdout.splitlines()[-8:], "dry": dry}


def one(way: Way, cell: Cell, folder: Path, meters: list[sensors.Sensor]) -> dict[str, Any]:
    """Measure one cell by one way; a failure is its result."""
    try:
        with way.open(cell, folder) as opened:
            return measured(opened, cell.batch, meters)
    except (EdgesmithError, RuntimeError, OSError) as error:
        return {"failed": " ".join(str(error).split())[:500]}


@click.command()
@click.option("--out", default="docs/measurements/gpu.json", type=click.Path(path_type=Path), help="The result.")
@click.option("--networks", default=NETWORKS, show_default=True, help="Networks of the zoo.")
@click.option("--folder", default="build/gpu-check", type=click.Path(path_type=Path), help="Where files are kept.")
@click.option("--seconds", default=480.0, show_default=True, help="No cell begins after this time.")
@click.option("--prepare", is_flag=True, help="Only make the ONNX files, which needs no GPU.")
@click.option("--tests/--no-tests", default=True, help="Run the tests that are marked for a GPU first.")
@click.option("--dry", is_flag=True, help="Without a GPU: one network, as far as each way goes.")
def main(out: Path, networks: str, folder: Path, seconds: float, prepare: bool, tests: bool, dry: bool) -> None:
    """Measure, and write the result after every cell."""
    start, names = time.monotonic(), networks.split(",")
    every = ways(dry)
    lacks = {name: way.missing() for name, way in every.items()}
    if not prepare:
        require_any(lacks)
    work = cells(names, folder, dry)
    if prepare:
        note(f"{len(names) * len(PRECISIONS)} files in {folder}")
        return
    result = json.loads(out.read_text()) if out.is_file() else {"cells": {}}
    card = {"name": gpu.device_name(), "sm": gpu.device_sm()} if gpu_possible() else {}
    result |= {"dry": dry, "gpu": card, "machine": environment.here().to_dict(), "missing": lacks}
    if tests:
        result["tests"] = tested(dry)
    meters = [one for one in sensors.find_sensors() if one.quantity == "energy_j" and one.name.startswith("gpu")]
    for cell in work:
        for name, way in every.items():
            if lacks[name] or not way.takes(cell.precision) or f"{cell.key} {name}" in result["cells"]:
                continue
            if time.monotonic() - start > seconds:
                result["cut_short"] = f"no cell began after {seconds:g} s"
                break
            row = one(way, cell, folder, meters) | expected(cell)
            result["cells"][f"{cell.key} {name}"] = row
            note(f"{cell.key} {name}: {row.get('failed') or row.get('p50_s')}")
            with atomic_file(out) as temporary:
                temporary.write_text(json.dumps(result, indent=1) + "\n")
    for name, why in lacks.items():
        if why:
            note(f"not measured: {name}: {why}")
    note(f"wrote {out}")


if __name__ == "__main__":
    main()
