"""Engines built by TensorRT-RTX on a machine without a GPU: what comes out, and how a build fails."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edgesmith.optimize.fp16.cast_graph import cast_graph
from edgesmith.runtime.common import files
from edgesmith.runtime.engines import header, sidecar
from edgesmith.runtime.engines.build import build_engine
from edgesmith.runtime.errors import BuildError, CheckFailed, EdgesmithError, NotAvailable, UsageError
from support.engine_graphs import saved, small_net
from support.patience import PATIENCE_S, until

pytest.importorskip("tensorrt_rtx_bindings")


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def children(pid):
    """The engine builders among a process's children."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    lines = {int(child): Path(f"/proc/{child}/cmdline") for child in listed.split()}
    return [child for child, line in lines.items() if line.exists() and b"engines._child" in line.read_bytes()]


def alive(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_runs_in_the_precision_asked(precision, tmp_path):
    source = saved(small_net(precision), tmp_path / "n.onnx")
    events = []
    built = build_engine(source, tmp_path / "n.engine", sm="8.6", precision=precision, progress=events.append)
    assert built.attestation.counts == {precision: 4}
    assert built.attestation.asked == dict.fromkeys(["stem", "depthwise", "pointwise", "dense"], precision)
    assert built.sha256 == files.sha256(tmp_path / "n.engine")
    assert built.source_sha256 == files.sha256(source)
    head = header.read_header(tmp_path / "n.engine")
    assert (head.sms, head.size, head.version) == (("8.6",), built.bytes, built.version)
    assert built.weights_bytes == head.weights_bytes
    assert built.activation_bytes > 0
    assert {"phase", "step"} <= {event["event"] for event in events}
    assert left(tmp_path) == ["n.engine", "n.engine.json", "n.onnx"]


def test_convolutions_that_a_half_precision_file_leaves_in_fp32_are_not_asked_for(tmp_path):
    path = saved(small_net("fp32"), tmp_path / "n.onnx")
    mixed = cast_graph(onnx.load(path), {"depthwise": "the range is too wide"}).model
    onnx.save(mixed, tmp_path / "half.onnx")
    built = build_engine(tmp_path / "half.onnx", tmp_path / "n.engine", sm="8.6", precision="fp16")
    assert built.attestation.asked == {
        "stem": "fp16", "depthwise": "float", "pointwise": "fp16", "dense": "fp16"
    }  # fmt: skip
    with pytest.raises(CheckFailed, match="do not run in FP16"):
        build_engine(path, tmp_path / "n.engine", sm="8.6", precision="fp16")


def test_the_sidecar_reads_back(tmp_path):
    source = saved(small_net("int8"), tmp_path / "n.onnx")
    built = build_engine(source, tmp_path / "n.engine", sm="sm89", precision="int8")
    assert json.dumps(sidecar.read_sidecar(tmp_path / "n.engine").to_dict()) == json.dumps(built.to_dict())
    assert built.attestation.requantisations > 0
    assert len(built.kernels) == built.attestation.kernels + built.attestation.synchronisations


def test_a_build_is_deterministic(tmp_path):
    source = saved(small_net("fp16"), tmp_path / "n.onnx")
    first, second = (build_engine(source, tmp_path / name, precision="fp16") for name in ("a.engine", "b.engine"))
    assert first.sha256 == second.sha256


def test_int8_asked_of_a_float_file_fails_the_check(tmp_path):
    source = saved(small_net("fp32"), tmp_path / "n.onnx")
    with pytest.raises(CheckFailed, match=r"no convolution of the file has Q/DQ pairs.*0 of 4 convolutions INT8"):
        build_engine(source, tmp_path / "n.engine", precision="int8")
    assert left(tmp_path) == ["n.onnx"]
    built = build_engine(source, tmp_path / "n.engine", precision="int8", allow_float=True)
    assert built.attestation.counts == {"fp32": 4}


def test_int8_that_turing_runs_in_float_fails_the_check(tmp_path):
    source = saved(small_net("int8", head="none"), tmp_path / "n.onnx")
    with pytest.raises(CheckFailed, match="4 of 4 convolutions do not run in INT8: stem"):
        build_engine(source, tmp_path / "n.engine", sm="7.5", precision="int8")


def test_a_failed_build_says_what_tensorrt_said(tmp_path):
    source = saved(small_net("fp32"), tmp_path / "n.onnx")
    with pytest.raises(BuildError, match="FP32 GEMM is not supported"):
        build_engine(source, tmp_path / "n.engine", sm="7.5")
    assert left(tmp_path) == ["n.onnx"]


WRONG = {
    "no such file": ({"onnx": "none.onnx"}, UsageError, "no such file"),
    "unknown precision": (
        {"precision": "int4"},
        UsageError,
        "unknown precision 'int4'; expected fp32, fp16, bf16, int8",
    ),
    "no SM": ({"sm": "ampere"}, UsageError, "not a compute capability"),
    "an SM that is not built for": ({"sm": "8.7"}, UsageError, "does not build for SM 8.7; expected 7.5, 8.0"),
    "unknown flavour": ({"flavour": "lean"}, UsageError, "unknown TensorRT flavour"),
    "a wrong profile": ({"batch": (4, 2, 8)}, UsageError, "the batch profile is not valid"),
    "an unknown input": ({"shapes": {"z": ((1,), (1,), (1,))}}, UsageError, "there is no input 'z'; expected x"),
    "not installed": ({"flavour": "standard"}, NotAvailable, "TensorRT .standard. is not installed"),
    "too slow": ({"timeout_s": 0.01}, BuildError, "the build was stopped after 0.01 s"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use(case, tmp_path):
    options, kind, message = WRONG[case]
    saved(small_net(), tmp_path / "n.onnx")
    source = tmp_path / options.get("onnx", "n.onnx")
    with pytest.raises(kind, match=message):
        build_engine(source, tmp_path / "n.engine", **{key: value for key, value in options.items() if key != "onnx"})
    assert left(tmp_path) == ["n.onnx"]


def test_a_dynamic_batch_needs_a_profile(tmp_path):
    source = saved(small_net(batch="N"), tmp_path / "n.onnx")
    with pytest.raises(UsageError, match=r"input 'x' has dynamic dimensions .* and no profile"):
        build_engine(source, tmp_path / "n.engine")
    built = build_engine(source, tmp_path / "n.engine", batch=(1, 4, 8))
    assert built.profiles == {"x": [[1, 3, 32, 32], [4, 3, 32, 32], [8, 3, 32, 32]]}
    assert built.inputs[0]["dims"] == [-1, 3, 32, 32]


def test_a_crash_is_an_error(tmp_path):
    source = saved(small_net(), tmp_path / "n.onnx")

    def kill(event):
        for child in children(os.getpid()):
            os.kill(child, signal.SIGSEGV)

    with pytest.raises(BuildError, match="TensorRT crashed while building; got signal SIGSEGV"):
        build_engine(source, tmp_path / "n.engine", progress=kill)
    assert left(tmp_path) == ["n.onnx"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_build_and_its_child(number, tmp_path):
    source = saved(small_net(), tmp_path / "n.onnx")
    code = (
        "import signal, sys, time; from edgesmith.runtime.engines.build import build_engine\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits it ignored\n"
        "def slow(event): print('building', flush=True); time.sleep(60)\n"
        f"build_engine({str(source)!r}, {str(tmp_path / 'n.engine')!r}, progress=slow)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"building\n"
    builders = children(process.pid)
    process.send_signal(number)
    process.wait(PATIENCE_S)
    process.stdout.close()
    assert builders
    assert until(lambda: not any(alive(child) for child in builders))
    if number == signal.SIGINT:
        assert left(tmp_path) == ["n.onnx"]


def test_a_folder_that_cannot_be_written(tmp_path):
    source = saved(small_net(), tmp_path / "n.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgesmithError, match="cannot write"):
        build_engine(source, tmp_path / "file" / "n.engine")
