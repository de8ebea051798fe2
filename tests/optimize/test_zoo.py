"""Networks of the zoo, exported with BatchNorm kept: every one folds, and no node is left that need not be."""

import pytest
import torch

from edgesmith.export.to_onnx import export
from edgesmith.models import catalog
from edgesmith.optimize.optimizer import optimize
from support.graphs import ops

# name -> the node types that may be left
CLASSIFIER = {"Conv", "Gemm", "GlobalAveragePool", "Reshape", "Flatten", "Relu", "MaxPool", "ReduceMean"}
LEFT = {
    "mobilenet_v2": CLASSIFIER | {"Clip", "Add"},
    "shufflenet_v2_x0_5": CLASSIFIER | {"Concat", "Split"},
    "mobilenet_v3_small": CLASSIFIER | {"HardSwish", "HardSigmoid", "Mul", "Add"},
    "resnet18": CLASSIFIER | {"Add"},
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dynamic"), [(name, "shuffle" in name) for name in LEFT])
def test_a_network_folds(name, dynamic, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    export(
        catalog.build_network(name, num_classes=10),
        catalog.network_spec(name, weights="digits"),
        source,
        dynamic_batch=dynamic,
    )
    report = optimize(source, result)
    assert report.check.verdict == "equal", report.check
    assert not any(entry.rolled_back for entry in report.passes)
    assert set(ops(result)) <= LEFT[name]
    assert optimize(result, source, verify=False).rewrites == 0
