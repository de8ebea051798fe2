"""What is measured of an engine: its stages and kernels, on an emulated GPU whose times are known."""

import json

import pytest

from edgesmith.bench.measure import in_process, layer_profile
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.workload import BenchTarget, Workload, open_workload
from edgesmith.bench.metrics import device_time
from edgesmith.bench.result import Subject
from edgesmith.runtime.backends._base import random_feeds
from edgesmith.runtime.backends._engine import TrtSession
from edgesmith.runtime.engines.kernels import Kernel, KernelTensor
from edgesmith.runtime.errors import NotAvailable
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.bundles import colour_bundle
from support.cuda import COMPUTE_MS, LAYERS, TRT, Cuda, Engine

SPEC = ModelSpec("tiny", (3, 4, 4), 3, preprocess=Preprocess(crop=(4, 4), resize=4), labels=("red", "green", "blue"))


@pytest.fixture
def workload():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        yield Workload(lambda: None, {}, {}, session, SPEC, random_feeds(session.inputs))


def test_the_stages_of_an_engine_are_the_devices_own(workload):
    told = in_process.end_to_end(workload, 3)
    assert set(told) == {
        "decode_s", "preprocess_s", "copy_in_s", "compute_s", "copy_out_s", "launch_s", "postprocess_s"
    }  # fmt: skip
    assert told["compute_s"] == pytest.approx([1e-3 * COMPUTE_MS] * 3)
    assert told["copy_in_s"] == pytest.approx([1e-6 * 3 * 4 * 4 * 4] * 3)


def test_device_time_is_of_every_call(workload):
    told = in_process.device_time(workload, 4)
    assert told["compute_s"] == pytest.approx([1e-3 * COMPUTE_MS] * 4)
    assert told["copy_out_s"] == pytest.approx([1e-6 * 3 * 4] * 4)


def test_kernels_are_named_as_in_the_sidecar(workload, monkeypatch):
    pool = Kernel("pool", "pooling", (), (), (KernelTensor("y", (1, 3), "fp16"),), ("/pool",))
    monkeypatch.setattr(layer_profile, "_kernels", lambda target: (json.loads(json.dumps(pool.to_dict())),))
    rows = {
        row["layer"]: row for row in layer_profile.profile_engine(workload.session, BenchTarget("x", backend="trt"), 2)
    }
    assert set(rows) == set(LAYERS)
    assert rows["pool"]["seconds"] == pytest.approx(1e-3 * COMPUTE_MS * LAYERS["pool"])
    assert (rows["pool"]["op"], rows["pool"]["shape"]) == ("pooling", "1x3")
    assert (rows["gain"]["op"], rows["gain"]["shape"], rows["gain"]["macs"]) == ("kernel", "", None)


def test_a_cpu_has_no_device_clock(tmp_path):
    bundle = colour_bundle(tmp_path / "colours").source
    with pytest.raises(NotAvailable, match="by the GPU's clock"):
        in_process.device_time(open_workload(BenchTarget(str(bundle), "colours-fp32")), 1)
    subject = Subject("colours", "fp32", "ort", 1, 1)
    with pytest.raises(NotAvailable, match="backend ort"):
        device_time.measure(MetricContext(subject, BenchTarget(str(bundle)), "x"))
