"""The experiment on rules: on made-up pools whose answer is known, and the networks that are slower by so much."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from experiments import gate_error_rates

from edgesmith.bench.gate.gate import LatencyPair, Rule
from edgesmith.runtime.errors import UsageError
from support.gate_corpus import chain


def pool(slowdown, count=30, drift=0.0, seed=0):
    """Pairs that drift together over time: what hits base and new of one pair alike."""
    rng, made = np.random.default_rng(seed), []
    for index in range(count):
        level = 0.004 * (1 + drift * index / count) * np.exp(rng.normal(0, 0.003))
        base = level * np.exp(rng.normal(0, 0.01, (8, 4)))
        new = level * (1 + slowdown) * np.exp(rng.normal(0, 0.003) + rng.normal(0, 0.01, (8, 4)))
        made.append(LatencyPair(tuple(map(tuple, base)), tuple(map(tuple, new))))
    return made


def alarms(slowdown, **settings):
    return {
        rate.rule: rate for rate in gate_error_rates.rates(pool(slowdown, **settings), slowdown, Rule(), repeats=100)
    }


def test_a_drifting_machine_fools_the_rules_that_do_not_pair():
    found = alarms(0.0, drift=0.3)
    assert found["edgesmith gate"].alarms == 0
    assert found["edgesmith gate, as they ran"].alarms == 0
    assert found["Mann-Whitney, sequential"].alarms > 0.2
    assert found["stored baseline, 10 %"].alarms > 0.1
    assert found["pytest-benchmark, min:5%"].alarms > 0.1


def test_a_five_per_cent_slowdown_on_a_steady_machine():
    found = alarms(0.05)
    assert found["edgesmith gate"].alarms >= 0.99
    assert found["pyperf compare_to"].alarms >= 0.99
    assert found["stored baseline, 10 %"].alarms <= 0.05


def test_gates_in_order_use_each_pair_once():
    told = gate_error_rates.in_order(pool(0.1, count=30), Rule())
    assert sum(used for _, used in told) <= 30
    assert {name for name, _ in told} == {"slower"}


def test_too_few_pairs_are_refused():
    with pytest.raises(UsageError, match="too few pairs"):
        gate_error_rates.rates(pool(0.0, count=10), 0.0, Rule())


def test_the_chain_has_the_work_it_says_and_stays_normal(tmp_path):
    counts = []
    for layers in (100, 103):
        path = chain(tmp_path / f"{layers}.onnx", layers)
        counts.append(sum(node.op_type == "Conv" for node in onnx.load(path).graph.node))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        output = session.run(None, {"input": np.random.default_rng(0).standard_normal((1, 32, 28, 28), np.float32)})[0]
        positive = np.abs(output[output != 0])
        assert np.isfinite(output).all()
        assert positive.min() > np.finfo(np.float32).tiny
        assert positive.max() < 1e6
    assert [b - a for a, b in itertools.pairwise(counts)] == [3]
