"""BF16 is an arithmetic of its own: named, proved by the golden outputs, judged by `export`, or never taken."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edgesmith as es
from edgesmith.export import bf16
from edgesmith.runtime import load
from edgesmith.runtime.backends import openvino, openvino_bf16, ort
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.errors import ModelError, NotAvailable
from edgesmith.runtime.selection import autotune, candidates
from edgesmith.runtime.verify import relative_error, replayed, verify
from support.bundles import colour_bundle, colour_project
from support.trained import trained_onnx

BF16 = candidates.BF16
CPUS = {
    "AMX": ({"avx2", "amx_bf16"}, True),
    "AVX-512 BF16": ({"avx512f", "avx512_bf16"}, True),
    "VNNI only": ({"avx2", "avx512_vnni"}, False),
    "unknown": (set(), False),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("case", CPUS)
def test_bf16_needs_a_cpu_that_computes_in_it(case, monkeypatch):
    flags, able = CPUS[case]
    monkeypatch.setattr(openvino, "available", lambda: (True, "openvino is installed"))
    monkeypatch.setattr(openvino_bf16, "cpu", lambda: ("a CPU", frozenset(flags)))
    ready, reason = openvino_bf16.available()
    assert (ready, "no BF16 instructions" in reason) == (able, not able)
    monkeypatch.setattr(openvino, "available", lambda: (False, "openvino is not installed"))
    assert openvino_bf16.available() == (False, "openvino is not installed")


def test_bf16_is_near_fp32_and_is_not_fp32(tmp_path):
    pytest.importorskip("openvino")
    path, x = trained_onnx(tmp_path), np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)
    outputs = []
    for backend in (ort, openvino, openvino_bf16):
        with backend.open(path, threads=1) as session:
            outputs.append(next(iter(session.run({"input": x}).values())))
            assert outputs[-1].dtype == np.float32
    reference, single, half = outputs
    assert relative_error(single, reference) < 1e-4
    if not openvino_bf16.available()[0]:
        pytest.skip("the CPU has no BF16 instructions, so OpenVINO computes in FP32")
    assert 1e-4 < relative_error(half, reference) < openvino_bf16.TOLERANCE


FORMS = {
    ("fp32", "generic"): True, ("fp16", "generic"): False, ("int8", "ort-x86"): True, ("int8", "openvino"): True,
    ("int8", "trt"): False, ("int8", "ort-arm"): False, ("int8", "unheard-of"): False,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_which_files_are_tried_in_bf16(form, tmp_path):
    assert candidates.bears_bf16(*form) is FORMS[form]
    artefact = dataclasses.replace(colour_bundle(tmp_path / "b").artefacts[0], precision=form[0], target=form[1])
    assert (BF16 in candidates.backends_for(artefact)) is FORMS[form]


class Noisy:
    """A session of ONNX Runtime whose outputs are off by a share of each value."""

    def __init__(self, session, share):
        self._session, self._share = session, share

    def __getattr__(self, name):
        return getattr(self._session, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()

    def run(self, feeds, **options):
        outputs = self._session.run(feeds, **options)
        return {name: value * np.float32(1 - self._share) for name, value in outputs.items()}


@pytest.mark.parametrize(("share", "on_openvino", "on_bf16"), [(0.0, "passed", "passed"), (0.03, "differs", "passed"),
                                                               (0.08, "differs", "differs")])  # fmt: skip
def test_the_tolerance_is_that_of_the_arithmetic(share, on_openvino, on_bf16, tmp_path):
    made = colour_bundle(tmp_path / "b")
    artefact = made.artefacts[0]
    with candidates.open_artefact(made, artefact, "ort") as session:
        for backend, status in (("openvino", on_openvino), (BF16, on_bf16)):
            assert replayed(made, artefact, backend, Noisy(session, share)).status == status


def exported(folder, monkeypatch, share):
    """Export the colour network on a machine whose BF16 is off by `share`; return the summary."""
    real = candidates.open_file

    def open_file(path, backend, **options):
        return Noisy(real(path, "ort", **options), share) if backend == BF16 else real(path, backend, **options)

    monkeypatch.setattr(bf16, "usable", lambda backend: (True, ""))
    monkeypatch.setattr("edgesmith.export.answers.open_file", open_file)
    monkeypatch.setattr(bf16, "why_not_bf16", lambda path: "")
    colour_project(folder)
    return es.export(
        folder / "net.onnx", data=str(folder / "images"), precision="fp32", target="ort-x86", out=folder / "bundle"
    )


def test_a_bf16_that_passes_is_a_row(tmp_path, monkeypatch):
    summary = exported(tmp_path, monkeypatch, 0.001)
    assert summary.written
    row = next(one for one in summary.artefacts if one.name == "fp32 as BF16")
    assert (row.backend, row.results["test"]["agreement"]) == (BF16, 100)
    assert 40 < row.results["test"]["sqnr_db"] < 80
    assert [one.name for one in summary.checks if "BF16" in one.name] == ["accuracy fp32 as BF16"]
    (artefact,) = read_bundle(tmp_path / "bundle").artefacts
    assert not candidates.refused(artefact, BF16)


def by_channel(path, side, channels=3):
    weight = numpy_helper.from_array(np.ones((channels, 1, side, side), np.float32), "w")
    image = helper.make_tensor_value_info("x", 1, [1, channels, 32, 32])
    out = helper.make_tensor_value_info("y", 1, [1, channels, 33 - side, 33 - side])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=channels)], "g", [image], [out], [weight]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_openvino_never_ends_to_compile_in_bf16_is_refused(tmp_path):
    pytest.importorskip("openvino")
    with openvino_bf16.open(by_channel(tmp_path / "short.onnx", 12), threads=1) as session:
        assert session.outputs[0].shape == (1, 3, 21, 21)
    long = by_channel(tmp_path / "long.onnx", 15)
    with pytest.raises(ModelError, match="cannot compile .*long.onnx in BF16; got kernel 15x15"):
        openvino_bf16.open(long, threads=1)
    openvino.open(long, threads=1).close()


def test_a_bf16_that_cannot_be_opened_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(bf16, "usable", lambda backend: (True, ""))
    monkeypatch.setattr(bf16, "TIMEOUT_S", 0.0)
    colour_project(tmp_path)
    summary = es.export(
        tmp_path / "net.onnx", data=str(tmp_path / "images"), precision="fp32", target="ort-x86", out=tmp_path / "b"
    )
    check = next(one for one in summary.checks if one.name == "accuracy fp32 as BF16")
    assert (check.passed, check.left_out, summary.written) == (None, True, True)
    reason = candidates.refused(read_bundle(tmp_path / "b").artefacts[0], BF16)
    assert reason.startswith("it failed where the bundle was made: colours-fp32.onnx hangs; got no answer to 'open'")


def test_a_bf16_that_fails_is_named_and_never_taken(tmp_path, monkeypatch):
    summary = exported(tmp_path, monkeypatch, 3.0)
    check = next(one for one in summary.checks if one.name == "accuracy fp32 as BF16")
    assert (check.passed, check.left_out, summary.written) == (None, True, True)
    made = read_bundle(tmp_path / "bundle")
    assert "top-1" in candidates.refused(made.artefacts[0], BF16)
    assert not candidates.refused(made.artefacts[0], "openvino")
    monkeypatch.setattr(candidates, "usable", lambda backend: (backend in ("ort", BF16), ""))
    monkeypatch.setattr("edgesmith.runtime.verify.usable", candidates.usable)
    assert [one.backend for one in verify(made).replays] == ["ort"]
    with load(made) as model:
        assert model.chosen.backend == "ort"
        assert f"with {BF16} on the cpu: it failed where the bundle was made" in model.why()
    with pytest.raises(NotAvailable, match="it failed where the bundle was made"):
        load(made, device=BF16)


def test_a_bf16_that_does_not_open_here_leaves_the_bundle_valid(tmp_path, monkeypatch):
    real = candidates.open_artefact

    def open_artefact(bundle, artefact, backend, **options):
        if backend == BF16:
            raise ModelError("OpenVINO cannot compile it")
        return real(bundle, artefact, backend, **options)

    monkeypatch.setattr("edgesmith.runtime.verify.open_artefact", open_artefact)
    monkeypatch.setattr("edgesmith.runtime.verify.usable", lambda backend: (backend in ("ort", BF16), ""))
    report = verify(colour_bundle(tmp_path / "b"))
    assert report.verdict == "passed"
    assert {one.status for one in report.replays if one.backend == BF16} == {"differs"}


@pytest.mark.parametrize("fact", [None, 3, [], "no", {BF16: ""}, {"ort": "why"}])
def test_a_fact_of_nonsense_refuses_nothing(fact, tmp_path):
    artefact = colour_bundle(tmp_path / "b").artefacts[0]
    strange = dataclasses.replace(artefact, facts={candidates.ARITHMETIC: fact})
    assert candidates.refused(strange, BF16) == ""


def test_what_gives_other_answers_here_is_named_and_remembered(tmp_path, monkeypatch):
    made = colour_bundle(tmp_path / "b")
    real = candidates.open_artefact

    def open_artefact(bundle, artefact, backend, **options):
        session = real(bundle, artefact, "ort", **options)
        return Noisy(session, 0.5) if backend == BF16 else session

    monkeypatch.setattr("edgesmith.runtime.model.open_artefact", open_artefact)
    monkeypatch.setattr("edgesmith.runtime.model.usable", lambda backend: (backend in ("ort", BF16), ""))
    with load(made) as model:
        lines = [line for line in model.why().splitlines() if line.startswith("not taken: ")]
    assert len(lines) == 2  # FP32 and INT8
    assert all(BF16 in line and "gives other outputs here" in line for line in lines)
    (file,) = (tmp_path / "cache").iterdir()
    assert len(json.loads(file.read_text())["refused"]) == 2
    monkeypatch.setattr(autotune, "measure", lambda *_: pytest.fail("measured again"))
    with load(made) as model:
        assert [line for line in model.why().splitlines() if line.startswith("not taken: ")] == lines
