"""What is measured once is remembered, under a key that changes with what it depends on; the fastest wins."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith.runtime import load
from edgesmith.runtime.backends._base import Session, Tensor
from edgesmith.runtime.bundle import archive
from edgesmith.runtime.common import machine
from edgesmith.runtime.common.files import sha256
from edgesmith.runtime.errors import RunError
from edgesmith.runtime.selection import autotune, autotune_cache
from edgesmith.runtime.selection import candidates as choose
from edgesmith.runtime.verify import Replay, VerifyReport
from support.bundles import colour_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class VirtualTime:
    """The clock of a trial: only sleeping takes time, so that no other process can."""

    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds):
        self.now += seconds

    def perf_counter(self):
        self.now += 1e-9
        return self.now

    def process_time(self):
        return 0.0


@pytest.fixture
def clock(monkeypatch):
    virtual = VirtualTime()
    monkeypatch.setattr(autotune, "time", virtual)
    return virtual


class Sleeper(Session):
    """A session that takes a known time, or fails at a known run."""

    inputs = (Tensor("input", (1, 2), "float32"),)
    outputs = inputs

    def __init__(self, seconds, fails_at=None):
        self.seconds, self.fails_at, self.runs = seconds, fails_at, 0

    def _run(self, feeds):
        self.runs += 1
        if self.runs == self.fails_at:
            raise RunError("out of memory")
        autotune.time.sleep(self.seconds)
        return dict(feeds)


def candidates(made):
    return choose.candidates(made, "ort", "auto")


INT8, FP32 = "colours-int8", "colours-fp32"
# (artefact, threads) -> milliseconds of a run, and what should be chosen
CASES = {
    "the second is faster": ({(INT8, 2): 8, (FP32, 2): 2, (FP32, 1): 6}, FP32, 2),
    "one thread is faster": ({(INT8, 2): 4, (FP32, 2): 9, (INT8, 1): 1}, INT8, 1),
    "a tie goes to the first": ({(INT8, 2): 5, (FP32, 2): 5, (INT8, 1): 9}, INT8, 2),
    "nearly a tie goes to the first": ({(INT8, 2): 5.04, (FP32, 2): 5, (INT8, 1): 9}, INT8, 2),
    "what gains more than a tie does not": ({(INT8, 2): 5.06, (FP32, 2): 5, (FP32, 1): 9}, FP32, 2),
    "a second thread that gains little": ({(INT8, 2): 5, (FP32, 2): 6, (INT8, 1): 5.19}, INT8, 1),
    "a second thread that gains enough": ({(INT8, 2): 5, (FP32, 2): 6, (INT8, 1): 5.21}, INT8, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_the_fastest_is_chosen(case, made, monkeypatch):
    times, artefact, threads = CASES[case]
    monkeypatch.setattr(autotune, "thread_counts", lambda: [2, 1])
    monkeypatch.setattr(autotune, "_timed", lambda session, feeds: session.seconds)
    opened = []

    def open_one(one, count):
        opened.append(Sleeper(times[one.artefact.name, count] / 1e3))
        return opened[-1]

    winner = autotune.measure(candidates(made), open_one, None)
    assert (winner.candidate.artefact.name, winner.threads) == (artefact, threads)
    assert len(winner.seconds) == len(times)
    assert [session for session in opened if not session.closed] == [winner.session]


def named(name, precision, target="generic", backend="ort", device="cpu"):
    return choose.Candidate(
        SimpleNamespace(name=name, precision=precision, target=target, role="onnx"), backend, device
    )


def test_what_a_cpu_computes_alike_is_measured_once():
    forms = [("a", "int8", "ort-x86"), ("b", "fp32"), ("c", "int8", "trt"), ("d", "int8", "trt"), ("e", "fp16")]
    both = [named(*form, backend=backend) for backend in ("ort", "openvino") for form in forms]
    found = [("".join(one.artefact.name for one in kind), kind[0].backend) for kind in autotune._kinds(both)]
    assert found == [(names, backend) for backend in ("ort", "openvino") for names in ("a", "be", "cd")]
    engines = [named(name, "fp16", backend="trt", device="gpu") for name in "xy"]
    assert autotune._kinds(engines) == [[one] for one in engines]


def test_where_the_first_of_its_kind_does_not_open_the_next_does(clock):
    forms = [named("c", "int8", "trt"), named("d", "int8", "trt"), named("b", "fp32")]

    def open_one(one, count):
        if one.artefact.name == "c":
            raise RunError("it computes something else here")
        return Sleeper({"d": 0.001, "b": 0.004}[one.artefact.name])

    assert autotune.measure(forms, open_one, 1).candidate is forms[1]


def test_what_would_not_be_open_in_time_is_not_opened(clock, monkeypatch):
    opened = []

    def open_one(one, count):
        opened.append((one.backend, count))
        clock.sleep(1.0 if one.backend == "openvino" else 0)
        return Sleeper(0.003)

    monkeypatch.setattr(autotune, "thread_counts", lambda: [2, 1])
    monkeypatch.setattr(autotune, "BUDGET_S", 2.0)
    autotune.measure([named("a", "fp32"), named("a", "fp32", backend="openvino")], open_one, None)
    assert opened[:2] == [("ort", 2), ("openvino", 2)]
    assert ("openvino", 1) not in opened


def test_what_was_beaten_is_not_run_again(clock):
    sessions = {"fast": Sleeper(0.001), "slow": Sleeper(0.02)}
    forms = [named("fast", "fp32"), named("slow", "fp32", backend="openvino")]
    winner = autotune.measure(forms, lambda one, count: sessions[one.artefact.name], 1)
    assert winner.candidate is forms[0]
    assert sessions["slow"].runs == autotune.HEAT_ROUNDS * (autotune.WARM_UPS + 1)


@pytest.mark.parametrize(("milliseconds", "first"), [(0.3, 1), (5.0, 2)], ids=["small", "large"])
def test_what_loads_slowly_begins_with_the_threads_that_suit_the_network(milliseconds, first, clock, monkeypatch):
    opened = []

    def open_one(one, threads):
        opened.append((one.backend, threads))
        return Sleeper(milliseconds * 1e-3)

    monkeypatch.setattr(autotune, "thread_counts", lambda: [2, 1])
    monkeypatch.setattr(autotune, "SMALL_S", 0.002)
    autotune.measure([named("a", "fp32"), named("a", "fp32", backend="openvino")], open_one, None)
    assert opened[0] == ("ort", 2)
    assert next(threads for backend, threads in opened if backend == "openvino") == first


def test_given_threads_are_kept(made, clock):
    assert autotune.measure(candidates(made), lambda one, n: Sleeper(0.001 * n), 3).threads == 3


def test_one_that_fails_half_way_is_left_out(made, clock):
    opened = []

    def open_one(one, _):
        opened.append(Sleeper(0.001, fails_at=5) if one.artefact.name == "colours-int8" else Sleeper(0.003))
        return opened[-1]

    winner = autotune.measure(candidates(made), open_one, 1)
    assert winner.candidate.artefact.name == "colours-fp32"
    assert [session for session in opened if not session.closed] == [winner.session]


def test_nothing_that_runs_is_no_choice(made):
    def open_one(one, threads):
        raise RunError("no memory")

    assert autotune.measure(candidates(made), open_one, 1) is None


def test_it_keeps_to_its_time(made, clock, monkeypatch):
    monkeypatch.setattr(autotune, "BUDGET_S", 0.3)
    found = autotune.measure(candidates(made), lambda one, n: Sleeper(0.05), 1)
    turn_s = (autotune.WARM_UPS + 1) * 0.05
    rounds_s = 0.3 + turn_s * len(found.seconds)  # the round under way is finished
    assert clock.now < rounds_s + 4 * autotune.SETTLE_STEP_S


def test_load_measures_once_and_then_remembers(made, cache, monkeypatch):
    with load(made) as first:
        assert "measured here: " in first.why()
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["artefact"] == first.chosen.artefact.name
    monkeypatch.setattr(autotune, "measure", lambda *_: pytest.fail("measured again"))
    with load(made) as second:
        assert second.why() == first.why()
        assert second.run(np.zeros((1, 3, 16, 16), np.float32))["output"].shape == (1, 3)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"artefact": 1}', '{"artefact":"a","backend":"b","threads":-1,"seconds":{}}']
)
def test_a_damaged_memory_is_measured_again(text, cache):
    cache.mkdir()
    (cache / "x.json").write_text(text)
    assert autotune_cache.remembered("x") is None


def test_a_folder_that_cannot_be_written_is_no_error(cache):
    cache.write_text("a file in the way")
    autotune_cache.remember("x", autotune_cache.Choice("a", "b", 1, {}))
    assert autotune_cache.remembered("x") is None


def test_the_key_changes_with_what_it_depends_on(made, monkeypatch):
    order = candidates(made)
    keys = [
        autotune_cache.key(made, order, None),
        autotune_cache.key(made, order, 1),
        autotune_cache.key(made, order[:1], None),
    ]
    monkeypatch.setattr(autotune_cache, "cores", lambda: 77)
    keys.append(autotune_cache.key(made, order, None))
    monkeypatch.setattr(autotune_cache, "_version", lambda backend: "next")
    keys.append(autotune_cache.key(made, order, None))
    assert len(set(keys)) == 5


QUOTAS = {"max 100000": 8, "200000 100000": 2, "50000 100000": 1, "": 8, "nonsense 0": 8}


@pytest.mark.parametrize("text", QUOTAS)
def test_a_containers_quota_limits_the_cores(text, monkeypatch):
    monkeypatch.setattr(machine, "read_text", lambda path: text if "cpu.max" in str(path) else "")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.cores() == QUOTAS[text]


def test_what_computes_something_else_here_is_not_chosen(made, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "copy")
    name = "golden/colours-int8.npz"
    archive.write_arrays(folder / name, {"output": -archive.read_arrays(folder / name)["output"]})
    values = json.loads((folder / "manifest.json").read_text())
    values["files"][name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(values))
    with load(folder) as model:
        assert model.chosen.artefact.name == "colours-fp32"
        assert not any("colours-int8 with" in line for line in model.why().splitlines())


def test_verdicts_follow_the_first_backend_that_should_be_right():
    def verdict(*statuses):
        names = [Replay(artefact, backend, status) for artefact, backend, status in statuses]
        return VerifyReport("b", "0", 1, {}, tuple(names)).verdict

    assert verdict(("a", "ort", "passed"), ("a", "openvino", "differs")) == "passed"
    assert verdict(("a", "ort", "skipped"), ("a", "openvino", "differs"), ("b", "ort", "passed")) == "failed"
    assert verdict(("a", "ort", "failed"), ("a", "openvino", "passed")) == "failed"
    assert verdict(("a", "trt", "skipped")) == "cannot tell"
