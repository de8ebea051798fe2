"""Ranges of free sizes: read, kept in spec, file and bundle, used for profiles, and checked by the runtime."""

import json

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import edgesmith as es
from edgesmith.cli import main
from edgesmith.export import engines
from edgesmith.export.api import describe
from edgesmith.export.raw_graph import write_raw
from edgesmith.export.settings import ExportSettings, Flow
from edgesmith.export.sources.options import read_spec_file, spec_text
from edgesmith.export.sources.source import Network
from edgesmith.optimize.graph import spec_metadata
from edgesmith.optimize.trt.profile import settle_profile
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.bundle.manifest import Manifest, parse_manifest
from edgesmith.runtime.common.size_range import SizeRange, parse_range, require_within
from edgesmith.runtime.errors import BundleError, DataError, ModelError, UsageError
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.graphs import model

WHOLE = '[input]\nheight = "16..64 step 16"\nwidth = "16..48 step 16"\n'
RANGES = (SizeRange("x", 2, 16, 64, 16), SizeRange("x", 3, 16, 48, 16))


def network(dims="N,3,H,W", output="N,8,H,W"):
    return model(f"(float[{dims}] x) => (float[{output}] y) {{ c = Conv<pads=[1,1,1,1]>(x, w) y = Relu(c) }}",
                 {"w": (8, 3, 3, 3)})  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(network(), "net.onnx")
    (tmp_path / "net.toml").write_text(WHOLE)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "sizes", "middle"),
    [("320..1280 step 32", (320, 1280, 32), 800), ("1..3", (1, 3, 1), 2), (" 8 .. 24  step 8", (8, 24, 8), 16),
     ("8..16 step 8", (8, 16, 8), 8)],
)  # fmt: skip
def test_a_range_is_read_and_written(text, sizes, middle):
    one = parse_range(text)
    assert (one.least, one.most, one.step, one.middle) == (*sizes, middle)
    assert parse_range(str(one)) == one
    inside = range(sizes[0], sizes[1] + 1, sizes[2])
    assert [size for size in range(1, sizes[1] + 40) if size in one] == list(inside)


@pytest.mark.parametrize(
    "text",
    ["", "320", "320-640", "640..320", "320..320", "320..1281 step 32", "0..8", "8..9 step 0", "-8..8", "1..99999"],
)  # fmt: skip
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="range of a size.*expected such as 320..1280"):
        parse_range(text)


def test_the_spec_has_ranges_and_the_usual_sizes_and_says_both(folder):
    result = CliRunner().invoke(main, ["spec", "net.onnx", "--spec", "net.toml", "-o", "out.toml", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["size"] == {"value": [32, 32], "origin": "a guess: the middle of the range"}
    shown = CliRunner().invoke(main, ["spec", "net.onnx", "--spec", "net.toml"]).stdout
    assert "16..64 step 16" in shown
    spec = describe("net.onnx", spec="net.toml").spec
    assert (spec.ranges, spec.input_shape, spec.preprocess.crop) == (RANGES, (3, 32, 32), (32, 32))
    assert spec.inputs_text == "x float32 (N, 3, 16..64 step 16, 16..48 step 16)"
    assert describe("net.onnx", spec="out.toml").spec == spec
    assert describe("net.onnx", spec="net.toml", size="48x16").spec.input_shape == (3, 48, 16)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_an_axis_of_any_input_can_have_a_range(folder):
    text = "(float[N,40,T] sound, float[N,S] state) => (float[N,40,T] y) { y = Neg(sound) }"
    onnx.save(model(text), "two.onnx")
    (folder / "two.toml").write_text('[ranges]\nsound.2 = "100..400 step 100"\nstate.1 = "8..16 step 4"\n')
    described = describe("two.onnx", spec="two.toml")
    assert described.spec.ranges == (SizeRange("sound", 2, 100, 400, 100), SizeRange("state", 1, 8, 16, 4))
    assert [one.shape for one in described.spec.inputs] == [(40, 200), (12,)]
    assert described.sizes == {"sound": (1, 40, None), "state": (1, None)}
    facts = {fact.name: fact for fact in described.facts}
    (folder / "again.toml").write_text(spec_text(facts))
    assert read_spec_file(folder / "again.toml")["ranges"] == described.spec.ranges


REFUSED = {  # TOML, options, dimensions -> the error
    "nothing says a size": ("", {}, "N,3,H,W", r'has a free size; .*; or a range in .* height = "320..1280 step 32"'),
    "one of two": ('[input]\nheight = "16..64"', {}, "N,3,H,W", "has a free size; got 1x3x40xW"),
    "a fixed axis": (WHOLE, {}, "N,3,16,W", "axis 2 of the input 'x' is not free.*; got size 16 in the file"),
    "a size outside": (WHOLE, {"size": "40"}, "N,3,H,W", "axis 2 of .* is outside its range; got 40; expected 16"),
    "no such input": ('[ranges]\nz.2 = "1..8"', {"size": "8"}, "N,3,H,W", "axis 2 of the input 'z' is not free"),
    "no such axis": ('[ranges]\nx.7 = "1..8"', {"size": "8"}, "N,3,H,W", "axis 7 of the input 'x' is not free"),
    "the batch": ('[ranges]\nx.0 = "1..8"', {}, "N,3,H,W", "cannot read the ranges; got x.0; .*axis 0 is the batch"),
    "no axis": ('[ranges]\nx = "1..8"', {}, "N,3,H,W", "cannot read the ranges; got x = '1..8'; expected x.2 = RANGE"),
    "no range": ("[input]\nheight = 'tall'", {}, "N,3,H,W", "cannot read the range of a size; got 'tall'"),
    "a number": ("[input]\nheight = 320", {}, "N,3,H,W", "input.height in .* cannot be used; got 320"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_ranges_that_cannot_be_used_are_refused_in_one_line(case, folder):
    text, options, dims, said = REFUSED[case]
    onnx.save(network(dims, "N,8,A,B"), "net.onnx")
    (folder / "net.toml").write_text(text)
    with pytest.raises(UsageError, match=said) as error:
        describe("net.onnx", spec="net.toml", **options)
    assert "\n" not in str(error.value)


BAD_SPECS = {
    "not its size": (SizeRange("input", 2, 16, 64, 16),),
    "another input": (SizeRange("z", 2, 16, 64),),
    "the batch": (SizeRange("input", 0, 1, 8),),
    "two for one axis": (SizeRange("input", 2, 8, 40), SizeRange("input", 2, 8, 48)),
    "a text": (SizeRange("input", 2, "8", 64),),
    "a truth value": (SizeRange("input", 2, True, 64),),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_spec_with_wrong_ranges_is_not_read(case):
    spec = ModelSpec("net", (3, 40, 40), preprocess=Preprocess((40, 40)), ranges=BAD_SPECS[case])
    with pytest.raises(ModelError):
        ModelSpec.from_json(spec.to_json())


def test_manifests_with_ranges_are_of_format_four():
    spec = ModelSpec("net", (3, 32, 32), preprocess=Preprocess((32, 32)), ranges=(SizeRange("input", 2, 16, 64, 16),))
    manifest = Manifest(spec, (), {})
    assert manifest.format == 4
    assert parse_manifest(manifest.to_json()).spec == spec
    assert "ranges" not in ModelSpec("net").to_dict()
    with pytest.raises(BundleError, match="only format 4 has"):
        parse_manifest(manifest.to_json().replace('"format": 4', '"format": 1'))


def test_profiles_and_engines_are_built_for_the_whole_range(folder, monkeypatch):
    spec = describe("net.onnx", spec="net.toml").spec
    graph = network()
    spec_metadata.write(graph, spec)
    onnx.save(graph, "net.onnx")
    expected = {"x": ((1, 3, 16, 16), (1, 3, 32, 32), (1, 3, 64, 48))}
    assert settle_profile("net.onnx") == expected
    assert settle_profile("net.onnx", None, {"x": ((1, 3, 16, 32),) * 3}) == {"x": ((1, 3, 16, 32),) * 3}
    assert settle_profile("net.onnx", (1, 2, 8))["x"] == ((1, 3, 16, 16), (2, 3, 32, 32), (8, 3, 64, 48))
    onnx.save(network("N,3,32,W", "N,8,32,W"), "half.onnx")  # its height was fixed since
    graph = onnx.load("half.onnx")
    spec_metadata.write(graph, spec)
    onnx.save(graph, "half.onnx")
    assert settle_profile("half.onnx")["x"] == ((1, 3, 32, 16), (1, 3, 32, 32), (1, 3, 32, 48))
    flow = Flow(ExportSettings("net.onnx", data="random"), print)
    assert engines._profile(flow, folder / "net.onnx") == expected
    onnx.save(network("1,3,32,32", "1,8,32,32"), "fixed.onnx")
    graph = onnx.load("fixed.onnx")
    spec_metadata.write(graph, ModelSpec("net", (3, 32, 32), preprocess=Preprocess((32, 32))))
    onnx.save(graph, "fixed.onnx")
    assert engines._profile(flow, folder / "fixed.onnx") is None


def test_require_within_refuses_and_names_the_range():
    require_within(RANGES, {"x": (1, 3, 64, 16)})
    require_within(RANGES, {"z": (1, 3, 65, 16), "x": (3,)})
    for shape in ((1, 3, 72, 16), (1, 3, 16, 17), (1, 3, 8, 16)):
        with pytest.raises(DataError, match=r"input 'x' is outside its range; got 1x3x.*; expected axis \d: 16.."):
            require_within(RANGES, {"x": shape})


def test_the_bundle_takes_every_size_of_the_range_and_no_other(folder):
    options = {"precision": "fp32,fp16,int8", "target": "ort-x86", "calibration": 32, "spec": "net.toml"}
    summary = es.export("net.onnx", data="random", **options)
    assert summary.written, summary
    assert read_bundle("bundles/net").spec.ranges == RANGES
    source = onnx.load("bundles/net/onnx/net-fp32.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in source] == [1, 3, 0, 0]
    rng = np.random.default_rng(0)
    with es.load("bundles/net", device="cpu") as net:
        for height, width in ((16, 48), (64, 16), (32, 32)):
            sample = rng.standard_normal((1, 3, height, width)).astype(np.float32)
            assert net.run(sample)["y"].shape == (1, 8, height, width)
        for height in (80, 24):
            sample = np.zeros((1, 3, height, 16), np.float32)
            for call in (net.run, net, lambda one: net.run({"x": one})):
                with pytest.raises(DataError, match="outside its range; .* expected axis 2: 16..64 step 16"):
                    call(sample)
        assert net(np.zeros((20, 90, 3), np.uint8)).outputs["y"].shape == (
            8,
            32,
            32,
        )  # images are brought to the usual size
    with pytest.raises(UsageError, match="pixels go into a network of one size"):
        es.export("net.onnx", data="random", **options, input="uint8-nhwc", overwrite=True)


class Down(nn.Module):
    def __init__(self, branch=False):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.branch = nn.Conv2d(3, 4, 3, 2, 1), branch

    def forward(self, x):
        if self.branch and float(x.abs().max()) > 1e6:  # the dynamo exporter refuses it
            return x
        return self.body(x).relu()


@pytest.mark.parametrize("branch", [False, True], ids=["dynamo", "tracing"])
def test_a_module_is_exported_with_free_sizes(branch, folder):
    described = describe(Down(branch), spec="net.toml")
    names = [one.input for one in described.spec.ranges]
    assert names == [described.spec.input_name] * 2
    flow = Flow(ExportSettings(Down(branch), data="random"), lambda line: None)
    spec = write_raw(
        flow, Network(described.spec, described.module), folder / "raw.onnx", [np.zeros((1, 3, 32, 32), np.float32)]
    )
    dims = onnx.load("raw.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3, 0, 0]
    assert spec.ranges == described.spec.ranges
    inputs = {case["inputs"] for case in flow.records["parity"]["cases"]}
    assert inputs >= {"least size", "most size"}


def test_a_captured_program_takes_no_ranges(folder):
    torch.export.save(torch.export.export(Down(), (torch.zeros(1, 3, 32, 32),)), "net.pt2")
    with pytest.raises(UsageError, match="net.pt2 takes no ranges; got height, width; .* these are fixed"):
        describe("net.pt2", spec="net.toml")
