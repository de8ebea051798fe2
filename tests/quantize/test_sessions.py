"""What ONNX Runtime's highest level of optimisation refuses is computed at the next one."""

import numpy as np
import pytest

from edgesmith.optimize.calibration.ort_runs import session
from edgesmith.optimize.calibration.statistics import collect
from edgesmith.runtime.errors import ModelError
from support.quant_graphs import Graph, images


def two_added():
    """Two convolutions with 22 channels each and their sum, as in NASNet's cells; the first one is an output too."""
    graph = Graph()
    graph.conv("input", "stem", (22, 3, 1, 1))
    graph.node("Relu", ["stem"], "seen")
    for name in ("one", "other"):
        graph.conv("seen", name, (22, 22, 1, 1))
    graph.node("Add", ["one", "other"], "sum")
    return graph.model({"sum": ["N", 22, 16, 16], "one": ["N", 22, 16, 16]})


@pytest.mark.parametrize("histograms", [True, False])
def test_a_convolution_that_is_added_and_watched_is_seen(histograms, capfd):
    model, batch = two_added(), images(4)
    written = session(model).run(["one", "sum"], {"input": batch})
    fast = session(model, optimise=True).run(["one", "sum"], {"input": batch})
    for one, other in zip(written, fast, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    found = collect(model, ["one", "sum"], [batch], histograms=histograms)
    assert found["one"].high == pytest.approx(written[0].max(), rel=1e-4)
    assert capfd.readouterr().out == ""


def test_what_no_level_takes_is_refused_with_the_first_reason(capfd):
    model = two_added()
    model.graph.node[0].op_type = "NoSuchOperator"
    for optimise in (True, False):
        with pytest.raises(ModelError, match="ONNX Runtime refuses the graph; got .*NoSuchOperator"):
            session(model, optimise=optimise)
    assert capfd.readouterr().out == ""
