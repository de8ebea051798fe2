"""The corpus's table and its goals, from the rows that each network left."""

from __future__ import annotations

import statistics
from typing import Any

EQUAL_DB = 80.0  # a rewrite that rounds otherwise; a wrong one is far below
COLUMNS = (
    "network", "nodes: raw, ours, OnnxSlim", "speed: ours, OnnxSlim", "FP16 dB", "INT8 ort-x86 dB: ours, onnxruntime",
    "speed: ours, onnxruntime", "INT8 trt dB: ours, onnxruntime S8", "engines", "s",
)  # fmt: skip
KINDS = {
    "file": "trained ONNX files of packages", "python": "a trained module of a package", "torchvision": "torchvision",
    "timm": "timm", "yolo": "Ultralytics' exports",
}  # fmt: skip
STAGES = ("kind", "networks", "bundle", "FP16", "INT8 ort-x86", "INT8 trt", "all engines")
FORMS = {"int8-ort-x86": ("ort-minmax", "ort-percentile"), "int8-trt": ("ort-symmetric",)}


class Row:
    """What one network left."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.name: str = values["name"]
        self.files: dict[str, dict[str, Any]] = values.get("files") or {}
        self.export: dict[str, Any] = values.get("export") or {}

    def db(self, *names: str) -> float | None:
        """Return the best SQNR among these files; None where there is none."""
        values = [self.files[name]["sqnr_db"] for name in names if "sqnr_db" in self.files.get(name, {})]
        return max(values, default=None)

    def speed(self, *names: str) -> float | None:
        """Return the speed of the quickest of these files over the raw file's."""
        return max((self.files[name]["speed"] for name in names if "speed" in self.files.get(name, {})), default=None)

    def nodes(self, name: str) -> str:
        """Return how many nodes a file has, as text."""
        return str(self.files.get(name, {}).get("nodes", "-"))

    def refusals(self) -> dict[str, str]:
        """Return what was left out or failed, with the reason."""
        reasons = {check["name"]: check["detail"] for check in self.export.get("checks", ()) if not check["passed"]
                   and (check["passed"] is False or check.get("left_out"))}  # fmt: skip
        if "failed" in self.values:
            reasons["run"] = self.values["failed"]
        return reasons

    def engines(self) -> tuple[int, int]:
        """Return how many engines are in the bundle, and how many were asked for."""
        checks = [check for check in self.export.get("checks", ()) if check["name"].startswith("engine ")]
        return sum(check["passed"] is True for check in checks), len(checks)


def markdown(values: list[dict[str, Any]], caption: str = "") -> str:
    """Return goals, table and reasons."""
    rows = [Row(value) for value in values]
    lines = ["# The corpus: networks that nobody here wrote, through every stage", "", caption, "", *_goals(rows), ""]
    lines += [*_matrix(rows), ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    lines += ["", "## What was left out, and why", ""]
    lines += [f"- {row.name}, {what}: {why[:300]}" for row in rows for what, why in row.refusals().items()]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _matrix(rows: list[Row]) -> list[str]:
    """Return how many networks of each kind reach each stage."""
    lines = [f"| {' | '.join(STAGES)} |", "|---|" + "---:|" * (len(STAGES) - 1)]
    for kind in KINDS:
        here = [row for row in rows if row.values["kind"] == kind]
        built = [row.engines() for row in here]
        counts = [
            len(here), sum(bool(row.export.get("written")) for row in here),
            *(sum(row.db(form) is not None for row in here) for form in ("fp16", *FORMS)),
            sum(bool(asked) and asked == done for done, asked in built),
        ]  # fmt: skip
        lines += [f"| {KINDS[kind]} | {' | '.join(map(str, counts))} |"] if here else []
    return lines


def _cells(row: Row) -> list[str]:
    def pair(one: float | None, two: float | None, digits: int) -> str:
        return ", ".join("-" if value is None else f"{value:.{digits}f}" for value in (one, two))

    built, asked = row.engines()
    peers = FORMS["int8-ort-x86"]
    return [
        row.name, f"{row.nodes('raw')}, {row.nodes('fp32')}, {row.nodes('onnxslim')}",
        pair(row.speed("fp32"), row.speed("onnxslim"), 2), "-" if row.db("fp16") is None else f"{row.db('fp16'):.0f}",
        pair(row.db("int8-ort-x86"), row.db(*peers), 1), pair(row.speed("int8-ort-x86"), row.speed(*peers), 2),
        pair(row.db("int8-trt"), row.db("ort-symmetric"), 1), f"{built} of {asked}",
        f"{sum(row.values['stages'].values()):.0f}",
    ]  # fmt: skip


def _goals(rows: list[Row]) -> list[str]:
    """Return one line for each goal: how many networks reach it, of how many where it can be told."""

    def share(title: str, answers: list[bool]) -> str:
        text = f"{sum(answers)} of {len(answers)}" if answers else "nothing was measured"
        return f"- {title}: {text}"

    optimised = [row.db("fp32") for row in rows]
    quick = [row.speed("fp32") for row in rows]
    lines = [
        share("a verified bundle", [bool(row.export.get("written")) for row in rows]),
        share("optimised file equal", [value >= EQUAL_DB for value in optimised if value is not None]),
        share("optimised file no slower (0.97 and more)", [value >= 0.97 for value in quick if value is not None]),
        share("FP16 in the bundle", [row.db("fp16") is not None for row in rows]),
    ]
    for form, peers in FORMS.items():
        differences = [one - two for row in rows if (one := row.db(form)) is not None
                       and (two := row.db(*peers)) is not None]  # fmt: skip
        lines += [
            share(f"{form} in the bundle", [row.db(form) is not None for row in rows]),
            share(f"{form} not below onnxruntime's best recipe in dB", [value >= 0 for value in differences]),
        ]
        if differences:
            lines.append(
                f"- {form}: median lead over onnxruntime's best recipe {statistics.median(differences):.1f} dB"
            )
    ours, theirs = "int8-ort-x86", FORMS["int8-ort-x86"]
    pairs = [(row.speed(ours), row.speed(*theirs)) for row in rows]
    whole = [one >= 0.97 * two for one, two in pairs if one is not None and two is not None]
    lines.append(share(f"{ours} no slower than onnxruntime's (0.97 and more)", whole))
    engines = [row.engines() for row in rows]
    lines.append(share("all engines built and attested", [bool(asked) and built == asked for built, asked in engines]))
    return lines
