"""Engine files with their sidecar in bench, gate and sweep: on an emulated GPU, and what is said without one."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from edgesmith.bench import suite
from edgesmith.bench.gate.thresholds import kernel_limits
from edgesmith.bench.measure import layer_profile
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.workload import BenchTarget, open_workload
from edgesmith.bench.metrics import engines
from edgesmith.bench.result import Subject
from edgesmith.cli import main
from edgesmith.runtime.backends import trt
from edgesmith.runtime.backends._engine import TrtSession
from edgesmith.runtime.bundle import companions, writer
from edgesmith.runtime.bundle.bundle import Bundle
from edgesmith.runtime.engines import sidecar
from edgesmith.runtime.engines.kernels import Attestation
from edgesmith.runtime.engines.sidecar import Sidecar, path_of
from edgesmith.runtime.errors import BundleError, ModelError, NotAvailable, UsageError
from edgesmith.runtime.selection import candidates
from support.bundles import SPEC, colour_net, golden_inputs
from support.cuda import TRT, Cuda, Engine

FREE = {"input": [[1, 3, 4, 4], [2, 3, 4, 4], [16, 3, 4, 4]]}
FIXED = {"input": [[2, 3, 4, 4]] * 3}
WHY = "TensorRT is not installed: nothing"


def write(path, kernels=7, profiles=FREE, precision="fp16"):
    attestation = Attestation(kernels, {precision: 3}, 0)
    path.write_bytes(b"engine")
    facts = Sidecar(path.name, "0" * 64, 6, "n.onnx", "0" * 64, "rtx", "1.7.1.116", "8.6", precision, "strong", (), 1.0,
                    attestation, profiles=profiles)  # fmt: skip
    facts.write(path_of(path))
    return path


@pytest.fixture
def gpu(monkeypatch):
    """An emulated GPU; yields the paths of the engines that were opened."""
    opened = []

    def open_engine(path, *, threads=None, **options):
        opened.append(path.name)
        cuda = Cuda()
        return TrtSession(TRT, cuda, Engine(cuda))

    monkeypatch.setattr(trt, "open", open_engine)
    monkeypatch.setattr(trt, "available", lambda: (True, "an emulated GPU"))
    return opened


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(trt, "available", lambda: (False, WHY))


def test_an_engine_is_a_subject_with_the_facts_of_its_sidecar(gpu, tmp_path):
    (context,) = suite.contexts(write(tmp_path / "net.engine"))
    subject = context.subject
    assert (subject.model, subject.precision, subject.target, subject.backend) == ("net", "fp16", "sm86", "trt")
    assert subject.artifact == "net.engine"
    assert "without a bundle does not describe its images" in context.no_evaluation


@pytest.mark.parametrize(
    ("profiles", "batch", "shape", "expected"),
    [(FREE, 1, "", (1, 3, 4, 4)), (FREE, 5, "", (5, 3, 4, 4)), (FIXED, 5, "", (2, 3, 4, 4)),
     (FREE, 1, "input=3x3x4x4", (3, 3, 4, 4))],
)  # fmt: skip
def test_the_input_has_the_usual_size_of_the_profile(profiles, batch, shape, expected, gpu, tmp_path):
    path = write(tmp_path / "net.engine", profiles=profiles)
    (context,) = suite.contexts(path, batch=batch, shape=shape)
    workload = open_workload(context.target)
    with workload.session:
        assert workload.feeds["input"].shape == expected
        assert workload.call()["output"].shape == (expected[0], 3)
        assert layer_profile.profile_engine(workload.session, context.target, 1)
    assert gpu == ["net.engine"]


def test_without_a_gpu_every_command_says_what_is_missing_and_exits_with_three(no_gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.engine"), write(tmp_path / "old.engine")
    with pytest.raises(NotAvailable, match=f"net.engine cannot be measured here; got {WHY}"):
        suite.contexts("net.engine")
    for words in (["bench", "net.engine"], ["gate", "net.engine", "--baseline", "old.engine"], ["sweep", "net.engine"]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 3, result.output
        assert WHY in " ".join(result.output.split())
    assert not (tmp_path / "results").exists()


def test_an_engine_without_a_sidecar_or_that_is_not_there_is_refused(gpu, tmp_path):
    (tmp_path / "bare.engine").write_bytes(b"engine")
    with pytest.raises(ModelError, match=r"cannot read the sidecar .*bare.engine.json"):
        suite.contexts(tmp_path / "bare.engine")
    with pytest.raises(UsageError, match=r"cannot measure .*nothing.engine; got no such file"):
        suite.contexts(tmp_path / "nothing.engine")
    assert gpu == []


def test_the_kernels_of_two_engines_are_compared_without_a_gpu(no_gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, new = write(tmp_path / "old.engine", 7), write(tmp_path / "new.engine", 9)
    assert [(one.answer, one.why) for one in kernel_limits(old, new)] == [
        ("slower", "the engine: 7 -> 9 kernels; the number must not grow")
    ]
    assert kernel_limits(new, old)[0].answer == "faster"
    assert kernel_limits(old, old)[0].answer == "same"
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="has no engines; expected two bundles or two engines"):
        kernel_limits(tmp_path / "net.onnx", old)
    target = BenchTarget(str(old), backend="trt")
    assert "without a bundle" in engines.measure(MetricContext(Subject("n", "n"), target, "n")).missing


def test_accuracy_of_an_engine_file_is_refused(no_gpu, tmp_path):
    path = write(tmp_path / "net.engine")
    result = CliRunner().invoke(main, ["sweep", str(path), "--evaluate", "digits", "--out", str(tmp_path / "s")])
    assert result.exit_code == 2
    assert "give a bundle" in result.output


# What a bundle's manifest checked ---------------------------------------------------------------------------------


@pytest.fixture
def bundled(tmp_path):
    """A bundle with an ONNX file and an engine of seven kernels."""
    engine = write(tmp_path / "colours-fp16-sm86.engine")
    items = [writer.Item(colour_net(tmp_path / "colours.onnx")), writer.Item(engine, "engine", "fp16", "sm86")]
    return writer.write_bundle(tmp_path / "b", SPEC, items, golden_inputs=golden_inputs())


def exchange_after_reading(monkeypatch, bundle, name):
    """Replace a member after its checked bytes were read, as a second writer would."""
    content = Bundle.content

    def read(self, member):
        checked = content(self, member)
        if member == name:
            (bundle.folder / name).write_bytes(b"exchanged")
        return checked

    monkeypatch.setattr(Bundle, "content", read)


def test_a_sidecar_is_used_as_it_was_checked(bundled, monkeypatch):
    """Its bytes are exchanged after their check: the checked ones describe the engine, in the backend and the bench."""
    (engine,) = [one for one in bundled.artefacts if one.role == "engine"]
    checked = companions.sidecar_content(bundled, engine)
    options = {}
    monkeypatch.setattr(candidates, "usable", lambda backend: (True, ""))
    monkeypatch.setattr(trt, "open", lambda path, **settings: options.update(settings))
    exchange_after_reading(monkeypatch, bundled, f"{engine.path}.json")
    candidates.open_artefact(bundled, engine, "trt")
    assert (options["content"], options["sidecar_content"]) == (b"engine", checked)
    for read in (lambda: layer_profile._kernels(BenchTarget(str(bundled.folder), engine.name, "trt")),
                 lambda: engines._facts(bundled, engine)):  # fmt: skip
        (bundled.folder / f"{engine.path}.json").write_bytes(checked)
        read()
        with pytest.raises(BundleError, match="was changed"):  # exchanged before its check
            read()


def test_the_backend_reads_no_sidecar_from_the_disk_beside_checked_bytes(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(sidecar, "read_sidecar", lambda path, content=None: read.append(content))
    monkeypatch.setattr(trt, "header", SimpleNamespace(read_header=lambda *_: SimpleNamespace(flavour="rtx"),
                                                       check_header=lambda *_, **__: None))  # fmt: skip
    monkeypatch.setattr(trt.flavour, "installed_module", lambda name: "module")
    monkeypatch.setattr(trt.flavour, "load_tensorrt", lambda name: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(trt.gpu, "device_sm", lambda device: "8.6")
    monkeypatch.setattr(trt, "_check_sidecar", lambda path, sm, digest, content=None: read.append(content))
    monkeypatch.setattr(trt.gpu, "cudart", lambda: (_ for _ in ()).throw(NotAvailable("no GPU")))
    path = write(tmp_path / "net.engine")
    for settings in ({"content": b"engine"}, {"content": b"engine", "sidecar_content": b"{}"}, {}):
        with pytest.raises(NotAvailable):
            trt.open(path, **settings)
    assert read == [b"{}", None]  # None: the file beside an engine that is opened by its path
