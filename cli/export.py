"""`edgesmith export`: the whole flow, its table, and the verdict of each check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.common.progress import note
from ._spec_options import spec_options
from .console import command, emit, overwrite, say, table

if TYPE_CHECKING:
    from ..export.settings import ExportedArtefact, StageCheck, Summary


HELP = """Take a network to a verified bundle: ONNX, FP16, INT8, TensorRT engines, golden outputs.

SOURCE is a name of `edgesmith models`; FILE.onnx; FILE.py:NAME or PACKAGE.MODULE:NAME, a class or function that makes a
torch module, or FILE.pt2 of torch.export (the code of these is run); timm:NAME or torchvision:NAME; a Hugging Face
folder on disk (nothing is downloaded). Exit code 1 if a check failed: no bundle is written then.

\b
Examples:
  edgesmith export mobilenetv2
  edgesmith export net.onnx --data photos/ --mean 0,0,0 --std 1,1,1
  edgesmith export my_net.py:Net --arg width=0.5 --size 128 --data photos/
"""


@command("export", short_help="Take a network to a verified bundle: ONNX, FP16, INT8, TensorRT engines.", help=HELP)
@click.argument("source")
@click.option(
    "--weights",
    default="trained",
    show_default=True,
    help="trained on what --data says, digits, imagenet, package (ImageNet's, from the package index), random, or a "
    "file; for others' networks their own, random, or a file.",
)
@click.option(
    "--data", default="", help="A folder of images (with labels, boxes, masks, or none), COCO JSON, data.yaml, arrays "
    "(.npz, .npy), digits, photos (from the "
    "package index), or random.  [default: for our networks photos with --weights package, else digits]",
)  # fmt: skip
@spec_options
@click.option("--precision", default="fp32,fp16,int8", show_default=True, help="Precisions, comma-separated.")
@click.option(
    "--target", default="ort-x86,trt", show_default=True, help="Targets, comma-separated; trt builds engines."
)
@click.option("--sm", default="8.6,8.9", show_default=True, help="Compute capabilities to build engines for.")
@click.option("--out", type=click.Path(path_type=Path), help="The bundle's folder.  [default: bundles/MODEL]")
@click.option("--calibration", default=128, show_default=True, help="Calibration images.")
@click.option("--dynamic-batch", is_flag=True, help="Leave the batch dimension free.")
@click.option(
    "--input",
    default="normalised",
    show_default=True,
    help="What the network reads: normalised images; pixels as float-nchw or uint8-nhwc, normalised in the graph.",
)
@click.option("--opset", default=18, show_default=True, help="ONNX operator set.")
@click.option("--threads", default=0, show_default=True, help="Threads for the latency figures; 0: all cores.")
@click.option(
    "--weights-folder",
    default="weights",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where trained weights are kept.",
)
@click.option(
    "--max-drop", type=float, help="Points of the task's metric (top-1, mAP) that a lower precision may lose.  "
    "[default: the task's, 0.5 of top-1]",
)  # fmt: skip
@click.option(
    "--min-agreement",
    default=95.0,
    show_default=True,
    help="Where no label can judge: per cent of images with FP32's top-1 that a lower precision must reach.",
)
@click.option(
    "--min-sqnr", default=15.0, show_default=True, help="Where no label can judge: dB of the worst part of an output."
)
@overwrite
def export_command(source: str, as_json: bool, precision: str, target: str, sm: str, **options: Any) -> int:
    """Run the pipeline and print its table; 1 if a check failed."""
    from ..export.api import export

    summary = export(source, precision=precision, target=target, sm=sm, say=note, **options)
    emit(summary.to_dict(), as_json, lambda: draw_summary(summary))
    return 0 if summary.passed else 1


WORDS = {True: "passed", False: "FAILED", None: "cannot tell"}


def _word(check: StageCheck) -> str:
    return "left out" if check.left_out else WORDS[check.passed]


COLUMNS = (
    "artefact",
    "backend",
    "KB",
    "nodes",
    "{} test",
    "{} hard",
    "agree test",
    "agree hard",
    "p50 ms",
    "p99 ms",
    "vs FP32",
    "verdict",
)


def draw_summary(summary: Summary) -> None:
    """Print the table of artefacts and the list of checks."""
    from ..export.settings import result_key
    from ..runtime.tasks import find

    spec, task = summary.spec, find(summary.spec.task)
    shape = "x".join(map(str, spec.input_shape))
    table(
        f"{spec.name}, weights {spec.weights}, input {shape}, batch 1",
        [column.format(task.title) for column in COLUMNS],
        [_row(artefact, summary, result_key(task)) for artefact in summary.artefacts],
        left=2,
        spare=("nodes", "p99 ms", "agree test", "KB", "agree hard"),
    )
    table(
        "",
        ("check", "verdict", "detail"),
        [(check.name, _word(check), check.detail) for check in summary.checks],
        left=3,
    )
    total = sum(summary.seconds.values())
    outcome = f"{summary.bundle}: verified" if summary.written else "no bundle was written: a check failed"
    say(f"{outcome} ({total:.0f} s)")


def _row(artefact: ExportedArtefact, summary: Summary, score: str) -> list[str]:
    results = artefact.results
    test, hard = results.get("test", {}), results.get("hard", {})
    figures = [
        _number(test.get(score), 2),
        _number(hard.get(score), 2),
        _number(test.get("agreement"), 2),
        _number(hard.get("agreement"), 2),
    ]
    times = [_number(results.get(key) and results[key] * 1e3, 3) for key in ("p50_s", "p99_s")]
    times.append(_number(results.get("speed", {}).get("ratio"), 2))
    backend = "tensorrt, not run" if artefact.sidecar else "ort, simulated" if artefact.simulated else artefact.backend
    names = (f"accuracy {artefact.name}", f"engine {artefact.name}")
    verdict = next((check for check in summary.checks if check.name in names), None)
    count = f"{artefact.nodes} kernels" if artefact.sidecar else str(artefact.nodes)
    size = f"{results.get('bytes', 0) / 1024:.0f}"
    return [artefact.name, backend, size, count, *figures, *times, _word(verdict) if verdict else "reference"]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
