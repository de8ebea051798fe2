"""`make bench-blocked`: ONNX Runtime's blocked layout kept by hand beside the portable file, on this machine.

Both stand open in one process with one thread; each round runs each of them twice, one after the other, and takes the
second run's processor time, so that a busy machine hits all alike. The portable file is the `ort-x86` one with all of
ONNX Runtime's optimisations; «own» is the graph that ONNX Runtime makes of it, loaded as it is: the gain without it is
that of loading, not of computing.
"""

import argparse
import json
import time
from pathlib import Path

import click
import numpy as np
import onnxruntime

from edgesmith.export import to_onnx
from edgesmith.models import catalog, weights
from edgesmith.optimize import blocked
from edgesmith.optimize.runner import optimize
from edgesmith.runtime import nchwc
from edgesmith.runtime.backends import ort
from edgesmith.runtime.console import note
from edgesmith.runtime.errors import ModelError
from edgesmith.runtime.machine import cpu
from edgesmith.runtime.verify import relative_error

NETWORKS = (
    "efficientnet_b0", "mobilenetv3_large", "mobilenetv3_small", "mobilenetv2", "shufflenetv2", "densenet121",
    "googlenet",
)  # fmt: skip


def portable(name, folder):
    """Return the optimised export of a network with random weights, batch 1; made once."""
    path = folder / f"{name}.onnx"
    if not path.is_file():
        spec = catalog.spec(name)
        module = catalog.build(name, spec.num_classes)
        spec = weights.load_into(module, spec, "random")
        raw = to_onnx.export(module.eval(), spec, folder / f"{name}-raw.onnx")
        optimize(raw, path, target="ort-x86")
    return path


def seconds(paths, rounds):
    """Return processor seconds, {name: one per round}, and each one's outputs for the same image."""
    sessions = {name: ort.open(path, threads=1, optimise=name == "portable") for name, path in paths.items()}
    (image,) = next(iter(sessions.values())).inputs
    feeds = {image.name: np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)}
    outputs = {name: next(iter(session.run(feeds).values())) for name, session in sessions.items()}
    times = {name: [] for name in sessions}
    for number in range(rounds + 3):
        for name, session in sessions.items():
            session.run(feeds)
            start = time.process_time()
            session.run(feeds)
            if number >= 3:
                times[name].append(time.process_time() - start)
    return times, outputs


def measured(name, folder, rounds):
    """Return what keeping a network blocked gains, as plain values."""
    source = portable(name, folder)
    try:
        kept = blocked.keep(source, folder / f"{name}.blocked.onnx")
    except ModelError as error:
        return {"network": name, "kept": False, "reason": error.got}
    own = folder / f"{name}.own.onnx"
    blocked._write_own(source, own)
    times, outputs = seconds({"portable": source, "own": own, "blocked": kept.path}, rounds)
    ratios = {key: np.array(times["portable"]) / np.array(times[key]) for key in ("own", "blocked")}
    return {
        "network": name, "kept": True, "rounds": rounds,
        "ms": {key: round(1e3 * float(np.median(value)), 3) for key, value in times.items()},
        "ratio": {key: [round(float(one), 3) for one in np.percentile(value, (50, 25, 75))]
                  for key, value in ratios.items()},
        "error": relative_error(outputs["blocked"], outputs["portable"]),
        "nodes": [kept.report.before.nodes, kept.report.after.nodes],
        "rewrites": {entry.name: len(entry.rewrites) for entry in kept.report.passes if entry.rewrites},
    }  # fmt: skip


def row(found):
    """Return a network's line of the table in docs/passes.md."""
    if not found["kept"]:
        return f"| {found['network']} | no file: {found['reason']} | | | | |"
    half, low, high = found["ratio"]["blocked"]
    times, nodes = found["ms"], found["nodes"]
    return (
        f"| {found['network']} | {nodes[0]} -> {nodes[1]} | {times['portable']:.2f} | {times['blocked']:.2f} | "
        f"{half:.2f} ({low:.2f} to {high:.2f}) | {found['ratio']['own'][0]:.2f} |"
    )


def main():
    """Measure, write the raw figures, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--folder", type=Path, default=Path("build/bench-blocked"))
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in arguments.networks:
        found.append(measured(name, arguments.folder, arguments.rounds))
        note(row(found[-1]))
        record = {
            "contract": nchwc.contract(), "onnxruntime": onnxruntime.__version__, "processor": cpu()[0], "threads": 1,
            "batch": 1, "networks": found,
        }  # fmt: skip
        (arguments.folder / "blocked.json").write_text(json.dumps(record, indent=1) + "\n")
    click.echo("| network | nodes | portable, ms | blocked, ms | portable / blocked (quartiles) | portable / own |")
    click.echo("|---|---|---|---|---|---|")
    click.echo("\n".join(row(one) for one in found))


if __name__ == "__main__":
    main()
