# ruff: noqa: T201
"""Is `load(bundle, device="auto")` as fast as the best that could have been chosen by hand?

    python tests/support/auto_choice.py BUNDLE... [--rounds 30] [--out auto.json]

For each bundle: the choice is made afresh and timed; then the session that it gives and one of every form, backend and
number of threads run in turns in this process, in random order. Printed: the choice, how long choosing took, the
fastest by median, and the ratio of the choice to it, of paired turns: median and quartiles. The goal is at most 1.05.
"""

import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import click

from edgesmith.runtime import bundle, load
from edgesmith.runtime.backends._base import random_feeds
from edgesmith.runtime.common.machine import thread_counts
from edgesmith.runtime.errors import CANNOT
from edgesmith.runtime.selection import autotune, autotune_cache, candidates

CALLS_S = 0.03  # a turn


def turn(session, feeds):
    """Return the least seconds of one call, of as many as fit into a turn, after another's threads have stopped."""
    autotune.settle()
    session.run(feeds, finite=True)
    found, end = [], time.perf_counter() + CALLS_S
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(feeds, finite=True)
        found.append(time.perf_counter() - start)
    return min(found)


def rivals(made):
    """Open every form on every backend with every number of threads that `auto` may take."""
    for candidate in candidates.candidates(made, "cpu", "auto"):
        for threads in thread_counts():
            if not candidates.usable(candidate.backend)[0]:
                continue
            try:
                session = candidates.open_artefact(made, candidate.artefact, candidate.backend, threads=threads)
            except CANNOT:
                continue
            yield f"{candidate.artefact.name} with {candidate.backend}, {threads} threads", session


def judge(path, rounds):
    made = bundle.read(path)
    start = time.perf_counter()
    model = load(path, device="auto")
    loaded_s = time.perf_counter() - start
    choice = autotune_cache.remembered(next(Path(os.environ["EDGESMITH_CACHE"]).glob("*.json")).stem)
    sessions = {"auto": model.session, **dict(rivals(made))}
    feeds = {name: random_feeds(session.inputs) for name, session in sessions.items()}
    times = {name: [] for name in sessions}
    for number in range(rounds + 1):
        for name in random.Random(number).sample(list(sessions), len(sessions)):
            seconds = turn(sessions[name], feeds[name])
            if number:
                times[name].append(seconds)
    best = min((name for name in times if name != "auto"), key=lambda name: statistics.median(times[name]))
    ratios = [ours / theirs for ours, theirs in zip(times["auto"], times[best], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    chosen = f"{choice.artefact} with {choice.backend}, {choice.threads} threads"
    return {
        "bundle": made.spec.name, "chosen": chosen, "load_s": loaded_s, "best": best,
        "ratio": middle, "quartiles": [low, high],
        "ms": {name: 1e3 * statistics.median(series) for name, series in times.items()},
    }  # fmt: skip


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=30, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(paths, rounds, out):
    found = []
    for path in paths:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["EDGESMITH_CACHE"] = cache
            found.append(one := judge(path, rounds))
        low, high = one["quartiles"]
        print(
            f"{one['bundle']}: chose {one['chosen']} (load {one['load_s']:.2f} s); best {one['best']}; "
            f"ratio {one['ratio']:.3f} [{low:.3f}, {high:.3f}]", flush=True
        )  # fmt: skip
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
