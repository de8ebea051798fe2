"""Progress of a build: it only rises, whatever the builder says, and a real build fills most of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.runtime.engines.build import build_engine
from edgesmith.runtime.engines.progress import Percent
from support.engine_graphs import saved, small_net

NAMES = st.sampled_from(["a", "b", "c"])
EVENTS = st.one_of(
    st.fixed_dictionaries({"event": st.just("phase"), "name": NAMES, "parent": st.none() | st.just("root"),
                           "steps": st.integers(0, 5)}),
    st.fixed_dictionaries({"event": st.just("step"), "name": NAMES, "step": st.integers(0, 9)}),
    st.fixed_dictionaries({"event": st.just("end"), "name": NAMES}),
)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.lists(EVENTS, max_size=30))
def test_it_only_rises_to_a_hundred(events):
    told = []
    percent = Percent(told.append)
    for event in events:
        percent(event)
    assert all(points > 0 for points in told)
    assert sum(told) < 100
    percent.finish()
    assert sum(told) == 100


def test_a_nested_phase_is_one_step_of_its_parent():
    told = []
    percent = Percent(told.append)
    percent({"event": "phase", "name": "build", "parent": None, "steps": 4})
    percent({"event": "step", "name": "build", "step": 0})
    percent({"event": "phase", "name": "tactics", "parent": "build", "steps": 2})
    percent({"event": "step", "name": "tactics", "step": 0})
    assert sum(told) == 37


def test_a_real_build_moves_it(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    told = []
    onnx = saved(small_net("fp16"), tmp_path / "n.onnx")
    build_engine(onnx, tmp_path / "n.engine", precision="fp16", progress=Percent(told.append))
    assert len(told) >= 4
    assert sum(told) >= 60
