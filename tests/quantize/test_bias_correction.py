"""A bias is corrected by what is certain of a layer's mean error, where the activation behind lets it through."""

import numpy as np
import pytest

from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize.weights.reconstruction import linear_part, mean_error
from support.quant_graphs import Graph

NONE, RELU, RELU6 = (-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0)
DRAW = np.random.default_rng(0).standard_normal((8, 3, 4, 4))

# quantised answer, float answer, what the activation lets through -> what each of 3 channels lacks
CASES = {
    "a shift that all images share": (DRAW, DRAW + 0.5, NONE, 0.5),
    "one image": (DRAW[:1], DRAW[:1] + 0.5, NONE, 0.5),
    "no error": (DRAW, DRAW, NONE, 0.0),
    "one image of eight alone": (DRAW, DRAW + 4.0 * (np.arange(8) == 3)[:, None, None, None], NONE, 0.0),
    "errors of both signs": (DRAW, DRAW + np.where(np.arange(8) % 2, 1.0, -0.9)[:, None, None, None], NONE, 0.0),
    "an error in the tail that a Relu clips": (np.abs(DRAW) - 9 * (DRAW > 1), np.abs(DRAW) - 7 * (DRAW > 1), RELU, 0.0),
    "a shift before a Relu": (np.abs(DRAW) + 1, np.abs(DRAW) + 1.25, RELU, 0.25),
    "an error above six": (np.full((8, 3, 4, 4), 9.0), np.full((8, 3, 4, 4), 7.0), RELU6, 0.0),
    "six at most is wanted": (np.full((8, 3, 4, 4), 5.5), np.full((8, 3, 4, 4), 9.0), RELU6, 0.5),
    "all of a channel is clipped": (-np.abs(DRAW) - 1, -np.abs(DRAW) - 2, RELU, 0.0),
}


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_error_is_what_a_bias_can_mend(case, axis):
    value, wanted, ends, lack = CASES[case]
    sides = (np.moveaxis(side, 1, axis) for side in (value, wanted))
    np.testing.assert_allclose(mean_error(*sides, axis, ends), np.full(3, lack), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_a_matrix_count_as_images(seed):
    wanted = np.random.default_rng(seed).standard_normal((16, 5))
    value = wanted - np.array([0.5, 0.0, -2.0, 0.0, 0.1])
    np.testing.assert_allclose(mean_error(value, wanted, -1), [0.5, 0.0, -2.0, 0.0, 0.1])


def test_unseen_images_lose_less_than_by_the_plain_mean():
    """Errors of ten images around means, some of them 0: the corrected channels of all others are nearer on average."""
    draw = np.random.default_rng(1)
    true = draw.standard_normal(400) * (np.arange(400) % 2) * 0.5
    seen = true + draw.standard_normal((10, 400))
    certain = mean_error(np.zeros_like(seen), seen, 1)
    left, plain = (np.square(each - true).mean() for each in (certain, seen.mean(axis=0)))
    assert left < 0.8 * plain
    assert left < 0.8 * np.square(true).mean()
    assert (np.abs(certain) <= np.abs(seen.mean(axis=0))).all()


# readers of a convolution's output -> what they let through
READERS = {
    "Relu": (["Relu"], (0.0, np.inf)), "Clip": (["Clip"], (0.0, 6.0)), "both": (["Relu", "Clip"], (0.0, np.inf)),
    "Sigmoid": (["Sigmoid"], NONE), "Relu and Sigmoid": (["Relu", "Sigmoid"], NONE), "an output": ([], NONE),
}  # fmt: skip


@pytest.mark.parametrize("case", READERS)
def test_what_the_readers_of_a_layer_let_through(case):
    kinds, ends = READERS[case]
    graph = Graph()
    graph.array("zero", 0.0), graph.array("six", 6.0)
    graph.conv("input", "c", (4, 3, 3, 3))
    for kind in kinds:
        graph.node(kind, ["c", "zero", "six"] if kind == "Clip" else ["c"], kind)
    net = ProtoGraph(graph.model(dict.fromkeys(kinds or ["c"], ("N", 4, 16, 16))))
    assert linear_part(net, "c") == ends
