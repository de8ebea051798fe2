"""The table of `make bench-quant`."""

import datetime
import os
import platform
from pathlib import Path

import onnxruntime

SPLITS = ("test", "hard")
FORMS = ("edgesmith ort-x86", "edgesmith trt", "edgesmith trt-rtx", "edgesmith openvino")


def table(found):
    """Return all results as Markdown: one summary, then the quantisers of each network."""
    lines = [
        "# INT8 beside its peers: what `make bench-quant` measured",
        "",
        f"{_processor()}, onnxruntime {onnxruntime.__version__}, {datetime.date.today()}. All quantisers get the same",
        "FP32 file and the same 128 calibration images. SQNR and agreement are of the graph as written; «here» is what",
        "this machine's kernels compute. Speed: times as fast as FP32 in ONNX Runtime, batch 1, one thread, median",
        "[quartiles] of CPU time over rounds in turns. Limit: the highest INT8 rate of a dense convolution of ONNX",
        "Runtime on this machine, one thread. CPU s: of the quantiser's process, all threads. Raw: quantisation.json",
        "beside this file.",
        "",
        *summary(found),
        *(line for name, rows in found.items() for line in network(name, rows)),
    ]
    return "\n".join(lines) + "\n"


def summary(found):
    """Return for each network what our forms keep beside the best peer, and how fast the fastest are."""
    lines = [
        "| network | ours | SQNR, test: ours, best peer | SQNR, hard: ours, best peer "
        "| agreement, hard: ours, best peer | top-1 lost, test / hard |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        rows = {label: row for label, row in one["rows"].items() if not row["failed"]}
        peers = [label for label in rows if not label.startswith("edgesmith")]
        lines += [
            f"| {' | '.join([name, _short(label), *_kept(one, rows, label, peers)])} |"
            for label in rows
            if label in FORMS and peers
        ]
    lines += ["", *_fast_ones(found)]
    return [*lines, ""]


def _kept(one, rows, mine, peers):
    """Return what one of our forms keeps, and the best of the peers, as cells."""
    cells = []
    for split, key in (("test", "sqnr_db"), ("hard", "sqnr_db"), ("hard", "agreement_percent")):
        best = max(peers, key=lambda label, split=split, key=key: rows[label][f"{split} written"][key])
        cells.append(f"{rows[mine][f'{split} written'][key]}, {rows[best][f'{split} written'][key]} ({_short(best)})")
    lost = [one["top1_percent"][split] - rows[mine][f"{split} written"]["top1_percent"] for split in SPLITS]
    return [*cells, " / ".join(f"{value:.2f}" for value in lost)]


def _fast_ones(found):
    lines = [
        "| network | images | in ONNX Runtime: ours, best peer | in ONNX Runtime or OpenVINO: ours, best peer "
        "| share of the INT8 limit: ours, best peer |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        for key, side in (("speed", "own size"), ("speed 224", "224x224")):
            if not (speed := one.get(key)):
                continue
            shares = [_best(speed, ("ort", "openvino"), mine, "share") for mine in (True, False)]
            cells = [
                name, side, _fastest(speed, ("ort",)), _fastest(speed, ("ort", "openvino")),
                ", ".join(f"{100 * share[0]:.0f} %" if share else "-" for share in shares),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _fastest(speed, runtimes):
    """Return the fastest of ours and of the peers in some runtimes, with quartiles."""
    cells = []
    for mine in (True, False):
        best = _best(speed, runtimes, mine, "median")
        cells.append(f"{_speed(speed[best[1]], best[2])} ({_where(best, runtimes)})" if best else "-")
    return "; ".join(cells)


def _where(best, runtimes):
    return _short(best[1]) + (f", {best[2]}" if len(runtimes) > 1 else "")


def _best(speed, runtimes, mine, key):
    """Return (value, label, runtime) of the largest value among ours or among the peers; None where there is none."""
    every = [
        (runs[runtime][key], label, runtime)
        for label, runs in speed.items()
        for runtime in runtimes
        if runtime in runs and label != "fp32" and label.startswith("edgesmith") == mine
    ]
    return max(every) if every else None


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
        "| speed, ORT | speed, OpenVINO | at 224, ORT | at 224, OpenVINO | CPU s | peak MB | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for label, row in found["rows"].items():
        if row["failed"]:
            lines.append(f"| {label} | failed: {row['failed'].replace('|', '/')} | | | | | | | | | | |")
            continue
        pair = lambda kind, key, row=row: " / ".join(f"{row[f'{k} {kind}'][key]}" for k in SPLITS)  # noqa: E731
        fast = [
            _speed(found.get(key, {}).get(label, {}), runtime)
            for key in ("speed", "speed 224")
            for runtime in ("ort", "openvino")
        ]
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
