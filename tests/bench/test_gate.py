"""The gate on simulated pairs with a known truth, then on real processes; its announcements, limits and baselines."""

import dataclasses
import json
import subprocess
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.bench import result, suite
from edgesmith.bench.gate import baseline, ci_reports, gate, thresholds
from edgesmith.bench.gate.ci_reports import GateFinding
from edgesmith.bench.gate.gate import LatencyPair, Rule
from edgesmith.bench.measure import clock, process
from edgesmith.bench.measure.interleave import SamplingPlan
from edgesmith.bench.measure.workload import BenchTarget
from edgesmith.bench.metrics import instructions
from edgesmith.bench.result import Reading, Result, Subject
from edgesmith.cli import gate as gate_module
from edgesmith.cli.gate import gate_command
from edgesmith.runtime import bundle
from edgesmith.runtime.errors import EdgesmithError, RunError, UsageError
from support.bundles import SPEC, colour_net, golden_inputs
from support.patience import PATIENCE_S

RULE = Rule()


def simulated(rng, slowdown, *, between=0.006, within=0.02, tails=False):
    """Pairs of processes: each has its own level, heavy-tailed on request, and noisy blocks."""
    while True:
        level = rng.standard_t(3) if tails else rng.normal()
        shift = np.log1p(slowdown) + between * level
        new = 0.004 * np.exp(shift + rng.normal(0, within, (8, 3)))
        base = 0.004 * np.exp(rng.normal(0, within, (8, 3)))
        yield LatencyPair(tuple(map(tuple, base)), tuple(map(tuple, new)))


def judged(seed, slowdown, **noise):
    pairs = []
    for pair in simulated(np.random.default_rng(seed), slowdown, **noise):
        pairs.append(pair)
        found = gate.gate_answer(pairs, RULE)
        if found != "cannot tell" or len(pairs) == gate.MOST_PAIRS:
            return found, len(pairs)
    return None


def rates(slowdown, count=120, **noise):
    told = [judged(seed, slowdown, **noise) for seed in range(count)]
    names = [name for name, _ in told]
    return {name: names.count(name) / count for name in set(names)}, float(np.median([pairs for _, pairs in told]))


def test_no_change_is_never_slower_and_soon_known():
    found, pairs = rates(0.0)
    assert found.get("slower", 0) + found.get("faster", 0) == 0
    assert pairs <= 6


def test_no_change_is_hardly_ever_slower_with_heavy_tails():
    found, _ = rates(0.0, tails=True, between=0.01)
    assert found.get("slower", 0) <= 0.01


def test_a_slowdown_of_the_threshold_is_found():
    found, pairs = rates(0.03)
    assert found["slower"] >= 0.95
    assert pairs <= 12


def test_a_larger_slowdown_is_found_at_once():
    found, pairs = rates(0.10)
    assert found == {"slower": 1.0}
    assert pairs <= 5


def test_a_hopeless_machine_cannot_tell():
    found, _ = rates(0.0, count=15, between=0.3)
    assert found["cannot tell"] >= 0.9


def test_looking_at_every_pair_keeps_the_error_rate():
    """The chance that any look misses the truth; and that a 95 % interval at each look would not keep it."""
    rng = np.random.default_rng(5)
    values = rng.normal(0, 1, (2000, gate.MOST_PAIRS))
    looks = np.arange(gate.LEAST_PAIRS, gate.MOST_PAIRS + 1)
    means = np.cumsum(values, 1)[:, looks - 1] / looks
    spreads = np.stack([values[:, :n].std(1, ddof=1) / np.sqrt(n) for n in looks], 1)

    def missed(level):
        reach = np.array([gate.stats.t_quantile(1 - level / 2, n - 1) for n in looks])
        return float((np.abs(means) > reach * spreads).any(1).mean())

    assert missed(gate.LOOK_LEVEL) <= 0.06
    assert missed(0.05) >= 0.15


def test_disturbed_and_cold_samples_are_left_out():
    clean = gate.drop_preempted({"samples": [9.0, 1.0, 5.0, 1.1], "disturbed": [False, False, True, False]})
    assert clean == (1.0, 1.1)
    assert gate.drop_preempted({"samples": [9.0, 5.0, 6.0], "disturbed": [False, True, True]}) == (5.0, 6.0)


WORK = """
def setup():
    def call():
        total = 0
        for number in range({count}):
            total += number
        return total
    return call
"""


@pytest.fixture
def versions(tmp_path):
    paths = {}
    for name, count in (("base", 20_000), ("same", 20_000), ("slow", 30_000)):
        paths[name] = tmp_path / f"{name}.py"
        paths[name].write_text(WORK.format(count=count))
    return paths


@pytest.mark.slow
def test_real_processes_half_more_work_is_slower(versions, tmp_path):
    junit = tmp_path / "gate.xml"
    options = ["--baseline", str(versions["base"]), "--json", "--junit", str(junit), "--max-seconds", str(PATIENCE_S)]
    done = CliRunner().invoke(gate_command, [str(versions["slow"]), *options])
    assert done.exit_code == 1, done.output
    record = json.loads(done.stdout)[0]
    assert record["answer"] == "slower"
    assert 1.2 < record["ratio"]["estimate"] < 2.5  # half more work, measured beside whatever else runs
    assert ElementTree.parse(junit).getroot().get("failures") == "1"


@pytest.mark.slow
def test_real_processes_no_change_is_no_alarm(versions):
    rule = Rule(most_pairs=8, blocks=12, slice_s=0.02, threshold=0.1, most_s=PATIENCE_S, timeout_s=PATIENCE_S)
    told = gate.gate(BenchTarget(str(versions["base"])), BenchTarget(str(versions["same"])), rule, seed=1)
    assert told.answer in ("same", "cannot tell")
    assert told.exit_code in (0, 3)


def test_a_version_that_crashes_ends_the_gate_with_its_reason(versions, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import os\nos._exit(3)")
    with pytest.raises(RunError, match="died at 'open'; got exit code 3"):
        gate.gate(BenchTarget(str(versions["base"])), BenchTarget(str(bad)), RULE, seed=0)


FINDINGS = [
    GateFinding("latency a", "slower", "5 % | slower,\nreally", 3.2),
    GateFinding("memory a", "cannot tell", "100% no idea"),
    GateFinding("size a", "same", "equal"),
]


def test_junit_can_be_read_again():
    suite = ElementTree.fromstring(ci_reports.junit_xml(FINDINGS))
    assert [suite.get(key) for key in ("tests", "failures", "skipped")] == ["3", "1", "1"]
    assert [case.get("name") for case in suite] == ["latency a", "memory a", "size a"]
    assert suite[0].find("failure").get("message").startswith("slower: 5 % | slower,")


def test_annotations_and_summary_stay_on_their_lines():
    lines = ci_reports.github_annotations(FINDINGS).split("\n")
    assert lines[0] == "::error title=latency a::slower: 5 %25 | slower,%0Areally"
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]
    rows = ci_reports.markdown_summary(FINDINGS).strip().split("\n")
    assert len(rows) == 5
    assert "5 % \\| slower, really" in rows[2]


def measured(**values):
    readings = {name: Reading(name, {key: value}) for name, (key, value) in values.items()}
    return Result(Subject("net", "net.onnx"), readings)


BASE = measured(memory=("peak_bytes", 100e6), size=("file_bytes", 1e6), accuracy=("top1_ratio", 0.98),
                instructions=("instructions_count", 1e8))  # fmt: skip
CHANGES = {
    "memory within": ("memory", 101.9e6, "same"),
    "memory beyond": ("memory", 102.1e6, "slower"),
    "memory better": ("memory", 90e6, "faster"),
    "size beyond": ("size", 1.03e6, "slower"),
    "accuracy within": ("accuracy", 0.976, "same"),
    "accuracy beyond": ("accuracy", 0.974, "slower"),
    "accuracy better": ("accuracy", 0.99, "faster"),
    "instructions within": ("instructions", 1.009e8, "same"),
    "instructions beyond": ("instructions", 1.02e8, "slower"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_limits(case):
    metric, value, answer = CHANGES[case]
    found = thresholds.check_limit(
        metric, BASE, measured(**{metric: (thresholds.LIMITS[metric][0] or "top1_ratio", value)})
    )
    assert found.answer == answer


def test_a_missing_value_cannot_be_told():
    gone = Result(Subject("net", "n"), {"memory": Reading("memory", missing="it crashed")})
    found = thresholds.check_limit("memory", BASE, gone)
    assert (found.answer, found.exit_code, found.why) == ("cannot tell", 3, "new has no memory: it crashed")


@pytest.fixture
def repository(tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "work.py").write_text("old")
    git("add", ".")
    git("commit", "-qm", "old")
    (tmp_path / "net" / "work.py").write_text("new")
    return tmp_path


@pytest.mark.parametrize("name", ["net", "net/work.py"])
def test_a_revision_is_the_baseline(repository, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("base")
    found = baseline.at_revision("HEAD", repository / name, folder)
    assert (found / "work.py" if found.is_dir() else found).read_text() == "old"


@pytest.mark.parametrize(("revision", "name"), [("nowhere", "net"), ("HEAD", "gone.onnx"), ("--output=x", "net")])
def test_a_missing_baseline_is_wrong_use(repository, tmp_path, revision, name):
    with pytest.raises(UsageError):
        baseline.at_revision(revision, repository / name, tmp_path)


WRONG = {
    "threshold": (["x.onnx", "--baseline", ".", "--threshold", "3"], "the threshold or the time is not valid"),
    "unknown gate": (["NEW", "--baseline", "NEW", "--also", "smell"], "unknown gate 'smell'"),
    "no such version": (["gone.py", "--baseline", "NEW"], "no such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_of_the_command(case, versions):
    words, message = WRONG[case]
    done = CliRunner().invoke(gate_command, [str(versions["base"]) if word == "NEW" else word for word in words])
    assert done.exit_code == EdgesmithError.exit_code + 1
    assert message in done.output


def with_kernels(folder, **counts):
    """A bundle whose artefacts claim these kernels, as those of engines do."""
    nets = folder.with_name(f"{folder.name}-nets")
    nets.mkdir()
    items = [
        bundle.Item(colour_net(nets / f"{name}.onnx"), target=name, facts={"kernels": count})
        for name, count in counts.items()
    ]
    return bundle.write(folder, SPEC, items, golden_inputs=golden_inputs()).source


def test_not_one_kernel_more(tmp_path):
    base = with_kernels(tmp_path / "base", sm86=55, sm89=55, sm90=50)
    new = with_kernels(tmp_path / "new", sm86=56, sm89=54, sm87=60)
    told = {one.why.split(":")[0]: one.answer for one in thresholds.kernel_limits(base, new)}
    assert told == {"engine sm86": "slower", "engine sm89": "faster"}
    assert [one.answer for one in thresholds.kernel_limits(base, base)] == ["same"] * 3
    (none,) = thresholds.kernel_limits(base, with_kernels(tmp_path / "other", sm120=1))
    assert (none.answer, none.exit_code) == ("cannot tell", 3)


def test_a_bare_file_has_no_kernels(versions):
    with pytest.raises(UsageError, match="has no engines; expected two bundles"):
        thresholds.kernel_limits(versions["base"], versions["base"])


def scaled(run, factor):
    """The same run with latencies that many times as long, its reference workload as it was."""
    (one,) = run.results
    reading = one.readings["latency"]
    samples = tuple(tuple(factor * value for value in group) for group in reading.samples)
    longer = dataclasses.replace(reading, samples=samples)
    return dataclasses.replace(run, results=(dataclasses.replace(one, readings={"latency": longer}),))


def test_a_stored_result_is_a_baseline(versions, tmp_path, monkeypatch):
    """What is measured now is the stored result itself, so that no other work on the machine has a say."""
    few = SamplingPlan(processes=3, slice_s=0.02, least_s=0.05, warm_up_s=0.2)
    stored = suite.run_suite(suite.contexts(versions["base"]), few, only=["latency"], reference=True)
    asked = []

    def measured(contexts, plan, **settings):
        asked.append((contexts, plan.processes, settings["only"], settings["reference"]))
        return stored

    monkeypatch.setattr(suite, "run_suite", measured)
    path = tmp_path / "base.json"
    words = [str(versions["base"]), "--baseline", str(path), "--json"]
    for factor, code in ((1 / 4, 1), (4.0, 0)):
        result.write_run(scaled(stored, factor), path)
        done = CliRunner().invoke(gate_command, words)
        assert done.exit_code == code, done.output
        assert "were not interleaved" in json.loads(done.stdout)[0]["why"]
    assert asked == 2 * [(suite.contexts(versions["base"]), 5, ["latency"], True)]
    assert CliRunner().invoke(gate_command, [*words, "--also", "memory"]).exit_code == 2


HANGING = {
    "at its start": "import time\ntime.sleep(3600)\n",
    "in a call": "import time\ndef setup():\n    return lambda: time.sleep(3600)\n",
    "after a while": "import time\na = iter([0] * 40)\ndef setup():\n    return lambda: time.sleep(next(a, 3600))\n",
}


@pytest.mark.parametrize("case", HANGING)
def test_a_gate_ends_a_workload_that_hangs(case, tmp_path):
    (tmp_path / "base.py").write_text("def setup():\n    return lambda: None\n")
    (tmp_path / "hangs.py").write_text(HANGING[case])
    words = ["--baseline", str(tmp_path / "base.py"), "--max-seconds", "2", "--junit", str(tmp_path / "j.xml")]
    done = CliRunner().invoke(gate_command, [str(tmp_path / "hangs.py"), *words])
    assert (done.exit_code, "see whether it hangs" in " ".join(done.output.split())) == (3, True), done.output
    assert 'skipped="1"' in (tmp_path / "j.xml").read_text()


@pytest.mark.parametrize("metric", ["memory", "instructions"])
def test_the_time_governs_what_needs_no_statistics_too(metric, tmp_path, monkeypatch):
    """Both versions of a comparison get what is left of its time, more than the usual limit too."""
    (tmp_path / "base.py").write_text("def setup():\n    return lambda: None\n")
    left = []

    def start(self, target, **options):
        left.append((options["end"] - clock.now_ns()) * 1e-9)
        raise RunError("it is not started")

    monkeypatch.setattr(process.Process, "__init__", start)
    monkeypatch.setattr(instructions.shutil, "which", lambda name: name)
    both = [suite.contexts(tmp_path / "base.py")[0] for _ in range(2)]
    findings, _, codes = gate_module._limits(*both, [metric], 300.0)
    assert len(left) == 2
    assert 0 < left[1] <= left[0] <= 300
    assert (findings[0].answer, codes) == ("cannot tell", [3])


def test_a_workload_that_hangs_has_no_memory(tmp_path):
    (tmp_path / "base.py").write_text("def setup():\n    return lambda: None\n")
    (tmp_path / "hangs.py").write_text(HANGING["at its start"])
    both = [suite.contexts(tmp_path / name)[0] for name in ("base.py", "hangs.py")]
    (finding,), _, codes = gate_module._limits(*both, ["memory"], 2.0)
    assert (finding.answer, codes) == ("cannot tell", [3])
    assert "got no answer to 'open'" in finding.why


# The base version of a file that has others beside it -------------------------------------------------------------


@pytest.fixture
def companions(tmp_path):
    """A repository with an engine and its sidecar, an engine without, and ONNX files with weights and without."""
    place = tmp_path / "repository" / "net"
    place.mkdir(parents=True)
    for name in ("with.engine", "without.engine", "later.engine"):
        (place / name).write_bytes(b"engine")
    (place / "with.engine.json").write_text("old sidecar")
    for name, data in (("whole.onnx", "w.bin"), ("lacking.onnx", "gone.bin")):
        model = onnx.load(colour_net(place / name))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4.0), "unused"))
        onnx.save(model, place / name, save_as_external_data=True, location=data, size_threshold=0)
    weights = (place / "w.bin").read_bytes()
    (place / "gone.bin").unlink()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "old"]):
        subprocess.run([*git, *words], cwd=place.parent, check=True)
    for name in ("with.engine.json", "later.engine.json", "gone.bin", "w.bin"):
        (place / name).write_text("new")
    return place, weights


def test_what_belongs_to_a_file_comes_from_the_same_revision(companions, tmp_path):
    place, weights = companions
    engine = baseline.at_revision("HEAD", place / "with.engine", tmp_path)
    assert (tmp_path / "net" / "with.engine.json").read_text() == "old sidecar"
    assert engine.read_bytes() == b"engine"
    network = baseline.at_revision("HEAD", place / "whole.onnx", tmp_path)
    assert (network.parent / "w.bin").read_bytes() == weights


@pytest.mark.parametrize(
    ("name", "missing"),
    [("without.engine", "net/without.engine.json"), ("later.engine", "net/later.engine.json"),
     ("lacking.onnx", "net/gone.bin")],
)  # fmt: skip
def test_what_a_revision_lacks_cannot_be_told(name, missing, companions, tmp_path):
    place, _ = companions
    done = CliRunner().invoke(
        gate_command, [str(place / name), "--baseline", "HEAD", "--junit", str(tmp_path / "j.xml")]
    )
    assert done.exit_code == 3, done.output
    assert "cannot tell" in done.output
    assert f"no {missing} in that revision" in " ".join((tmp_path / "j.xml").read_text().split())
