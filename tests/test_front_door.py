"""`import edgesmith as es`: the flow as functions, imported when they are used; reports that show themselves."""

import importlib
import inspect
import subprocess
import sys

import onnx
import pytest

import edgesmith as es
from edgesmith.runtime import bundle
from edgesmith.runtime.common.display import Displayed
from edgesmith.runtime.common.old_paths import MOVED
from edgesmith.runtime.errors import UsageError
from support.bundles import colour_bundle, picture
from support.quant_graphs import batches, small_cnn
from support.results import run

HEAVY = ["numpy", "torch", "onnx", "onnxruntime", "PIL", "rich", "click", "openvino", "tensorrt_rtx_bindings"]
CALLABLE_PACKAGES = ("bench", "export", "optimize")


def test_importing_it_loads_nothing_heavy():
    code = f"import sys, edgesmith as es; es.__version__; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", es.__all__)
def test_each_name_is_a_documented_function(name):
    function = getattr(es, name)
    assert callable(function)
    assert name in dir(es)
    parameters = inspect.signature(function).parameters
    assert parameters
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters.values())


def test_what_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        _ = es.quantise


@pytest.mark.parametrize("name", CALLABLE_PACKAGES)
def test_a_package_that_can_be_called_is_a_package_still(name):
    package = importlib.import_module(f"edgesmith.{name}")
    assert package is getattr(es, name)
    assert package.__path__


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_works_and_says_the_new_one(old):
    new, names = MOVED[old]
    sys.modules.pop(f"edgesmith.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"edgesmith.{old} is now edgesmith.{new}"):
        module = importlib.import_module(f"edgesmith.{old}")
    target = importlib.import_module(f"edgesmith.{new}")
    public = [name for name in vars(target) if not name.startswith("_")]
    assert all(getattr(module, name) is getattr(target, name) for name in public)
    assert all(getattr(module, name) is getattr(target, now) for name, now in names.items())
    with pytest.raises(AttributeError):
        _ = module.never_there


def test_a_path_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("edgesmith.optimize.never")


def shows(report):
    """Whether a report's repr is one line, and its HTML a table with a cell for each head in each row."""
    heads, rows = report.table()
    html = report._repr_html_()
    assert html.count("<th>") == len(heads)
    assert html.count("<tr>") == len(rows) + 1
    assert "\n" not in repr(report)
    return repr(report)


def test_the_flow_by_functions(tmp_path):
    onnx.save(small_cnn(), tmp_path / "net.onnx")
    report = es.optimize(tmp_path / "net.onnx", tmp_path / "small.onnx")
    assert shows(report).startswith(f"<Report: {tmp_path}/small.onnx: ")
    half = es.to_fp16(tmp_path / "small.onnx", tmp_path / "half.onnx", batches())
    assert "nodes in FP16" in shows(half)
    int8 = es.quantize(tmp_path / "small.onnx", tmp_path / "int8.onnx", batches(), target="ort-x86")
    assert "64 images" in shows(int8)


def test_a_bundle_by_functions(tmp_path):
    made = colour_bundle(tmp_path / "colours")
    report = es.verify(made.folder)
    assert shows(report).startswith(f"<VerifyReport: {made.folder}: passed")
    with es.load(made.folder, device="cpu") as model:
        assert repr(model).startswith("<Model: colours (classify), colours-")
        assert model(picture("green")).top(1)[0].label == "green"
    assert repr(model).endswith(", closed>")


def test_bench_and_compare(tmp_path):
    made = colour_bundle(tmp_path / "colours")
    measured = es.bench(made.folder, precision="fp32", metrics="size", processes=1, seconds=0.01)
    assert "of colours on " in shows(measured)
    assert [one.answer for one in es.compare(run(), run())] == ["same"] * len(run().results)
    with pytest.raises(UsageError, match="nothing can be measured with these settings; got 0 paths"):
        es.bench()


def test_a_refusal_of_export_comes_before_any_work():
    with pytest.raises(UsageError, match="unknown precision 'fp12'"):
        es.export("lenet5", precision="fp12")


class Hostile(Displayed):
    def headline(self):
        return "<script>alert(1)</script>"

    def table(self):
        return ["<b>", "b"], [["<img src=x>", None], [1, 2.5]]


def test_nothing_in_a_report_becomes_markup():
    html = Hostile()._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "<td>&lt;img src=x&gt;</td><td></td>" in html


def test_the_facade_of_bundles_has_the_names_that_the_documentation_shows():
    assert {"read", "write", "verify", "pack", "sign", "Item", "Bundle"} <= set(bundle.__all__)
    assert all(callable(getattr(bundle, name)) or isinstance(getattr(bundle, name), dict) for name in bundle.__all__)
