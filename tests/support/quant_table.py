"""The table of `make bench-quant`."""

import datetime
import os
import platform
from pathlib import Path

import onnxruntime

SPLITS = ("test", "hard")


def table(found):
    """Return all results as Markdown: one summary, then the quantisers of each network."""
    lines = [
        "# INT8 beside its peers: what `make bench-quant` measured",
        "",
        f"{_processor()}, onnxruntime {onnxruntime.__version__}, {datetime.date.today()}. All quantisers get the same",
        "FP32 file and the same 128 calibration images. SQNR and agreement are of the graph as written; «here» is what",
        "this machine's kernels compute. Speed: times as fast as FP32 in ONNX Runtime, batch 1, one thread, median",
        "[quartiles] of CPU time over rounds in turns. CPU s: of the quantiser's process, all threads. Raw:",
        "quantisation.json beside this file.",
        "",
        *summary(found),
        *(line for name, rows in found.items() for line in network(name, rows)),
    ]
    return "\n".join(lines) + "\n"


def summary(found):
    """Return for each network what ours keeps beside the best peer."""
    lines = [
        "| network | SQNR, test: ours, best peer | SQNR, hard: ours, best peer | agreement, hard: ours, best peer "
        "| top-1 lost, test / hard | speed in ORT: ours, best peer | in ORT or OpenVINO: ours, best peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        rows = {label: row for label, row in one["rows"].items() if not row["failed"]}
        ours, peers = "edgesmith ort-x86", [label for label in rows if not label.startswith("edgesmith")]
        if ours not in rows or not peers:
            continue
        cells = [name]
        for split, key in (("test", "sqnr_db"), ("hard", "sqnr_db"), ("hard", "agreement_percent")):
            best = max(peers, key=lambda label, split=split, key=key: rows[label][f"{split} written"][key])
            cells.append(
                f"{rows[ours][f'{split} written'][key]}, {rows[best][f'{split} written'][key]} ({_short(best)})"
            )
        lost = [one["top1_percent"][split] - rows[ours][f"{split} written"]["top1_percent"] for split in SPLITS]
        cells.append(" / ".join(f"{value:.2f}" for value in lost))
        cells += [_fastest(one.get("speed", {}), runtimes) for runtimes in (("ort",), ("ort", "openvino"))]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _fastest(speed, runtimes):
    """Return the fastest of ours and of the peers in some runtimes."""
    cells = []
    for mine in (True, False):
        every = [
            (runs[runtime]["median"], f"{_short(label)}{f', {runtime}' if len(runtimes) > 1 else ''}")
            for label, runs in speed.items()
            for runtime in runtimes
            if runtime in runs and label != "fp32" and label.startswith("edgesmith") == mine
        ]
        cells.append("{:.2f} ({})".format(*max(every)) if every else "-")
    return "; ".join(cells)


def _short(label):
    return label.removeprefix("edgesmith ").replace("onnxruntime", "ort")


def network(name, found):
    """Return the table of one network."""
    top1, images = found["top1_percent"], found["images"]
    lines = [
        f"## {name}",
        "",
        f"FP32 top-1 {top1['test']} / {top1['hard']} %, {images['test']} test and {images['hard']} hard images.",
        "",
        "| quantiser | SQNR, test / hard, dB | SQNR here | agreement, hard, % | top-1, test / hard, % "
        "| speed, ORT | speed, OpenVINO | CPU s | peak MB | MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for label, row in found["rows"].items():
        if row["failed"]:
            lines.append(f"| {label} | failed: {row['failed'].replace('|', '/')} | | | | | | | | |")
            continue
        pair = lambda kind, key, row=row: " / ".join(f"{row[f'{k} {kind}'][key]}" for k in SPLITS)  # noqa: E731
        fast = [_speed(found.get("speed", {}).get(label, {}), runtime) for runtime in ("ort", "openvino")]
        cells = [
            label, pair("written", "sqnr_db"), pair("here", "sqnr_db"), row["hard written"]["agreement_percent"],
            pair("written", "top1_percent"), *fast, row["cpu_seconds"], row["peak_mb"], f"{row['bytes'] / 1e6:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return [*lines, ""]


def _speed(runs, runtime):
    one = runs.get(runtime)
    return f"{one['median']:.2f} [{one['q25']:.2f}, {one['q75']:.2f}]" if one else ""


def _processor():
    """Name the processor, and say whether it multiplies INT8 with VNNI."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    vnni = "with VNNI" if "avx512_vnni" in text or "avx_vnni" in text else "without VNNI"
    return f"{names[0] if names else platform.processor()} {vnni}, {os.cpu_count()} cores"
