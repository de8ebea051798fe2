"""The one topological sort: named cases, and random graphs against the definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.optimize.graph.topological_sort import topological

# needs -> order, nodes of the cycle
CASES = {
    "nothing": ([], [], []),
    "in order": ([set(), {0}, {1}], [0, 1, 2], []),
    "reversed": ([{1}, {2}, set()], [2, 1, 0], []),
    "the first free one is first": ([{2}, set(), set()], [1, 2, 0], []),
    "a node that reads itself": ([set(), {1}], [0, 1], [1]),
    "two that need each other": ([{1}, {0}, set()], [2, 0, 1], [0, 1]),
    "a node behind a cycle is not on it": ([{1}, {2}, {1}], [0, 1, 2], [1, 2]),
}


@pytest.mark.parametrize("case", CASES)
def test_named_graphs(case):
    needs, order, cycle = CASES[case]
    assert topological(needs) == (order, cycle)


@given(
    st.integers(0, 12).flatmap(
        lambda n: st.lists(st.sets(st.integers(0, max(n - 1, 0)), max_size=3), min_size=n, max_size=n)
    )
)
def test_random_graphs(needs):
    order, cycle = topological(needs)
    assert sorted(order) == list(range(len(needs)))
    if cycle:
        assert all(after in needs[node] for node, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        return
    done = set()
    for node in order:
        assert node == min(index for index, wanted in enumerate(needs) if index not in done and wanted <= done)
        done.add(node)


def test_depth_is_no_limit():
    count = 20_000
    order, cycle = topological([{index + 1} for index in range(count)] + [set()])
    assert (order[0], order[-1], cycle) == (count, 0, [])
