"""`edgesmith run`, `verify`, `pack`, `sign`, `keygen` and `doctor`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.common.progress import note
from .console import command, emit, overwrite, say, table

if TYPE_CHECKING:
    from ..runtime.spec import ModelSpec
    from ..runtime.verify import VerifyReport


@command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--digest", help="Required SHA-256 of the manifest: it identifies the whole bundle.")
@click.option("--key", type=click.Path(path_type=Path), help="Required signer: a public key (PEM).")
@click.option("--threads", type=click.IntRange(1), help="Threads for CPU backends.")
def verify_command(bundle: Path, digest: str | None, key: Path | None, threads: int | None, as_json: bool) -> int:
    """Recompute the digests of BUNDLE (a folder or .zip) and replay its golden inputs on this device.

    Exit codes: 0 it is what it says and computes what it should, 1 it is not, 3 nothing in it runs here.
    """
    from ..runtime.bundle.bundle import read_bundle
    from ..runtime.errors import BundleError
    from ..runtime.verify import verify

    model_bundle = read_bundle(bundle, trusted_key=key)
    signature = model_bundle.check_signature(key)
    if digest and digest.lower() != model_bundle.digest:
        raise BundleError(f"{bundle} is a different bundle", got=model_bundle.digest, expected=digest.lower())
    report = verify(model_bundle, threads=threads)
    terms = {"version": signature.version, "expires": signature.expires} if signature else {}
    value = {**report.to_dict(), "signed_by": signature.key if signature else "", **terms}
    emit(value, as_json, lambda: _draw_verify(report, signature))
    return {"passed": 0, "failed": 1, "cannot tell": 3}[report.verdict]


def _draw_verify(report: VerifyReport, signature: Any) -> None:
    rows = [
        (
            replay.artefact,
            replay.backend,
            replay.status,
            "" if replay.error is None else f"{replay.error:.1e}",
            "" if replay.tolerance is None else f"{replay.tolerance:g}",
            "" if replay.agreement is None else f"{100 * replay.agreement:.1f} %",
            replay.reason,
        )
        for replay in report.replays
        if replay.status != "skipped"
    ]
    columns = ("artefact", "backend", "replay", "error", "allowed", "same answers", "why")
    heading = f"{report.bundle}: {report.files} files, manifest {report.digest[:12]}"
    table(heading, columns, rows, left=3, spare=("allowed", "same answers", "error"))
    skipped = [replay for replay in report.replays if replay.status == "skipped"]
    for reason in dict.fromkeys(replay.reason for replay in skipped):
        names = [replay.artefact for replay in skipped if replay.reason == reason]
        say(f"{len(names)} skipped ({', '.join(names)}): {reason}")
    for name, problem in report.problems.items():
        say(f"{name} {problem}")
    if signature:
        until = f", valid until {signature.expires}" if signature.expires else ""
        say(f"signed by the trusted key {signature.key[:16]}…: version {signature.version}{until}")
    say(f"verdict: {report.verdict}")


@command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option("--source", help="A stream instead of IMAGES: a video, an animation, a folder, camera or camera:1.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder, .gif or video (.mp4, .avi) for the images with the answers drawn on them.",
)
@click.option("--coco", type=click.Path(path_type=Path), help="COCO file (.json) for the boxes or keypoints found.")
@click.option("--why", is_flag=True, help="Say which form runs on which backend, what was measured and passed over.")
@click.option(
    "--policy", default="block", show_default=True, help="If inference is slower than --source: drop-oldest, …"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, gpu, or a backend: ort, openvino, trt.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, fp16 or int8.")
@click.option("--threads", type=click.IntRange(1), help="Threads for CPU backends.")
@click.option("--allow-rollback", is_flag=True, help="Run a signed version lower than one that ran on this device.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many classes to show.")
@overwrite
def run_command(
    bundle: Path, images: tuple[str, ...], source: str | None, overwrite: bool, as_json: bool, **options: Any
) -> int:
    """Run BUNDLE on IMAGES (files, or folders of them), or on a stream, and say what is on each.

    BUNDLE may be a folder with a pipeline.json: several bundles, each on what the one before it detected.
    IMAGES may also be .npz or .npy files: the network's inputs by name, each (N, ...), ready to be fed.
    """
    from ..runtime.bundle.bundle import read_bundle
    from ..runtime.datasets.array_files import SUFFIXES
    from ..runtime.errors import UsageError
    from ..runtime.model import load
    from ..runtime.outputs import claim
    from ..runtime.pipeline import is_pipeline
    from ._coco_results import TASKS as COCO_TASKS
    from ._run_images import run_arrays, run_images, run_pipeline, run_stream

    if bool(images) == bool(source):
        raise UsageError(
            "no images to run on" if not images else "both images and a stream", expected="IMAGES or --source"
        )
    arrays = [image for image in images if Path(image).suffix in SUFFIXES]
    if arrays and (len(arrays) < len(images) or options["out"]):
        got = f"{', '.join(arrays)} with {'--out' if options['out'] else 'images'}"
        raise UsageError("files of arrays are answered alone, and nothing is drawn on them", got=got)
    if options["coco"]:
        claim(options["coco"], "coco", overwrite=overwrite)
    if options["out"]:
        kind = {"": "frames", ".gif": "picture"}.get(options["out"].suffix.lower(), "video")
        claim(options["out"], kind, overwrite=overwrite)
    chosen = options["device"], options["precision"], options["threads"]
    if is_pipeline(bundle):
        value, spec = run_pipeline(bundle, chosen, images, [*arrays, *([source] if source else [])], options)
        return _finish(value, spec, options, as_json)
    model_bundle = read_bundle(bundle)
    if options["coco"] and model_bundle.spec.task not in COCO_TASKS:
        got, expected = f"a network of task {model_bundle.spec.task}", " or ".join(COCO_TASKS)
        raise UsageError("a COCO file has boxes or keypoints", got=got, expected=expected, do="leave --coco out")
    if not arrays:
        model_bundle.spec.require_images()
    with load(model_bundle, *chosen, allow_rollback=options["allow_rollback"]) as model:
        if arrays:
            value = run_arrays(model, arrays, options["top"])
        elif source:
            value = run_stream(model, source, options["policy"], options["top"], options["out"])
        else:
            value = run_images(model, images, options["top"], options["out"])
    return _finish(value, model.spec, options, as_json)


def _finish(value: dict[str, Any], spec: ModelSpec, options: Mapping[str, Any], as_json: bool) -> int:
    """Write the COCO file, print the answers and where they were written; 1 if an image failed."""
    from ..runtime.common.files import atomic_file
    from ._coco_results import coco_results

    if options["coco"]:
        with atomic_file(options["coco"]) as temporary:
            temporary.write_text(json.dumps(coco_results(value["images"], spec.labels)) + "\n", encoding="utf-8")
    emit(value, as_json, lambda: _draw_run(value, spec.task, options["why"]))
    for path in (options["out"], options["coco"]):
        if path:
            note(f"wrote {path}")
    return 0 if value["counts"]["failed"] == 0 else 1


def _draw_run(value: dict[str, Any], task: str, why: bool) -> None:
    """Print one line for each image, the answer first; for one image also the classes that follow."""
    rows = value["images"]
    if len(rows) == 1:
        say(f"{_answer(rows[0], task)}   {value['ran']}{_milliseconds(rows[0], ', {:.2f} ms')}")
        guesses = [(guess["label"], f"{100 * guess['probability']:.2f} %") for guess in rows[0].get("top", ())]
        if len(guesses) > 1:
            table("", ("class", "probability"), guesses)
    else:
        answers = [(row["image"], _answer(row, task), _milliseconds(row, "{:.1f}")) for row in rows]
        table("", ("image", "answer", "ms"), answers, left=2)
        counts = ", ".join(f"{count} {what}" for what, count in value["counts"].items())
        say(f"{value['ran']}; {counts}")
    if why:
        say(value["why"])


def _milliseconds(row: dict[str, Any], form: str) -> str:
    return form.format(1e3 * row["seconds"]) if "seconds" in row else ""


def _answer(row: dict[str, Any], task: str) -> str:
    """Return the answer for one image, or its error, on one line."""
    from ..runtime.tasks import Task, find

    if "top" in row:
        best = row["top"][0]
        text = f"{best['label']}  {100 * best['probability']:.1f} %"
    else:
        text = row.get("error") or (Task() if "outputs" in row else find(task)).line(row)
    return text + "".join(f"; {part['label']} {part['text']}".rstrip() for part in row.get("parts", ()))


@command("pack")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--zip", "as_zip", type=click.Path(path_type=Path), help="Write the bundle as this one file.")
@click.option("--triton", type=click.Path(path_type=Path), help="Write a Triton model repository into this folder.")
@click.option("--precision", default="fp32", show_default=True, help="Which ONNX file Triton serves.")
@overwrite
def pack_command(
    bundle: Path, as_zip: Path | None, triton: Path | None, precision: str, overwrite: bool, as_json: bool
) -> int:
    """Write BUNDLE as one .zip, or into a model repository for Triton Inference Server; digests are checked first.

    A repository's other models stay as they are.
    """
    from ..runtime.bundle.bundle import read_bundle
    from ..runtime.bundle.writer import pack_bundle
    from ..runtime.errors import UsageError
    from ..runtime.serving.triton import write_triton

    if bool(as_zip) == bool(triton):
        raise UsageError("pack writes exactly one form", expected="either --zip FILE or --triton FOLDER")
    model_bundle = read_bundle(bundle)
    if as_zip:
        written = pack_bundle(model_bundle, as_zip, overwrite=overwrite)
    else:
        written = write_triton(model_bundle, triton or Path(), precision, overwrite=overwrite)
    emit({"written": str(written)}, as_json, lambda: say(f"wrote {written}"))
    return 0


@command("keygen")
@click.argument("path", type=click.Path(path_type=Path))
def keygen_command(path: Path, as_json: bool) -> None:
    """Make a key pair: the private key in PATH, for `sign`; the public one in PATH.pub, for devices."""
    from ..runtime.bundle.signing import generate_key

    name = generate_key(path)
    emit({"key": name, "private": str(path), "public": f"{path}.pub"}, as_json,
         lambda: say(f"wrote {path} (keep it secret) and {path}.pub: key {name[:16]}…"))  # fmt: skip


@command("sign")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="The private key that keygen made.")
@click.option(
    "--version",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Number of this release of the network: a device that ran one refuses lower ones.",
)
@click.option("--expires", default="", metavar="2027-12-31", help="Last valid day (UTC).  [default: no end]")
def sign_command(bundle: Path, key: Path, version: int, expires: str, as_json: bool) -> None:
    """Check the digests of BUNDLE (a folder or .zip), then sign it in place."""
    from ..runtime.bundle.bundle import open_bundle
    from ..runtime.bundle.writer import sign_bundle

    name = sign_bundle(open_bundle(bundle), key, version, expires)
    emit({"signed": str(bundle), "key": name, "version": version, "expires": expires}, as_json,
         lambda: say(f"{bundle} is signed by key {name[:16]}… as version {version}"))  # fmt: skip


@command("doctor")
def doctor_command(as_json: bool) -> int:
    """Show what is installed here, what is missing, and the command that installs it."""
    from ._doctor import examine

    findings = examine()
    rows = [(finding.what, finding.state, finding.found, finding.mend) for finding in findings]
    columns = ("what", "state", "found", "how to fix it")
    emit([vars(finding) for finding in findings], as_json, lambda: table("", columns, rows, left=4))
    return 0
