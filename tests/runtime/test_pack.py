"""The manifest's schema, Triton model repositories, contracts and engines built anew."""

import functools
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.runtime import bundle, load
from edgesmith.runtime.bundle import archive, manifest, requirements
from edgesmith.runtime.common.files import sha256
from edgesmith.runtime.errors import BuildError, BundleError, ModelError, UsageError
from edgesmith.runtime.images.preprocess import apply
from edgesmith.runtime.serving import triton
from support import schema
from support.bundles import LABELS, SPEC, colour_bundle, colour_net, golden_inputs, picture

SCHEMA = json.loads(Path(archive.__file__).with_name("manifest.schema.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours")


def test_a_manifest_fits_its_schema(made):
    assert schema.problems(json.loads(made.manifest.to_json()), SCHEMA) == []
    assert SCHEMA["properties"]["format"]["enum"] == list(range(1, manifest.FORMAT + 1))


def put(values, path, value):
    *keys, last = path
    for key in keys:
        values = values[key]
    values[last] = value


WRONG = {
    "a later format": (("format",), 6),
    "files a list": (("files",), []),
    "an unknown field": (("plugin",), 1),
    "an artefact's unknown field": (("artefacts", 0, "plugin"), "x.so"),
    "an unknown role": (("artefacts", 0, "role"), "pickle"),
    "a tolerance that allows all": (("artefacts", 0, "tolerance"), 1.0),
    "a path that climbs": (("artefacts", 0, "path"), "../x"),
    "a path that climbs later": (("artefacts", 0, "golden"), "x/../../y"),
    "an absolute path": (("artefacts", 0, "path"), "/etc/passwd"),
    "a Windows path": (("artefacts", 0, "path"), "C:\\x"),
    "a short digest": (("files", "golden/inputs.npz", "sha256"), "00"),
    "a size below zero": (("files", "golden/inputs.npz", "bytes"), -1),
    "a size that is true": (("files", "golden/inputs.npz", "bytes"), True),
    "a shape below zero": (("spec", "input_shape"), [3, -1, 8]),
}


@pytest.mark.parametrize("case", WRONG)
def test_schema_and_reader_refuse_the_same(case, made):
    values = json.loads(made.manifest.to_json())
    put(values, *WRONG[case])
    assert len(schema.problems(values, SCHEMA)) >= 1
    if case != "an unknown field":
        with pytest.raises(manifest.BundleError):
            manifest.parse_manifest(json.dumps(values))


# Triton --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(made, tmp_path_factory):
    return triton.write_triton(made, tmp_path_factory.mktemp("triton") / "models")


def test_the_repository_has_the_three_models(repository):
    assert sorted(path.name for path in repository.iterdir()) == ["colours", "colours_ensemble", "colours_preprocess"]
    assert (repository / "colours/1/model.onnx").is_file()
    assert (repository / "colours/labels.txt").read_text().split() == list(LABELS)
    text = (repository / "colours/config.pbtxt").read_text()
    assert 'platform: "onnxruntime_onnx"' in text
    assert "max_batch_size: 32" in text
    assert re.search(r'input \{\s*name: "input"\s*data_type: TYPE_FP32\s*dims: \[3, 16, 16\]', text)
    assert "dynamic_batching {" in text


def test_a_fixed_batch_is_served_without_batching(tmp_path):
    fixed = colour_bundle(tmp_path / "fixed", batch=1)
    text = (triton.write_triton(fixed, tmp_path / "models") / "colours/config.pbtxt").read_text()
    assert "max_batch_size: 0" in text
    assert "dims: [1, 3, 16, 16]" in text
    assert "dynamic_batching" not in text


@functools.cache
def triton_schema():
    """Load the one generated file of tritonclient: its packages want gRPC, which nothing here needs."""
    package = importlib.util.find_spec("tritonclient")
    if package is None:
        pytest.skip("tritonclient is not installed: pip install --no-deps -c constraints.txt tritonclient")
    path = Path(package.origin).with_name("grpc") / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("batch", ["N", 1])
def test_the_configs_are_what_tritons_own_protobuf_reads(batch, tmp_path):
    proto = triton_schema()
    text_format = importlib.import_module("google.protobuf.text_format")
    made = colour_bundle(tmp_path / "colours", batch=batch)
    repository = triton.write_triton(made, tmp_path / "models")
    configs = {}
    for path in repository.glob("*/config.pbtxt"):
        configs[path.parent.name] = text_format.Parse(path.read_text(), proto.ModelConfig())
    net, prepare, both = (configs[f"colours{suffix}"] for suffix in ("", "_preprocess", "_ensemble"))
    assert {config.max_batch_size for config in configs.values()} == {32 if batch == "N" else 0}
    assert list(net.input[0].dims) == list(prepare.output[0].dims)
    assert both.input[0].data_type == proto.TYPE_UINT8
    steps = both.ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["colours_preprocess", "colours"]
    assert steps[0].output_map["input"] == steps[1].input_map["input"] == "prepared"
    assert steps[1].output_map["output"] == both.output[0].name
    assert net.output[0].label_filename == "labels.txt"


FAKE_SERVER = """
import sys, types, numpy as np
module = types.ModuleType("triton_python_backend_utils")
class Tensor:
    def __init__(self, name, array): self.name, self.array = name, array
    def as_numpy(self): return self.array
class InferenceResponse:
    def __init__(self, output_tensors, error=None): self.output_tensors, self.error = output_tensors, error
module.Tensor, module.InferenceResponse, module.TritonError = Tensor, InferenceResponse, str
module.get_input_tensor_by_name = lambda request, name: request[name]
sys.modules["triton_python_backend_utils"] = module
sys.path.insert(0, sys.argv[1])
import model
images, wrong = Tensor("image", np.load(sys.argv[2])), Tensor("image", np.zeros((2, 2)))
good, bad = model.TritonPythonModel().execute([{"image": images}, {"image": wrong}])
assert not any(name.startswith("edgesmith.") for name in sys.modules)
assert bad.error and "not an image" in bad.error, bad.error
np.save(sys.argv[3], good.output_tensors[0].as_numpy())
"""


def test_the_served_preprocessing_is_the_runtimes_own_and_stands_alone(repository, tmp_path):
    images = np.stack([picture("red"), picture("blue")])
    np.save(tmp_path / "in.npy", images)
    words = [
        sys.executable,
        "-c",
        FAKE_SERVER,
        repository / "colours_preprocess/1",
        tmp_path / "in.npy",
        tmp_path / "out.npy",
    ]
    subprocess.run([str(word) for word in words], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), apply(list(images), SPEC))


def test_pack_through_the_command_line(made, tmp_path):
    def call(*words):
        return CliRunner().invoke(main, ["pack", str(made.folder), *map(str, words)])

    assert call("--zip", tmp_path / "c.zip").exit_code == 0
    assert bundle.read(tmp_path / "c.zip").digest == made.digest
    assert call("--triton", tmp_path / "models", "--precision", "int8").exit_code == 0
    assert (tmp_path / "models/colours/1/model.onnx").is_file()
    for words, message in (((), "either --zip FILE or --triton FOLDER"),
                           (("--triton", tmp_path / "m", "--precision", "fp8"), "no ONNX file in 'fp8'")):  # fmt: skip
        done = call(*words)
        assert (done.exit_code, message in done.stderr) == (2, True)
    with pytest.raises(UsageError):
        triton.write_triton(made, tmp_path / "m", "fp16")


# Contracts -----------------------------------------------------------------------------------------------------------

HERE = {"os": "linux", "machine": "aarch64", "sm": "8.7", "flavour": "standard", "tensorrt": "10.3.0", "cuda": "12.6"}
CONTRACTS = {
    "all holds": ({"sm": "8.7", "tensorrt": "10.3.1", "flavour": "standard", "os": "Linux"}, []),
    "another GPU": ({"sm": "8.6"}, ["sm"]),
    "another TensorRT": ({"tensorrt": "10.7.0"}, ["tensorrt"]),
    "another system": ({"os": "windows", "machine": "x86_64"}, ["os", "machine"]),
    "a driver that is older": ({"cuda": "13.0"}, ["cuda"]),
    "a driver of the same major version": ({"cuda": "12.9"}, []),
    "a driver that is newer": ({"cuda": "11.8"}, []),
    "a version that is none": ({"cuda": "new"}, []),
    "what nobody knows": ({"driver": "550"}, []),
    "nothing": ({}, []),
}


@pytest.mark.parametrize("case", CONTRACTS)
def test_what_does_not_hold_is_named(case):
    requires, expected = CONTRACTS[case]
    assert list(requirements.unmet(requires, HERE)) == expected


def test_a_broken_contract_passes_the_artefact_over(tmp_path):
    net, other = colour_net(tmp_path / "a.onnx"), colour_net(tmp_path / "b.onnx")
    items = [bundle.Item(net, requires={"os": "plan9"}), bundle.Item(other)]
    made = bundle.write(tmp_path / "b", SPEC, items, golden_inputs=golden_inputs())
    with load(made, device="ort", threads=1) as model:
        assert model.chosen.artefact.name == "b"
        assert "a was built for a different machine; got os " in model.why()
        assert "expected os plan9" in model.why()
    with pytest.raises(BuildError, match="built for a different machine"):
        requirements.check_requirements(made.artefacts[0])


def engine_bundle(tmp_path, precision="fp32", **sources):
    engine = tmp_path / "old.engine"
    engine.write_bytes(b"vtrt")
    net = colour_net(tmp_path / "colours.onnx", 1)
    items = [bundle.Item(engine, "engine", precision, "sm75"), bundle.Item(net, **sources)]
    return bundle.write(tmp_path / "b", SPEC, items, golden_inputs=golden_inputs())


def test_an_engine_without_its_source_cannot_be_rebuilt(tmp_path):
    made = engine_bundle(tmp_path, precision="fp16")
    with pytest.raises(ModelError, match="no ONNX file to build old from; got fp32 for generic; expected fp16"):
        requirements.source_of(made, made.artefacts[0])


@pytest.mark.slow
def test_an_engine_is_rebuilt_once_for_this_content(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    made = engine_bundle(tmp_path)
    first = requirements.rebuild_engine(made, made.artefacts[0], sm="8.6", flavour="rtx")
    stamp = first.stat().st_mtime_ns
    assert first.read_bytes()[:4] == b"vtrt"
    assert requirements.rebuild_engine(made, made.artefacts[0], sm="8.6", flavour="rtx") == first
    assert first.stat().st_mtime_ns == stamp
    other = requirements.rebuild_engine(made, made.artefacts[0], sm="8.9", flavour="rtx")
    assert other != first


def test_an_engine_is_built_from_the_checked_bytes_and_one_of_another_file_is_not_used(tmp_path, monkeypatch):
    """The network is exchanged while the engine is built, as a second writer of the folder can do."""
    from edgesmith.runtime.engines import build, flavour, sidecar

    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(flavour, "choose_flavour", lambda *rest: ("rtx", "trt"))
    monkeypatch.setattr(flavour, "load_tensorrt", lambda module: SimpleNamespace(__version__="1.0"))
    made, sources = engine_bundle(tmp_path), []

    def built(network, target, **options):
        (made.folder / "onnx" / "colours.onnx").write_bytes(b"of somebody else")
        sources.append(network.read_bytes())
        target.write_bytes(b"vtrt")
        facts = SimpleNamespace(source_sha256=sha256(network), sha256=sha256(target))
        monkeypatch.setattr(sidecar, "read_sidecar", lambda path: facts)

    monkeypatch.setattr(build, "build_engine", built)
    checked = made.content("onnx/colours.onnx")
    first = requirements.rebuild_engine(made, made.artefacts[0], sm="8.6")
    assert requirements.rebuild_engine(made, made.artefacts[0], sm="8.6") == first
    assert sources == [checked]
    changed = {"another source": (sha256(made.folder / "engines/old.engine"), sha256(first)),
               "another engine": (made.manifest.files["onnx/colours.onnx"].sha256, "0" * 64)}  # fmt: skip
    for source, engine in changed.values():
        facts = SimpleNamespace(source_sha256=source, sha256=engine)
        monkeypatch.setattr(sidecar, "read_sidecar", lambda path, facts=facts: facts)
        with pytest.raises(BundleError, match=r"onnx/colours\.onnx was changed"):
            requirements.rebuild_engine(made, made.artefacts[0], sm="8.6")
    assert sources == [checked]


def test_rebuild_does_nothing_where_no_gpu_is(tmp_path):
    made = engine_bundle(tmp_path)
    with load(made, rebuild=True) as model:
        assert model.chosen.artefact.name == "colours"
    shutil.rmtree(made.folder)
