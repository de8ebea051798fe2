"""How dispatch scales: 1,000 empty cells on 1 to 16 worker processes of this machine, each worker one cell at a time.

The wall time depends on what else the machine does; the processor time of the one process that is client and scheduler,
which bounds how many cells a second can be given out, hardly does.

python tests/support/sweep_scale.py --workers 1,4,16 --cells 1000
"""

# ruff: noqa: T201

import argparse
import time
import warnings

from edgesmith.bench.measure import environment
from edgesmith.bench.sweep.cluster import Cluster
from edgesmith.bench.sweep.sweep import SweepCell


def nothing(cell):
    return {"path": cell.path}


def seconds(workers, count):
    """Return the seconds to start the workers, those for all cells, and the processor's of client and scheduler."""
    cells = [SweepCell(f"net{number}.onnx", "fp32", "ort", 1, 1) for number in range(count)]
    began = time.monotonic()
    with Cluster(workers=workers) as cluster:
        ready, cpu = time.monotonic(), time.process_time()
        outcomes = list(cluster(cells, nothing))
        done, cpu = time.monotonic(), time.process_time() - cpu
    if sorted(outcome.run["path"] for outcome in outcomes) != sorted(cell.path for cell in cells):
        raise SystemExit("error: cells are lost or came twice")
    return ready - began, done - ready, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--cells", type=int, default=1000)
    arguments = parser.parse_args()
    here = environment.here()
    print(f"{here.cpu}, {here.cores} cores")
    heads = ("workers", "start s", "cells", "s in all", "ms a cell", "CPU ms a cell")
    print(f"| {' | '.join(heads)} |\n| {' | '.join(['---:'] * len(heads))} |")
    for workers in map(int, arguments.workers.split(",")):
        started, spent, cpu = seconds(workers, arguments.cells)
        each, own = (1e3 * one / arguments.cells for one in (spent, cpu))
        print(f"| {workers} | {started:.1f} | {arguments.cells} | {spent:.1f} | {each:.1f} | {own:.1f} |", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
