"""`make bench-gate`: record pairs with known slowdowns, quiet and with another core loaded; judge every rule on them.

python tests/support/bench_gate.py --minutes 25 --out results/gate.json

Every pair is written to <out>.pairs.jsonl as soon as it is measured; the same command continues an interrupted run.
What tells most comes first: A/A and 3 %, then the other slowdowns, then more A/A and 3 % for as long as there is time.
"""

# ruff: noqa: T201

import argparse
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from experiments import gate_error_rates, gate_simulation

from edgesmith.bench.gate import gate
from edgesmith.bench.measure import environment
from edgesmith.bench.measure.process import Process
from edgesmith.bench.measure.workload import BenchTarget
from support.gate_corpus import chain

LAYERS, WANTED_S = 100, 0.004
SLOWDOWNS = (0.0, 0.02, 0.03, 0.05, 0.10)
CONDITIONS = ("quiet", "loaded")
CHUNK, FIRST, ENOUGH, MOST = 8, 48, 24, 400


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
            other.join()


def fitting_size(wanted_s=WANTED_S):
    """Return the side of the image with which the chain takes about so many seconds here, a multiple of 4."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Process(BenchTarget(str(chain(Path(folder) / "net.onnx", LAYERS)))) as one,
    ):
        one.ask("warm", most_s=1.0)
        seconds = float(np.median(one.ask("run", seconds=0.5)["samples"]))
    return max(8, 4 * round(7 * (wanted_s / seconds) ** 0.5))


def steps(conditions):
    """Yield (condition, slowdown, pairs wanted of it), in turns, what tells most first."""
    telling, other = (0.0, 0.03), [slow for slow in SLOWDOWNS if slow not in (0.0, 0.03)]
    for rounds, slowdowns in (
        (range(CHUNK, FIRST + 1, CHUNK), telling),
        (range(CHUNK, ENOUGH + 1, CHUNK), other),
        (range(FIRST + CHUNK, MOST + 1, CHUNK), telling),
    ):
        for wanted, slowdown, name in itertools.product(rounds, slowdowns, conditions):
            yield name, slowdown, wanted


class Pools:
    """The recorded pairs by condition and slowdown, each on disk before the next is measured."""

    def __init__(self, path):
        self.path, self.pairs, self.seconds = path, {}, {}
        here = environment.here().machine()
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"machine": here, "layers": LAYERS, "size": fitting_size()}) + "\n")
        head, *lines = path.read_text().splitlines()
        told = json.loads(head)
        self.size = told.pop("size", None)
        if told != {"machine": here, "layers": LAYERS}:
            sys.exit(f"error: {path} is of another machine or corpus; do: name another --out")
        for line in lines:
            with contextlib.suppress(ValueError):  # a line cut off by a kill
                self._take(json.loads(line))

    def _take(self, row):
        key = row["condition"], row["slowdown"]
        sides = (tuple(map(tuple, row[side])) for side in ("base", "new"))
        self.pairs.setdefault(key, []).append(gate.LatencyPair(*sides))
        self.seconds.setdefault(key, []).append(row["seconds"])

    def add(self, name, slowdown, pair, seconds):
        sides = {side: [[round(one, 9) for one in block] for block in getattr(pair, side)] for side in ("base", "new")}
        row = {"condition": name, "slowdown": slowdown, "seconds": round(seconds, 3), **sides}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._take(row)


def record(pools, arguments, folder):
    """Measure pairs until the time is up or all are there."""
    rule, rng, began = gate.Rule(), np.random.default_rng(arguments.seed), time.monotonic()
    base = BenchTarget(str(chain(folder / "base.onnx", LAYERS, size=pools.size)))
    for name, slowdown, wanted in steps(arguments.conditions.split(",")):
        more = round(LAYERS * (1 + slowdown))
        new = BenchTarget(str(chain(folder / f"new{slowdown}.onnx", more, size=pools.size)))
        with load(int(name == "loaded")):
            while len(pools.pairs.get((name, slowdown), ())) < wanted:
                if time.monotonic() - began > 60 * arguments.minutes:
                    return
                start = time.monotonic()
                pair = gate.measure_pair(base, new, rule, rng)
                pools.add(name, slowdown, pair, time.monotonic() - start)
        spent = (time.monotonic() - began) / 60
        print(f"{spent:5.1f} min: {name}, {slowdown:.0%} more work: {wanted} pairs", flush=True)


def judged(pools, repeats):
    """Return the rates of every rule on every pool that is large enough, and what can be simulated from A/A pairs."""
    rows, simulated, measured = [], [], []
    for (name, slowdown), pool in sorted(pools.pairs.items()):
        seconds, logs = float(np.mean(pools.seconds[name, slowdown])), [pair.log_ratio for pair in pool]
        rule = gate.Rule()
        rule = dataclasses.replace(rule, most_pairs=max(4, min(rule.most_pairs, int(rule.most_s / seconds))))
        ratio, base = gate.ratio_interval(pool), np.median(np.concatenate([np.concatenate(pair.base) for pair in pool]))
        measured.append({"condition": name, "slowdown": slowdown, "pairs": len(pool), "seconds_a_pair": seconds,
                         "base_ms": 1e3 * float(base), "ratio": ratio.estimate, "low": ratio.low, "high": ratio.high,
                         "spread": float(np.std(logs)), "autocorrelation": gate_simulation.autocorrelation(logs),
                         "log_ratios": [round(value, 6) for value in logs]})  # fmt: skip
        if len(pool) >= gate.MOST_PAIRS:
            found = gate_error_rates.rates(pool, slowdown, rule, repeats=repeats)
            rows += [{"condition": name, **one.to_dict(), "median_s": seconds * one.processes / 2} for one in found]
        if slowdown == 0 and len(pool) >= gate.MOST_PAIRS:
            for slow in SLOWDOWNS:
                one = gate_simulation.simulate(logs, slow, rule)
                simulated.append({"condition": name, **one.to_dict(), "median_s": seconds * one.pairs})
    return rows, simulated, measured


def share(row):
    return f"{row['alarms']:.1%} ({row['low']:.1%}-{row['high']:.1%})"


def cell(row):
    if row is None or not row["judgements"]:
        return "–"
    return f"{share(row)[:-1]}, n={row['judgements']})"


def markdown(found):
    return "\n".join([*_recorded(found["measured"]), *_rules(found["rates"]), *_simulated(found["simulated"])])


def _recorded(measured):
    heads = ("condition", "more work", "pairs", "s a pair", "base ms", "measured", "spread of a pair", "lag-1 corr.")
    lines = ["## What was recorded", "", _row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    for one in measured:
        told = f"{one['ratio'] - 1:+.2%} ({one['low'] - 1:+.2%} to {one['high'] - 1:+.2%})"
        lines.append(_row([one["condition"], f"{one['slowdown']:.0%}", one["pairs"], f"{one['seconds_a_pair']:.1f}",
                           f"{one['base_ms']:.2f}", told, f"{one['spread']:.2%}",
                           f"{one['autocorrelation']:+.2f}"]))  # fmt: skip
    return [*lines, ""]


def _rules(rows):
    heads = ["condition", "rule", *(f"alarms at {slow:.0%}" for slow in SLOWDOWNS), "undecided", "median s at 0 %, 3 %"]
    lines = ["## Every rule on the recorded pairs", "", _row(heads), _row(["---"] * len(heads))]
    for name, rule in dict.fromkeys((row["condition"], row["rule"]) for row in rows):
        mine = {row["slowdown"]: row for row in rows if (row["condition"], row["rule"]) == (name, rule)}
        times = [f"{mine[slow]['median_s']:.0f}" if slow in mine else "–" for slow in (0.0, 0.03)]
        undecided = np.mean([row["undecided"] for row in mine.values()])
        cells = [cell(mine.get(slow)) for slow in SLOWDOWNS]
        lines.append(_row([name, rule, *cells, f"{undecided:.1%}", ", ".join(times)]))
    return [*lines, ""]


def _simulated(rows):
    heads = ["condition", *(f"alarms at {slow:.0%}" for slow in SLOWDOWNS), "undecided at 0 %, 3 %",
             "median s at 0 %, 3 %"]  # fmt: skip
    about = ("Not measured: gates drawn with replacement from the recorded A/A pairs, each turned around by the toss "
             "of a coin, with the slowdown added. Bounds from resampling the pool (`gate_simulation.py`).")  # fmt: skip
    lines = ["## The gate, simulated from A/A pairs", "", about, "", _row(heads), _row(["---"] * len(heads))]
    for name in dict.fromkeys(row["condition"] for row in rows):
        mine = {row["slowdown"]: row for row in rows if row["condition"] == name}
        cells = [share(mine[slow]) for slow in SLOWDOWNS]
        undecided, times = (", ".join(text.format(mine[slow][key]) for slow in (0.0, 0.03))
                            for text, key in (("{:.1%}", "undecided"), ("{:.0f}", "median_s")))  # fmt: skip
        lines.append(_row([f"{name}, {mine[0.0]['pool']} pairs", *cells, undecided, times]))
    return [*lines, ""]


def _row(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25.0, help="of recording; 0 judges what is there")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    parser.add_argument("--out", type=Path, default=Path("results/gate.json"))
    arguments = parser.parse_args()
    pools = Pools(arguments.out.with_suffix(".pairs.jsonl"))
    with tempfile.TemporaryDirectory() as folder:
        record(pools, arguments, Path(folder))
    rows, simulated, measured = judged(pools, arguments.repeats)
    found = {"environment": environment.here().to_dict(), "measured": measured, "rates": rows, "simulated": simulated}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(found)
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
