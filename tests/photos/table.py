"""The page of `make bench-photos`, and the accuracy table of README.md, both written from the stored rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from quant_table import _processor

from photos.networks import NETWORKS

BEGIN, END = "<!-- photos: written by `make bench-photos` -->", "<!-- /photos -->"
PEERS = ("onnxruntime", "nncf", "modelopt", "quark")
# Peers of one kind: what TensorRT takes (symmetric S8), and what runs on x86.
SYMMETRIC = ("edgesmith trt", "edgesmith trt quick", "onnxruntime symmetric", "onnxruntime symmetric-percentile",
             "onnxruntime symmetric-entropy", "modelopt", "modelopt-max")  # fmt: skip
COLUMNS = (
    "quantiser", "SQNR, dB", "same class, %", "the same above margin 0.1, %", "among the five best, %",
    "flips, near ties", "KL, nats", "CPU s", "peak MB", "MB", "speed, ORT", "speed, OpenVINO",
)  # fmt: skip
HEAD = """# INT8 beside its peers on public weights and photographs: what `make bench-photos` measured

{processor}, onnxruntime {version}. Every quantiser gets the same FP32 file and the same 128 calibration crops;
judged on 150 crops of other pictures, as the graph is written, in ONNX Runtime. SQNR is of the worst output. Same
class, margin, five best and KL divergence: [evaluation of a result](../quantisation.md#evaluation-of-a-result). CPU s
and peak MB: of the quantiser's process. Speed: times as fast as FP32 in ONNX Runtime, batch 1, one thread, median of
CPU time over rounds in turns, all files in one run. Files for TensorRT (`trt`, symmetric) are only computed here:
their speed says nothing of a GPU. A row that failed says why; a tool or a network without a row has not run yet.
Written by `python -m photos --table` from JSON files, one a row.

Has run: {ran}. Not yet: {missing}.
"""


def markdown(results: list[dict[str, Any]]) -> str:
    """Return the page."""
    ran = [f"{one['name']} ({len(one['rows'])} quantisers)" for one in results]
    missing = [name for name in NETWORKS if name not in {one["name"] for one in results}]
    head = HEAD.format(
        processor=_processor(), version=onnxruntime.__version__, ran=", ".join(ran) or "nothing",
        missing=", ".join(missing) or "nothing",
    )  # fmt: skip
    return "\n".join([head, *summary(results), "", *(line for one in results for line in _network(one))]) + "\n"


def summary(results: list[dict[str, Any]]) -> list[str]:
    """Return for each network and kind of form our default beside the best peer of that kind."""
    lines = [
        "| network | form | SQNR, dB: ours, best peer | same class, %: ours, best peer "
        "| above margin 0.1, %: ours, best peer | MB |",
        "|---|---|---|---|---|---|",
    ]
    for one in results:
        rows = {label: row for label, row in one["rows"].items() if not row["failed"]}
        for mine in ("edgesmith ort-x86", "edgesmith trt"):
            kind = [row for label, row in rows.items()
                    if not label.startswith("edgesmith") and (label in SYMMETRIC) == (mine in SYMMETRIC)]  # fmt: skip
            if mine in rows:
                cells = [_beside(rows[mine], kind, key) for key in (_sqnr, _same, _clear)]
                name = mine.removeprefix("edgesmith ")
                lines.append(f"| {one['name']} | `{name}` | {' | '.join(cells)} | {_megabytes(rows[mine])} |")
    return [*lines, "", _peers(results)]


def _peers(results: list[dict[str, Any]]) -> str:
    """Say which other quantisers have rows on all of these networks, and which are missing on some."""
    every = [{_tool(label) for label, row in one["rows"].items() if not row["failed"]} for one in results]
    everywhere = set(PEERS).intersection(*every) if every else set()
    missing = sorted(set(PEERS) - everywhere)
    text = f"Other quantisers with rows on each of these networks: {', '.join(sorted(everywhere)) or 'none'}"
    return f"{text}; missing on some or all: {', '.join(missing)}." if missing else f"{text}."


def _tool(label: str) -> str:
    return label.split()[0].partition("-")[0]


def _beside(mine: dict[str, Any], peers: list[dict[str, Any]], key: Any) -> str:
    values = [(value, row["label"]) for row in peers if (value := key(row)) is not None]
    own = key(mine)
    if own is None:
        return "-"
    best = max(values, default=None)
    return f"{own:.1f}, " + (f"{best[0]:.1f} ({best[1].replace('onnxruntime', 'ort')})" if best else "-")


def _sqnr(row: dict[str, Any]) -> float | None:
    return float(row["sqnr_db"])


def _same(row: dict[str, Any]) -> float | None:
    return 100 * row["classes"]["agreed"] / row["classes"]["images"] if row["classes"] else None


def _clear(row: dict[str, Any]) -> float | None:
    classes = row["classes"]
    return 100 * classes["clear_agreed"] / classes["clear"] if classes and classes["clear"] else None


def _five(row: dict[str, Any]) -> float | None:
    classes = row["classes"]
    return (
        100 * classes["in_best_five"] / classes["images"] if classes and classes["in_best_five"] is not None else None
    )


def _megabytes(row: dict[str, Any]) -> str:
    return f"{row['bytes'] / 1e6:.2f}"


def _network(one: dict[str, Any]) -> list[str]:
    """Return the table of one network."""
    licence = NETWORKS[one["name"]].licence
    lines = [f"## {one['name']}", "", f"Weights: `{NETWORKS[one['name']].source}`, licence as stated: {licence}.", "",
             f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]  # fmt: skip
    for label, row in one["rows"].items():
        if row["failed"]:
            lines.append(f"| {label} | failed: {row['failed'].replace('|', '/')} {'| ' * (len(COLUMNS) - 2)}|")
            continue
        classes = row["classes"] or {}
        ties = f"{classes['flips']}, {classes['near_ties']}" if classes else "-"
        kl = "-" if classes.get("kl_nats") is None else f"{classes['kl_nats']:.2g}"
        speeds = one["speed"].get(label, {})
        cells = [
            label, f"{row['sqnr_db']:.1f}", *(_cell(key(row)) for key in (_same, _clear, _five)), ties, kl,
            row["cpu_seconds"], row["peak_mb"], _megabytes(row),
            *(f"{speeds[runtime]['median']:.2f}" if runtime in speeds else "-" for runtime in ("ort", "openvino")),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def with_readme(path: Path, results: list[dict[str, Any]]) -> str:
    """Return README.md with its accuracy table rewritten between its two marks; without rows it is left as it is."""
    text = path.read_text(encoding="utf-8")
    if not results or text.count(BEGIN) != 1 or text.count(END) != 1:
        return text
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n" + "\n".join(summary(results)) + f"\n{END}{after}"
