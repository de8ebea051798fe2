"""Whether the optimizer is right without its checking net: same results, same interface, nothing left to do."""

import onnx
import onnx.shape_inference

from edgesmith.optimize.equivalence import compare
from edgesmith.optimize.optimizer import optimize
from support.graphs import ops

TARGETS = {"generic": {}, "ort-x86": {"target": "ort-x86", "block": 8}}


def sound(made, folder, expected=None, **options):
    """Optimise without checking, compare, and return the node types that are left."""
    source, result = folder / "source.onnx", folder / "result.onnx"
    onnx.save(made, source)
    report = optimize(source, result, verify=False, **options, raise_opset=False)
    assert not any(entry.rolled_back for entry in report.passes), report.passes
    check = compare(source, result)
    assert check.verdict == "equal", check
    after = onnx.load(result)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(after), full_check=True)
    assert list(after.graph.input) == list(made.graph.input)
    assert list(after.graph.output) == list(made.graph.output)
    again = optimize(result, folder / "again.onnx", verify=False, **options, raise_opset=False)
    assert again.rewrites == 0, again.passes
    if expected is not None:
        assert ops(after) == expected
    return after
