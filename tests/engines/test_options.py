"""Options that only some TensorRTs have: set, noted or refused, and what a GPU-less TensorRT-RTX says to each."""

from types import SimpleNamespace

import pytest

from edgesmith.runtime.engines import _options, flavour
from edgesmith.runtime.engines.build import Options, build_engine
from edgesmith.runtime.errors import BuildError, NotAvailable
from support.engine_graphs import saved, small_net

trt = pytest.importorskip("tensorrt_rtx_bindings")

REFUSED = {
    "refit": (Options(refit=True), BuildError, "this step needs a GPU and its driver"),
    "strip": (Options(strip=True), BuildError, "this step needs a GPU and its driver"),
    "version-compatible": (Options(version_compatible=True), BuildError, "need TensorRT's lean runtime"),
    "hardware": (Options(hardware="ampere_plus"), NotAvailable, "no hardware compatibility level ampere_plus"),
    "DLA": (Options(dla=0), NotAvailable, "there is no DLA core 0; got 0 cores"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_offered_here_is_refused(case, tmp_path):
    options, kind, message = REFUSED[case]
    onnx = saved(small_net("fp16"), tmp_path / "n.onnx")
    with pytest.raises(kind, match=message):
        build_engine(onnx, tmp_path / "n.engine", precision="fp16", options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["n.onnx"]


def test_an_unused_timing_cache_is_said(tmp_path):
    onnx = saved(small_net("fp16"), tmp_path / "n.onnx")
    built = build_engine(
        onnx, tmp_path / "n.engine", precision="fp16", options=Options(timing_cache=str(tmp_path / "t"))
    )
    assert built.notes == ("TensorRT-RTX does not time kernels at build time; the timing cache is not used",)
    assert not (tmp_path / "t").exists()


def test_a_timing_cache_belongs_to_one_machine():
    module = SimpleNamespace(__name__="tensorrt", __version__="10.3.0")
    base = _options.timing_cache_path("c", module, "8.7", "Orin")
    others = [
        _options.timing_cache_path("c", module, "8.7", "Orin Nano"),
        _options.timing_cache_path("c", module, "8.6", "Orin"),
        _options.timing_cache_path("c", SimpleNamespace(__name__="tensorrt", __version__="10.4.0"), "8.7", "Orin"),
    ]
    assert _options.timing_cache_path("c", module, "8.7", "Orin") == base
    assert len({base, *others}) == 4


def test_rtx_is_strongly_typed_and_builds_ahead_of_time():
    found = flavour.probe_features(trt)
    assert found == flavour.Features(
        cross_build=True, weak_flags=(), explicit_batch_flag=False, strongly_typed_flag=True, progress_monitor=True,
        dla=True, timing_cache=False, inspector=True)  # fmt: skip
    assert list(flavour.sm_targets(trt)) == ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]


def test_a_module_with_precision_flags_is_weakly_typed():
    """The shape of TensorRT 8.5 to 10, whose enums this takes from their Python documentation."""
    old = SimpleNamespace(
        BuilderFlag=SimpleNamespace(FP16=0, INT8=1),
        NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
        IBuilderConfig=SimpleNamespace(create_timing_cache=None),
    )
    found = flavour.probe_features(old)
    assert (found.weak_flags, found.explicit_batch_flag, found.cross_build) == (("FP16", "INT8"), True, False)
    assert (found.timing_cache, found.progress_monitor, found.dla) == (True, False, False)
