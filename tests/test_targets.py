"""One row per target: each keeps its contract, and the toy of CONTRIBUTING.md works in every command."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from experiments import targets_table

from edgesmith.cli import main
from edgesmith.export.engines import engine_target
from edgesmith.export.settings import ExportedArtefact, ExportSettings
from edgesmith.optimize.quantize.targets import find_target, quantized_targets
from edgesmith.runtime import bundle, load, targets
from edgesmith.runtime.backends import ort
from edgesmith.runtime.bundle import requirements
from edgesmith.runtime.engines import flavour
from edgesmith.runtime.errors import UsageError
from edgesmith.runtime.selection.candidates import candidates, open_artefact
from support.bundles import SPEC, colour_net, golden_inputs
from support.contracts import planted, recipe, target_problems
from support.quant_graphs import small_cnn

ROOT = Path(__file__).resolve().parents[1]


TOY = recipe("Add a target")


@pytest.mark.parametrize("name", targets.names())
def test_every_target_keeps_its_contract(name):
    assert target_problems(name) == []


BROKEN = {
    "no row": ("ROW = TargetRow(", "OTHER = TargetRow(", "ROW is not a TargetRow"),
    "a backend that is none": ('("ort",)', '("orr",)', "no backend orr"),
    "a pass that is none": ("mean_to_pool_flat", "mean_to_puddle", "no pass mean_to_puddle"),
    "a rule that is none": ('"fold_relu"', '"fold_selu"', "no form: "),
    "activations that are none": ('"u8"', '"u9"', "no activations u9"),
    "a place behind FP32": ("place=5", "place=55", "its place is none before FP32"),
    "an engine that is none": ("place=5", 'engine="rxt"', "no TensorRT rxt"),
    "a precision that is none": ("place=5", 'precisions=("fp32", "int8", "int9")', "no precision int9"),
    "no INT8": ("place=5", 'precisions=("fp32",)', "INT8 without Q/DQ rules, or rules without INT8"),
    "a device that is none": ("place=5", 'device="cup"', "no device cup"),
    "one channel block": ("place=5", 'channel_blocks=(("avx2", 8),)', "no channel block for the other processors"),
    "no docstring": ('"""', "#", "it is not documented"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_is_found(case, tmp_path):
    old, new, problem = BROKEN[case]
    assert old in TOY
    with planted(targets, tmp_path / "p", TOY.replace(old, new), "planted") as name:
        problems = target_problems(name)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.fixture
def toy(tmp_path):
    """A target of one file, beside the others."""
    with planted(targets, tmp_path / "plugins", TOY, "the_toy", beside=True):
        assert target_problems("the-toy") == []
        yield "the-toy"
    assert "the-toy" not in targets.names()


def command(*words):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done


def test_a_new_target_is_one_file(toy, tmp_path):
    """The file of CONTRIBUTING.md works in `optimize`, `quantize`, `export`, and `load` chooses what is made for it."""
    onnx.save(small_cnn(), tmp_path / "net.onnx")
    report = json.loads(
        command("optimize", tmp_path / "net.onnx", "-o", tmp_path / "fast.onnx", "--target", toy, "--json").stdout
    )
    assert "mean_to_pool_flat" in [one["name"] for one in report["passes"]]
    words = ["--target", toy, "--allow-random", "--quick", "--images", 32, "--json"]
    report = json.loads(command("quantize", tmp_path / "fast.onnx", "-o", tmp_path / "int8.onnx", *words).stdout)
    assert (report["target"], report["quantised"]["Conv"] > 0, report["speed"]["backend"]) == (toy, True, "ort")
    words = ["--weights", "random", "--precision", "fp32,int8", "--target", toy, "--calibration", 32]
    command("export", "lenet5", *words, "--out", tmp_path / "lenet5")
    with load(tmp_path / "lenet5", device="cpu") as model:
        assert (model.chosen.artefact.name, model.chosen.backend) == ("lenet5-int8-the-toy", "ort")
    assert toy in targets_table.table()


def test_the_table_of_the_docs_is_that_of_the_rows():
    page = (ROOT / "docs" / "quantisation.md").read_text()
    assert targets_table.table() in page, (
        "run `PYTHONPATH=tests python -m experiments.targets_table` and paste its table"
    )


def test_quantize_still_knows_the_half_precisions(tmp_path):
    onnx.save(small_cnn(), tmp_path / "net.onnx")
    command("quantize", tmp_path / "net.onnx", "-o", tmp_path / "half.onnx", "--target", "fp16", "--allow-random")
    kinds = {one.data_type for one in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


UNKNOWN = {
    "tensort": "unknown target 'tensort'", "trt_rtx": "unknown target 'trt_rtx'.*did you mean 'trt-rtx'",
    "_row": "unknown target '_row'", "": "unknown target ''", "../targets/trt": "unknown target '../targets/trt'",
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_no_target_is_refused(name):
    with pytest.raises(UsageError, match=UNKNOWN[name]):
        targets.row(name)
    assert targets.find(name) is None
    with pytest.raises(UsageError, match="unknown quantisation target"):
        find_target(name)


def test_generic_has_passes_and_no_form():
    assert set(targets.names()) == {"generic", *quantized_targets()}
    with pytest.raises(UsageError, match="unknown quantisation target 'generic'"):
        find_target("generic")


@pytest.fixture(scope="module")
def every_form(tmp_path_factory):
    """A bundle with an INT8 file for each target, and FP32 and FP16."""
    folder = tmp_path_factory.mktemp("forms")
    source = colour_net(folder / "source.onnx")
    items = []
    for precision, target in (
        ("fp16", "generic"),
        ("fp32", "generic"),
        *(("int8", one) for one in quantized_targets()),
    ):
        path = folder / f"c-{precision}-{target}.onnx"
        shutil.copyfile(source, path)
        items.append(bundle.Item(path, "onnx", precision, target))
    return bundle.write(folder / "every", SPEC, items, golden_inputs=golden_inputs())


# machine -> the forms that go before FP32, in their order, by backend
BEFORE_FP32 = {
    "x86_64": {"ort": ["ort-x86"], "openvino": ["ort-x86", "openvino"]},
    "aarch64": {"ort": ["ort-arm", "ort-x86"], "openvino": ["ort-x86"]},
    "riscv64": {"ort": ["ort-x86"], "openvino": ["ort-x86"]},
}


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize("machine", BEFORE_FP32)
def test_the_machine_s_own_form_goes_before_fp32(machine, backend, every_form, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    order = [one.artefact for one in candidates(every_form, backend, "auto")]
    at = [one.precision for one in order].index("fp32")
    assert [one.target for one in order[:at]] == BEFORE_FP32[machine][backend]
    assert order[-1].precision == "fp16"


SIMULATED = {"x86_64": {"trt", "trt-rtx", "ort-arm", "openvino"}, "aarch64": {"trt", "trt-rtx", "openvino"}}


@pytest.mark.parametrize("machine", SIMULATED)
def test_what_is_only_simulated_is_opened_as_written(machine, every_form, monkeypatch):
    """And never measured against others: its speed means nothing."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    opened = {}
    monkeypatch.setattr(ort, "open", lambda path, **options: opened.update({path.stem: options}))
    for artefact in every_form.artefacts:
        open_artefact(every_form, artefact, "ort")
    as_written = {name.split("int8-")[-1] for name, options in opened.items() if "session.disable_quant_qdq" in options}
    assert as_written == SIMULATED[machine]
    assert {name for name in quantized_targets() if targets.is_simulated(name)} == SIMULATED[machine]
    assert not any(targets.is_simulated(name, "openvino") for name in quantized_targets())
    made = ExportedArtefact("int8", "int8", "ort-arm", Path("x"), 1)
    assert made.simulated is (machine == "x86_64")


ENGINES = {
    ("trt", "ort-x86"): "trt", ("trt-rtx",): "trt-rtx", ("trt", "trt-rtx"): "trt-rtx", ("ort-arm",): "",
}  # fmt: skip


@pytest.mark.parametrize("asked", ENGINES)
def test_engines_are_made_of_the_form_for_the_tensorrt_that_is_here(asked, monkeypatch):
    monkeypatch.setattr(flavour, "installed_module", lambda kind: kind if kind == "rtx" else None)
    assert engine_target(ExportSettings("lenet5", targets=asked)) == ENGINES[asked]
    monkeypatch.setattr(flavour, "installed_module", lambda kind: kind if kind == "standard" else None)
    assert engine_target(ExportSettings("lenet5", targets=asked)) == ("trt" if "trt" in asked else ENGINES[asked])


@pytest.mark.parametrize(("kind", "expected"), [("rtx", "trt-rtx"), ("standard", "trt")])
def test_an_engine_is_built_anew_from_its_own_form(kind, expected, every_form, tmp_path):
    engine = tmp_path / "c-int8.engine"
    engine.write_bytes(b"vtrt")
    item = bundle.Item(engine, "engine", "int8", "sm86", requires={"flavour": kind})
    source = requirements.source_of(every_form, bundle.read(
        bundle.write(tmp_path / "e", SPEC, [item], golden_inputs=golden_inputs()).folder).artefacts[0])  # fmt: skip
    assert source.target == expected


@pytest.mark.slow
def test_export_makes_every_form_and_judges_it(tmp_path):
    """`ort-arm`, `openvino` and `trt-rtx`, which were refused: accuracy judged, timed only what runs here."""
    words = ["--target", "openvino,ort-arm,trt-rtx", "--precision", "fp32,int8", "--weights", "random", "--sm", "8.6"]
    done = command("export", "lenet5", *words, "--calibration", 32, "--out", tmp_path / "b", "--json")
    made = {one["name"]: one for one in json.loads(done.stdout)["artefacts"]}
    files = ["fp32", "int8-openvino", "int8-ort-arm", "int8-trt-rtx", "int8-trt-rtx-fp16"]
    assert [name for name in made if made[name]["backend"] == "ort"] == files
    assert all(np.isfinite(made[name]["results"]["hard"]["sqnr_db"]) for name in files[1:])
    checks = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    here = {name for name in ("ort-arm", "openvino") if targets.is_here(name)}
    for name in {"ort-arm", "openvino"} - here:
        assert checks[f"speed int8-{name}"]["detail"] == f"{name} is not this kind of machine"
    if flavour.installed_module("rtx"):
        engine = made["int8 SM 8.6"]
        assert (engine["sidecar"]["flavour"], engine["results"]["source"]) == ("rtx", "int8-trt-rtx-fp16")
