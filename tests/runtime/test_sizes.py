"""An input with free dimensions gets its size from the command or the spec; nothing is made up."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.bench import suite
from edgesmith.bench.measure import layer_profile
from edgesmith.bench.measure.workload import BenchTarget, open_workload
from edgesmith.bench.sweep.sweep import SweepCell
from edgesmith.cli.bench import bench_command
from edgesmith.cli.describe import describe_command
from edgesmith.cli.gate import gate_command
from edgesmith.cli.sweep import sweep_command
from edgesmith.optimize.graph import complexity
from edgesmith.runtime.common.sizes import parse_sizes, settle_shape
from edgesmith.runtime.errors import UsageError
from edgesmith.runtime.spec import SPEC_KEY, ModelSpec, Preprocess
from support.quant_graphs import Graph
from support.several_inputs import write_net

SPEC = ModelSpec("net", (3, 24, 24), 8, input_name="x", preprocess=Preprocess((24, 24), 0))
OTHER = ModelSpec("net", (1, 24, 24), 8, input_name="x")
# declared, --shape, spec, batch -> sizes
GOOD = {
    "nothing is free": ((1, 3, 8, 8), "", None, 4, (1, 3, 8, 8)),
    "the batch": ((None, 3, 8, 8), "", None, 4, (4, 3, 8, 8)),
    "the spec tells": ((None, 3, None, None), "", SPEC, 2, (2, 3, 24, 24)),
    "the command goes first": ((None, 3, None, None), "x=1x3x9x7", SPEC, 2, (1, 3, 9, 7)),
    "the only input needs no name": ((1, 3, None, None), "1x3x9x7", None, 1, (1, 3, 9, 7)),
}  # fmt: skip
BAD = {
    "height and width": ((None, 3, None, None), "", None, r"axes 2, 3 are dynamic.*give --shape x=1x3xSIZExSIZE"),
    "a spec of something else": ((1, 3, None, None), "", OTHER, "has no fixed size"),
    "a spec of another input": ((1, 3, None, None), "", ModelSpec("n", (3, 9, 9), input_name="y"), "has no fixed size"),
    "another rank": ((1, 3, None, None), "1x3x9", None, "match the input 'x'; got 1x3x9; expected 1x3x[?]x[?]"),
    "another channel": ((1, 3, None, None), "1x4x9x9", SPEC, "does not match"),
    "another name": ((1, 3, None, None), "z=1x3x9x9", SPEC, "gives an unknown input; got z"),
    "no numbers": ((1, 3, None, None), "1x3xHxW", SPEC, "cannot read the shape"),
    "zero": ((1, 3, None, None), "1x3x0x9", SPEC, "cannot read the shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_every_dimension_gets_a_size(case):
    shape, given, spec, batch, expected = GOOD[case]
    assert settle_shape({"x": shape}, given, spec, batch) == {"x": expected}


@pytest.mark.parametrize("case", BAD)
def test_what_nobody_says_is_asked_for(case):
    shape, given, spec, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        settle_shape({"x": shape}, given, spec)


def test_two_inputs_need_their_names():
    shapes = {"a": (1, None), "b": (1, None)}
    assert settle_shape(shapes, "a=1x2,b=1x3") == {"a": (1, 2), "b": (1, 3)}
    with pytest.raises(UsageError, match="a shape without a name"):
        settle_shape(shapes, "1x2")
    assert parse_sizes("") == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_size_is_never_made_up(seed):
    """Whatever is free and not said is refused; whatever is answered fits and was said."""
    rng = np.random.default_rng(seed)
    real = tuple(int(size) for size in rng.integers(2, 9, rng.integers(1, 5)))
    shape = tuple(None if rng.random() < 0.5 else size for size in real)
    given = "x".join(map(str, real))
    assert settle_shape({"x": shape}, f"x={given}") == {"x": real}
    if None in shape[1:]:
        with pytest.raises(UsageError, match="dynamic"):
            settle_shape({"x": shape})
    else:
        assert settle_shape({"x": shape}, batch=5) == {"x": tuple(5 if size is None else size for size in shape)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network of any height and width: with the spec in it, without, and one that fails on every input."""
    folder = tmp_path_factory.mktemp("free")
    for name, metadata in (("told", {SPEC_KEY: SPEC.to_json()}), ("untold", {})):
        graph = Graph()
        graph.conv("input", "y", (8, 3, 3, 3))
        made = graph.model({"y": ["N", 8, "H", "W"]}, ("N", 3, "H", "W"), metadata=metadata)
        made.graph.input[0].name = made.graph.node[0].input[0] = "x"
        onnx.save(made, folder / f"{name}.onnx")
    graph = Graph()
    graph.node("Reshape", ["input", graph.array("to", [7], np.int64)], "y")
    made = graph.model({"y": ["M"]}, ("N", 3, 16, 16))
    onnx.save(made, folder / "fails.onnx")
    return folder


MACS = 8 * 3 * 3 * 3


def test_describe_counts_at_the_size_that_is_said(files):
    assert complexity.describe(files / "told.onnx").macs == 24 * 24 * MACS
    assert complexity.describe(files / "told.onnx", "1x3x10x20").macs == 10 * 20 * MACS
    done = CliRunner().invoke(describe_command, [str(files / "untold.onnx"), "--shape", "1x3x10x20"])
    assert done.exit_code == 0, done.output
    assert "3x10x20" in done.stdout


COMMANDS = [
    (describe_command, []), (bench_command, ["--processes", "1"]), (gate_command, ["--baseline"]),
    (sweep_command, ["--processes", "1"]),
]  # fmt: skip


@pytest.mark.parametrize(("command", "words"), COMMANDS)
def test_without_a_size_nothing_is_measured(command, words, files, tmp_path):
    path = str(files / "untold.onnx")
    more = [path] if words == ["--baseline"] else ["--out", str(tmp_path / "r")] if words else []
    done = CliRunner().invoke(command, [path, *words, *more])
    assert done.exit_code == 2, done.output
    assert "give --shape x=1x3xSIZExSIZE" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_last_of_several_files_is_refused_before_the_first_is_measured(files, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "run_suite", lambda *args, **options: pytest.fail("something was measured"))
    words = [str(files / f"{name}.onnx") for name in ("told", "fails", "untold")]
    done = CliRunner().invoke(bench_command, [*words, "--out", str(tmp_path / "r.json")])
    assert (done.exit_code, "give --shape x=1x3xSIZExSIZE" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(("path", "words"), [("told", []), ("untold", ["--shape", "x=1x3x12x14"])])
def test_a_sweep_measures_at_the_size_that_is_said(path, words, files, tmp_path):
    words = [str(files / f"{path}.onnx"), *words, "--processes", "1", "--seconds", "0.01", "--out", str(tmp_path / "s")]
    for count in (1, 0):  # measured, then found
        done = CliRunner().invoke(sweep_command, words)
        assert (done.exit_code, f"{count} cells measured" in done.stderr) == (0, True), done.output


def test_a_cell_of_another_shape_is_another_cell():
    cell = SweepCell("n.onnx", "fp32", "ort", 1, 1)
    assert cell.key != replace(cell, shape="1x3x9x9").key != replace(cell, shape="1x3x8x8").key


def test_every_input_of_a_bare_file_is_fed(tmp_path):
    path = write_net(tmp_path / "net.onnx", "scaled", "N")
    call = open_workload(BenchTarget(str(path), batch=2)).call
    assert {name: array.shape for name, array in call.args[0].items()} == {"image": (2, 1, 4, 6), "scale": (2, 2)}
    rows = layer_profile.profile(BenchTarget(str(path)), 1)
    assert {"Div"} <= {row["op"] for row in rows}


def test_what_is_measured_has_the_size_that_is_said(files):
    for path, shape, expected in (("told", "", (1, 3, 24, 24)), ("untold", "1x3x12x14", (1, 3, 12, 14))):
        call = open_workload(BenchTarget(str(files / f"{path}.onnx"), shape=shape)).call
        assert call.args[0]["x"].shape == expected
        assert next(iter(call().values())).shape == (1, 8, *expected[2:])


def test_a_network_that_does_not_run_is_no_empty_table(files, tmp_path):
    words = [str(files / "fails.onnx"), "--processes", "1", "--seconds", "0.01", "--metrics", "latency"]
    done = CliRunner().invoke(bench_command, [*words, "--out", str(tmp_path / "r.json")])
    assert done.exit_code == 3, done.output
    assert "was not measured: ONNX Runtime failed" in done.stderr
