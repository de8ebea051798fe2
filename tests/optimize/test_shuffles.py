"""Channel shuffles: taken up where that is exact, left alone elsewhere, with and without filling up, at any batch."""

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesmith.optimize.equivalence import compare
from edgesmith.optimize.optimizer import optimize
from support.graphs import model, ops

i64 = np.int64


def shuffle(source, result, channels, groups=2, size=4, batch="N"):
    first = "0" if batch == "N" else batch
    return (
        f" {result}_a = Reshape({source}, {result}_s) {result}_b = Transpose<perm=[0,2,1,3,4]>({result}_a)"
        f" {result} = Reshape({result}_b, {result}_t)",
        {
            f"{result}_s": i64([int(first), groups, channels // groups, size, size]),
            f"{result}_t": i64([int(first), channels, size, size]),
        },
    )


def network(blocks, channels, batch="N", tail="y = Conv(x{last}, wy)", seed=0, depthwise=True):
    """Return a stack of blocks like ShuffleNetV2's: split, transform one half, join, shuffle."""
    rng = np.random.default_rng(seed)
    half, text, weights = channels // 2, "", {"wy": (5, channels, 1, 1), "halves": i64([channels // 2] * 2)}
    text += "p = Conv(x, wp) q = Relu(p) r = Conv(x, wq) c0 = Concat<axis=1>(q, r)"
    weights |= {"wp": (half, 3, 1, 1), "wq": (half, 3, 1, 1)}
    moved, more = shuffle("c0", "x0", channels, batch=batch)
    text, weights = text + moved, weights | more
    for block in range(blocks):
        text += (
            f" l{block}, m{block} = Split<axis=1>(x{block}, halves) d{block} = Conv(m{block}, u{block}, k{block})"
            f" e{block} = Relu(d{block})"
        )
        inner = f"e{block}"
        if depthwise:
            text += f" f{block} = Conv<group={half}, pads=[1,1,1,1]>(e{block}, v{block})"
            weights |= {f"v{block}": (half, 1, 3, 3)}
            inner = f"f{block}"
        text += f" h{block} = Conv({inner}, w{block}) c{block + 1} = Concat<axis=1>(l{block}, h{block})"
        weights |= {f"u{block}": (half, half, 1, 1), f"w{block}": (half, half, 1, 1)}
        weights[f"k{block}"] = rng.standard_normal(half).astype(np.float32)
        moved, more = shuffle(f"c{block + 1}", f"x{block + 1}", channels, batch=batch)
        text, weights = text + moved, weights | more
    outputs = "float[N,5,4,4] y" if batch == "N" else f"float[{batch},5,4,4] y"
    return f"(float[{batch},3,4,4] x) => ({outputs}) {{ {text} {tail.format(last=blocks)} }}", weights


def run(tmp_path, text, weights, **options):
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    made = model(text, weights)
    for tensor in made.graph.initializer:
        if len(tensor.dims) == 4:  # small weights, so that float rounding stays small behind many layers
            array = onnx.numpy_helper.to_array(tensor) * np.float32(0.3)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(made, source)
    report = optimize(source, result, verify=False, **options)
    check = compare(source, result)
    assert check.verdict == "equal", check
    onnx.checker.check_model(onnx.load(result), full_check=True)
    assert optimize(result, tmp_path / "again.onnx", verify=False, **options).rewrites == 0
    return ops(result), report


@pytest.mark.parametrize("batch", ["N", "2"])
@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_blocks_lose_their_shuffles(blocks, batch, tmp_path):
    left, _ = run(tmp_path, *network(blocks, 12, batch))
    assert set(left) <= {"Conv", "Relu", "Split", "Concat"}
    assert left.count("Concat") == blocks + 1


@pytest.mark.parametrize("block", [4, 8, 16])
def test_groups_are_filled_up(block, tmp_path, monkeypatch):
    monkeypatch.setattr("edgesmith.optimize.passes._channel_reordering.MOST_READ", 100.0)
    left, _ = run(tmp_path, *network(2, 12), target="ort-x86", block=block)
    assert set(left) <= {"Conv", "Relu", "Concat"}
    loaded = onnx.load(tmp_path / "result.onnx")
    dims = [tensor.dims[0] for tensor in loaded.graph.initializer if len(tensor.dims) == 4]
    assert all(dim % block == 0 for dim in dims if dim != 5)


def test_groups_whose_filling_up_costs_too_much_stay_and_chains_are_filled_up(tmp_path):
    plain, _ = run(tmp_path, *network(2, 12))
    filled, _ = run(tmp_path, *network(2, 12), target="ort-x86", block=16)
    assert filled == plain
    loaded = onnx.load(tmp_path / "result.onnx")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in loaded.graph.initializer}
    depthwise = [shapes[node.input[1]] for node in loaded.graph.node if any(a.name == "group" for a in node.attribute)]
    assert depthwise == [(16, 1, 3, 3)] * 2


def weights_left(tmp_path):
    loaded = onnx.load(tmp_path / "result.onnx")
    return {t.name.removesuffix("_regrouped"): tuple(t.dims) for t in loaded.graph.initializer if len(t.dims) == 4}


def test_groups_are_filled_up_to_blocks_of_two_and_to_no_others(tmp_path):
    """Pairs are cheap here and sixteens are not: where those are too dear nothing is filled up to anything."""
    run(tmp_path, *network(1, 12), target="ort-x86", block=2)
    assert weights_left(tmp_path)["wy"] == (5, 14, 1, 1)
    run(tmp_path, *network(1, 12), target="ort-x86", block=16)
    assert weights_left(tmp_path)["wy"] == (5, 12, 1, 1)


def test_where_no_shuffle_goes_no_chain_is_filled_up(tmp_path):
    text, weights = network(0, 12, tail="z = Relu(x{last}) y = Conv(x{last}, wy)")
    chain = "d = Conv(x, wd) e = Conv<group=6, pads=[1,1,1,1]>(d, we) v = Conv(e, wf)"
    text = text.replace("{ p =", f"{{ {chain} p =").replace("=> (", "=> (float[N,12,4,4] z, float[N,4,4,4] v, ")
    onnx.save(model(text, weights | {"wd": (6, 3, 1, 1), "we": (6, 1, 3, 3), "wf": (4, 6, 1, 1)}), tmp_path / "m.onnx")
    report = optimize(
        tmp_path / "m.onnx", tmp_path / "result.onnx", passes=("eliminate_channel_shuffles",), verify=False, block=8
    )
    assert [len(entry.rewrites) for entry in report.passes] == [0]
    assert [len(entry.refusals) for entry in report.passes] == [1]
    assert weights_left(tmp_path)["we"] == (6, 1, 3, 3)


def test_the_rests_of_groups_share_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr("edgesmith.optimize.passes._channel_reordering.MOST_READ", 100.0)
    monkeypatch.setattr("edgesmith.optimize.passes._channel_reordering.MOST_PIECES", 100.0)
    run(tmp_path, *network(4, 48), target="ort-x86", block=16)
    loaded = onnx.load(tmp_path / "result.onnx")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in loaded.graph.initializer}
    made: dict = {}
    for node in loaded.graph.node:
        if node.op_type == "Conv" and node.input[1].startswith(("wp", "wq", "w0")):
            key = node.input[1][:2]
            made[key] = made.get(key, 0) + shapes[node.input[1]][0]
    # 24 channels in groups of 12, 6, 3, 2 and 1 take two blocks of 16, not five.
    assert set(made.values()) == {32}, made


# name -> (last nodes, extra weights): the shuffled order itself, or a channel read twice, is wanted.
TAILS = {
    "an output": ("y0 = Conv(x{last}, wy) y = Relu(y0) z = Identity(x{last})", "float[N,12,4,4] z"),
    "a sum": ("z0 = Conv(x{last}, wz) z1 = Add(z0, x{last}) y = Conv(z1, wy)", ""),
    "a softmax over channels": ("z = Softmax<axis=1>(x{last}) y = Conv(z, wy)", ""),
    "a grouped Conv": ("z = Conv<group=3>(x{last}, wg) y = Conv(z, wy)", ""),
}


@pytest.mark.parametrize("name", TAILS)
def test_a_reader_of_the_order_gets_it(name, tmp_path):
    tail, more = TAILS[name]
    text, weights = network(2, 12, tail=tail)
    if more:
        text = text.replace("y) {", f"y, {more}) {{", 1)
    left, _ = run(tmp_path, text, weights | {"wz": (12, 12, 1, 1), "wg": (12, 4, 1, 1)})
    assert "Transpose" not in left
    assert left.count("Gather") == 1


def test_one_shuffle_for_an_output_is_left_alone(tmp_path):
    text, weights = network(0, 12, tail="y = Relu(x{last})")
    text = text.replace("float[N,5,4,4] y", "float[N,12,4,4] y")
    left, report = run(tmp_path, text, weights)
    assert "Transpose" in left
    refusals = next(entry.refusals for entry in report.passes if entry.name == "eliminate_channel_shuffles")
    assert "need the shuffled order" in refusals[0][1]


def test_a_channel_read_twice_is_left_alone(tmp_path):
    text, weights = network(1, 12, tail="z = Concat<axis=1>(x{last}, x{last}) y = Conv(z, wy)")
    left, _ = run(tmp_path, text, weights | {"wy": (5, 24, 1, 1)})
    assert "Transpose" in left


def test_what_looks_like_a_shuffle_but_mixes_positions_is_left_alone(tmp_path):
    text = (
        "(float[1,4,2,2] x) => (float[1,4,2,2] y) { a = Conv(x, w) b = Reshape(a, s) c = Transpose<perm=[0,2,1,3]>(b)"
        " d = Reshape(c, t) y = Conv(d, w) }"
    )
    weights = {"w": (4, 4, 1, 1), "s": i64([1, 8, 2, 1]), "t": i64([1, 4, 2, 2])}
    left, _ = run(tmp_path, text, weights)
    assert "Transpose" in left


def test_a_gather_of_channels_is_a_shuffle(tmp_path):
    text = "(float[N,3,4,4] x) => (float[N,5,4,4] y) { a = Conv(x, w) b = Gather<axis=1>(a, p) y = Conv(b, v) }"
    left, _ = run(tmp_path, text, {"w": (6, 3, 1, 1), "v": (5, 4, 3, 3), "p": i64([5, 0, -3, 2])} | {"v": (5, 4, 1, 1)})
    assert left == ["Conv"]  # without the Gather both are one


@given(
    blocks=st.integers(0, 3), half=st.integers(1, 5), depthwise=st.booleans(), block=st.sampled_from([1, 4]),
    tail=st.sampled_from(list(TAILS)[1:3]), seed=st.integers(0, 9),
)  # fmt: skip
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stack(blocks, half, depthwise, block, tail, seed, tmp_path):
    text, weights = network(blocks, 2 * half, tail=TAILS[tail][0], seed=seed, depthwise=depthwise)
    weights |= {"wz": (2 * half, 2 * half, 1, 1), "wy": (5, 2 * half, 1, 1)}
    run(tmp_path, text, weights, target="ort-x86", block=block)
