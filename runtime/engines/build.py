"""Atomic build of a TensorRT engine from an ONNX file, in a child process.

    sidecar = build_engine("net-fp16.onnx", "net-sm86.engine", sm="8.6", precision="fp16")
    print(sidecar.attestation.sentence("fp16"))    # requested FP16: 53 of 53 convolutions FP16, 56 kernels

`precision` is the requested precision. For weakly typed networks (TensorRT 8.x, 10.x) it sets the flags; for strongly
typed networks (TensorRT-RTX, 11) the ONNX file must define it (FP16 tensors, Q/DQ pairs). In both cases the kernels of
the engine are compared with it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from .. import errors
from ..common import child_process
from ..common.external_data import model_file
from ..common.files import atomic_file, sha256
from ..errors import BuildError, CheckFailed, EdgesmithError, UsageError
from ..outputs import claim
from . import flavour as flavours
from . import header, sidecar
from .kernels import Attestation
from .sidecar import Sidecar

Shapes = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Options:
    """Options that only some TensorRT versions support; others raise NotAvailable.

    Attributes:
        refit: The weights can be replaced later.
        strip: The engine contains no weights; refit it on the device.
        version_compatible: Later TensorRT releases of the same major version can also run it.
        hardware: "ampere_plus" or "same_compute_capability": other GPUs can also run it.
        dla: The DLA core of a Jetson.
        gpu_fallback: Layers that the DLA does not support may run on the GPU; the sidecar lists them.
        timing_cache: Folder of the timing caches; one file per TensorRT, SM and GPU model.
    """

    refit: bool = False
    strip: bool = False
    version_compatible: bool = False
    hardware: str = ""
    dla: int | None = None
    gpu_fallback: bool = False
    timing_cache: str = ""


def build_engine(
    onnx: str | Path, out: str | Path, *, sm: str = "8.6", precision: str = "fp32", flavour: str = "auto",
    batch: Sequence[int] | None = None, shapes: Shapes | None = None, workspace: int | None = None,
    level: int | None = None, options: Options | None = None, timeout_s: float = 600, allow_float: bool = False,
    overwrite: bool = False, progress: Progress | None = None,
) -> Sidecar:  # fmt: skip
    """Build one engine and its sidecar `<out>.json`.

    Args:
        onnx: The network.
        out: Path of the engine.
        sm: Compute capability, "8.6", or "current" for the GPU of this machine.
        precision: Requested precision of the convolutions: "fp32", "fp16", "bf16" or "int8".
        flavour: "rtx", "standard" or "auto".
        batch: (min, opt, max) for inputs with a dynamic batch axis.
        shapes: Input name -> (min, opt, max) shapes, for other dynamic axes.
        workspace: Bytes of scratch memory that one kernel may use; None means TensorRT's default.
        level: Builder optimisation level, 0 to 5, if the library has it.
        options: Options that only some TensorRT versions support.
        timeout_s: Seconds after which the build is stopped.
        allow_float: Keep an engine whose convolutions run in a higher precision than requested.
        overwrite: Also replace a file at `out` that is not an engine.
        progress: Called with each event of the build.

    Raises:
        UsageError: No such file, SM, precision, flavour or input; or `out` may not be replaced (`outputs.claim`).
        ModelError: The file keeps weights outside its folder.
        NotAvailable: No TensorRT here, or it needs a GPU for this.
        BuildError: TensorRT refused the network, crashed, or timed out.
        CheckFailed: The engine does not run in the requested precision.
    """
    source = model_file(onnx, "ONNX file")
    request = _request(source, sm, precision, flavour)
    plain = {name: [list(shape) for shape in three] for name, three in (shapes or {}).items()}
    request |= {"batch": batch_profile(batch), "shapes": plain, "workspace": workspace, "level": level}
    request |= asdict(options or Options())
    out = claim(out, "engine", overwrite=overwrite)
    with atomic_file(out) as engine, atomic_file(sidecar.path_of(out)) as beside:
        facts = _in_child({**request, "out": str(engine)}, timeout_s, progress)
        description = _sidecar(facts, request, source, engine, out)
        if not allow_float:
            check_precision(description.attestation, precision)
        description.write(beside)
    return description


def _request(source: Path, sm: str, precision: str, flavour: str) -> dict[str, Any]:
    if precision not in flavours.PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", expected=", ".join(flavours.PRECISIONS))
    sm = flavours.normal_sm(sm)
    name, module = flavours.choose_flavour(flavour, sm)
    return {"onnx": str(source), "sm": sm, "precision": precision, "flavour": name, "module": module}


def batch_profile(batch: Sequence[int] | None) -> list[int] | None:
    """Return (min, opt, max) of a batch, given as three sizes or one.

    Raises:
        UsageError: They are not in order, or not above 0.
    """
    if batch is None:
        return None
    sizes = list(batch) * 3 if len(batch) == 1 else list(batch)
    if len(sizes) != 3 or not 0 < sizes[0] <= sizes[1] <= sizes[2]:
        raise UsageError("the batch profile is not valid", got=str(list(batch)), expected="min <= opt <= max, above 0")
    return sizes


def check_precision(attestation: Attestation, precision: str) -> None:
    """Compare the precision of the convolutions with the requested one.

    Raises:
        CheckFailed: Some run in another precision, or INT8 was requested for a network without a quantised convolution.
    """
    casts = {"fp32": "build with --fp16 if the file is in FP16",
             "fp16": "cast the file first: `edgesmith quantize --target fp16`",
             "bf16": "cast the file first: `edgesmith quantize --target bf16`"}  # fmt: skip
    first = casts.get(precision, "quantise the file for TensorRT")
    allow = f"{first}, choose another SM, or allow it with --allow-float"
    precisions = {*attestation.asked.values(), *attestation.products.values()}
    if precision == "int8" and attestation.got and "int8" not in precisions:
        raise CheckFailed("INT8 was requested, but no convolution of the file has Q/DQ pairs on its input",
                          got=attestation.sentence(precision), do=allow)  # fmt: skip
    bad = {name: got for name, got in attestation.missed.items() if attestation.asked[name] == precision}
    if bad:
        some = ", ".join(f"{name} ({got})" for name, got in list(bad.items())[:3]) + (", …" if len(bad) > 3 else "")
        count = f"{len(bad)} of {len(attestation.got)}"
        raise CheckFailed(f"{count} convolutions do not run in {precision.upper()}: {some}",
                          got=attestation.sentence(precision), do=allow)  # fmt: skip


def _sidecar(facts: dict[str, Any], request: dict[str, Any], source: Path, engine: Path, out: Path) -> Sidecar:
    attestation = Attestation(**facts.pop("attestation"))
    head = header.read_header(engine)
    if head.sms and facts["sm"] not in head.sms:
        raise BuildError("the engine's header names a different SM", got=", ".join(head.sms), expected=str(facts["sm"]))
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return Sidecar(
        engine=out.name, sha256=sha256(engine), bytes=engine.stat().st_size, source=source.name,
        source_sha256=sha256(source), flavour=head.flavour, precision=str(request["precision"]),
        attestation=attestation, **plain,
    )  # fmt: skip


def _in_child(request: dict[str, Any], timeout_s: float, progress: Progress | None) -> dict[str, Any]:
    """Run one request in a separate process and return its answer."""
    command = child_process.python(f"{__package__}._child")
    with tempfile.TemporaryFile() as stderr:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, start_new_session=True)
        late = threading.Event()
        timer = threading.Timer(timeout_s, _stop, (process, late))
        timer.start()
        try:
            answer = _converse(process, request, progress)
            process.wait()
        finally:
            timer.cancel()
            process.kill()
            _close(process)
        if answer is None or answer["event"] == "failed":
            raise _failure(answer, process.returncode, late.is_set(), timeout_s, stderr)
    return {key: value for key, value in answer.items() if key != "event"}


def _stop(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _close(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            assert pipe is not None
            pipe.close()


def _converse(process: subprocess.Popen[bytes], request: dict[str, Any], progress: Progress | None) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    answer = None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] in ("done", "failed"):
            answer = event
        elif progress:
            progress(event)
    return answer


def _failure(answer: Any, code: int, late: bool, timeout_s: float, stderr: IO[bytes]) -> EdgesmithError:
    if answer:
        kind = getattr(errors, answer["kind"], BuildError)
        error: EdgesmithError = kind(answer["what"], **{k: answer.get(k, "") for k in ("got", "expected", "do")})
        return error
    stderr.seek(0)
    tail = " ".join(stderr.read().decode(errors="replace").split())[-300:]
    if late:
        return BuildError(f"the build was stopped after {timeout_s:g} s", do="raise --timeout, or simplify the graph")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return BuildError("TensorRT crashed while building", got=f"{how}; {tail}" if tail else how,
                      do="check the file with `edgesmith build --check-only`; it may be malformed")  # fmt: skip
