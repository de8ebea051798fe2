"""Hostile inputs by kind: `python -m fuzz --seconds 3600`, or `--only onnx_files --first 1234 --inputs 1 --keep`.

Prints a table, writes --json, and ends with 1 if any input came through as a fault. Run it with `tests` on PYTHONPATH.
"""

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path

from fuzz import harness

KINDS = ("images", "arrays", "bundles", "engines", "checkpoints", "onnx_files")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="in all, shared among the kinds")
    parser.add_argument("--inputs", type=int, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--keep", action="store_true", help="keep the input's folder (with --inputs 1)")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    if told.seconds is None and told.inputs is None:
        parser.error("--seconds or --inputs")
    kinds, found = told.only or KINDS, {}
    for name in kinds:
        share = told.seconds / len(kinds) if told.seconds else None
        kind = importlib.import_module(f"fuzz.{name}")
        tally = harness.run(kind, seed=told.seed, first=told.first, inputs=told.inputs, seconds=share, keep=told.keep)
        found[name] = {**dataclasses.asdict(tally), "labels": len(tally.labels)}
        draw(name, tally)
        if told.json:
            told.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(values["faults"] for values in found.values()))


def draw(name: str, tally: harness.Tally) -> None:
    line = (
        f"{name}: {tally.inputs} inputs in {tally.seconds:.0f} s, {tally.accepted} accepted, {tally.refused} refused, "
        f"{tally.crashes_contained} crashes and {tally.late_contained} hangs contained, "
        f"slowest {tally.slowest_s:.1f} s, peak {tally.peak_bytes >> 20} MB, {len(tally.faults)} faults\n"
    )
    sys.stdout.write(line)
    for index, label in tally.contained[:20]:
        sys.stdout.write(f"  {index} {label}: contained\n")
    for index, label, what in tally.faults[:50]:
        sys.stdout.write(f"  {index} {label}: {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
