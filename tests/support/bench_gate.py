"""`make bench-gate`: record pairs with known slowdowns, quiet and with another core loaded; judge every rule on them.

python tests/support/bench_gate.py --pairs 40 --out results/gate.json
"""

# ruff: noqa: T201

import argparse
import contextlib
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

from edgesmith.bench import environment, gate, rates
from edgesmith.bench.workload import Target
from support.gate_corpus import chain

LAYERS = 100
SLOWDOWNS = (0.0, 0.02, 0.03, 0.05, 0.10)


def spin():
    while True:
        pass


@contextlib.contextmanager
def load(processes):
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()


def record(folder, slowdown, pairs, rule, seed):
    base = Target(str(chain(folder / "base.onnx", LAYERS)))
    new = Target(str(chain(folder / f"new{slowdown}.onnx", round(LAYERS * (1 + slowdown)))))
    rng, began = np.random.default_rng(seed), time.perf_counter()
    pool = [gate.measure_pair(base, new, rule, rng) for _ in range(pairs)]
    return pool, (time.perf_counter() - began) / pairs


def condition(name, processes, arguments, folder):
    rule, rows = gate.Rule(), []
    with load(processes):
        for slowdown in SLOWDOWNS:
            pool, seconds = record(folder, slowdown, arguments.pairs, rule, arguments.seed)
            ratio = gate.interval(pool)
            for rate in rates.rates(pool, slowdown, rule, repeats=arguments.repeats):
                rows.append({"condition": name, **rate.to_dict(), "median_s": seconds * rate.processes / 2})
            print(f"{name}, {slowdown:.0%} more work: measured {ratio.estimate - 1:+.2%}"
                  f" ({ratio.low - 1:+.2%} to {ratio.high - 1:+.2%}), {seconds:.1f} s a pair", flush=True)  # fmt: skip
    return rows


def cell(row):
    if not row["judgements"]:
        return "none finished"
    return f"{row['alarms']:.1%} ({row['low']:.1%}-{row['high']:.1%}, n={row['judgements']})"


def markdown(rows):
    head = "| condition | rule | " + " | ".join(f"alarms at {slowdown:.0%}" for slowdown in SLOWDOWNS)
    lines = [head + " | undecided | median time |", "|" + " --- |" * (len(SLOWDOWNS) + 4)]
    for key in dict.fromkeys((row["condition"], row["rule"]) for row in rows):
        mine = [row for row in rows if (row["condition"], row["rule"]) == key]
        cells = [cell(row) for row in mine]
        undecided = np.mean([row["undecided"] for row in mine])
        cells += [f"{undecided:.1%}", f"{np.nanmedian([row['median_s'] for row in mine]):.0f} s"]
        lines.append(f"| {key[0]} | {key[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conditions", default="quiet,loaded")
    parser.add_argument("--out", type=Path, default=Path("results/gate.json"))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.conditions.split(","):
            rows += condition(name, int(name == "loaded"), arguments, Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"environment": environment.here().to_dict(), "pairs": arguments.pairs, "rates": rows}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(rows)
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
