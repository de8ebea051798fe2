"""Sweeps: every cell once, stopped and gone on, failures alone; on Dask with workers that are killed."""

import dataclasses
import errno
import functools
import importlib
import importlib.util
import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgesmith.bench.measure import environment, process
from edgesmith.bench.measure.interleave import SamplingPlan
from edgesmith.bench.sweep import cluster, sweep
from edgesmith.bench.sweep.sweep import Outcome, Store, SweepCell
from edgesmith.cli.sweep import sweep_command
from edgesmith.runtime.errors import EdgesmithError, RunError, UsageError
from support import results
from support.bundles import colour_bundle, colour_net
from support.patience import PATIENCE_S

WORK = "def setup():\n    return lambda: sum(range(2000))"


def cells(count):
    return [SweepCell(f"net{number}.onnx", "fp32", "ort", 1, 1) for number in range(count)]


def null(cell):
    return {**results.run(names=("resnet50",)).to_dict(), "command": cell.path}


def test_a_grid_is_every_combination_once(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    found = sweep.sweep_cells([str(tmp_path / "work.py")], threads=(1, 2), batches=(1, 4))
    assert len({cell.key for cell in found}) == 4
    (tmp_path / "work.py").write_text(WORK + "  # changed")
    again = sweep.sweep_cells([str(tmp_path / "work.py")], threads=(1, 2), batches=(1, 4))
    assert not {cell.key for cell in found} & {cell.key for cell in again}


def write_onnx(folder, name):
    """An ONNX file whose weights stand beside it."""
    onnx = pytest.importorskip("onnx")
    colour_net(folder / name)
    model = onnx.load(folder / name)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, folder / name, save_as_external_data=True, location="w.data", size_threshold=0)


# what a figure depends on, by a change of it
CHANGES = {
    "a Python file": lambda folder: (folder / "work.py").write_text(WORK + "  # changed"),
    "the weights beside an ONNX file": lambda folder: (folder / "w.data").write_bytes(b"0" * 4096),
    "a bundle's labels": lambda folder: (folder / "b" / "manifest.json").write_text(
        (folder / "b" / "manifest.json").read_text().replace('"red"', '"crimson"')
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_changed_is_measured_again_and_a_worker_with_another_file_is_refused(case, tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    write_onnx(tmp_path, "net.onnx")
    colour_bundle(tmp_path / "b")
    paths = [str(tmp_path / name) for name in ("work.py", "net.onnx", "b")]
    before = [SweepCell(path, "", "", 1, 1, sweep.content_digest(path)) for path in paths]
    assert [sweep.content_digest(path) for path in paths] == [cell.sha256 for cell in before]
    CHANGES[case](tmp_path)
    after = [SweepCell(path, "", "", 1, 1, sweep.content_digest(path)) for path in paths]
    assert sum(one.key != other.key for one, other in zip(before, after, strict=True)) == 1
    (changed,) = (one for one, other in zip(before, after, strict=True) if one != other)
    with pytest.raises(EdgesmithError, match="is not the file of this sweep"):
        sweep.measure_cell(changed, SamplingPlan())


def test_every_setting_and_version_is_in_a_cells_key(tmp_path, monkeypatch):
    """Another plan, other images, another version of a package, of Edgesmith or of Python, another machine."""
    cell, here = cells(1)[0], environment.here()
    settings = [
        sweep.sweep_settings(plan=[3, 1.0]),
        sweep.sweep_settings(plan=[3, 2.0]),
        sweep.sweep_settings(data="a"),
    ]
    for change in ({"packages": {"onnxruntime": "0"}}, {"python": "3.0"}, {"cpu": "another"}):
        monkeypatch.setattr(environment, "here", lambda change=change: dataclasses.replace(here, **change))
        settings.append(sweep.sweep_settings(plan=[3, 1.0]))
    monkeypatch.setattr(sweep, "__version__", "0")
    settings.append(sweep.sweep_settings(plan=[3, 1.0]))
    every = [dataclasses.replace(cell, settings=one) for one in settings]
    every += [dataclasses.replace(cell, **{name: value}) for name, value in (("shape", "1x3x9x9"), ("sha256", "a"))]
    assert len({one.key for one in every}) == len(every)


def test_a_stopped_sweep_goes_on_where_it_stopped(tmp_path):
    store, asked = Store(tmp_path), []

    def stops_at_the_third(cell):
        asked.append(cell)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return null(cell)

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(cells(5), store, stops_at_the_third)
    assert sum(store.has(cell) for cell in cells(5)) == 2
    assert sweep.sweep(cells(5), store, stops_at_the_third) == (3, 0)
    assert sorted(cell.path for cell in asked) == sorted([*(cell.path for cell in cells(5)), "net2.onnx"])
    assert len(sweep.gather_cells(cells(5), store)[0].results) == 5


def test_a_cell_that_fails_fails_alone_and_is_tried_again(tmp_path):
    store = Store(tmp_path)

    def bad_second(cell):
        if cell.path == "net1.onnx":
            raise EdgesmithError("it crashed")
        return null(cell)

    assert sweep.sweep(cells(3), store, bad_second) == (2, 1)
    assert store.failure(cells(3)[1]) == "it crashed"
    assert sweep.sweep(cells(3), store, null) == (1, 0)
    assert store.failure(cells(3)[1]) == ""


def test_machines_are_not_mixed(tmp_path):
    store = Store(tmp_path)
    for cell, cpu in zip(cells(3), ("a", "b", "a"), strict=True):
        run = null(cell)
        run["environment"] = {**run["environment"], "cpu": cpu}
        store.put(Outcome(cell, run))
    assert sorted(len(run.results) for run in sweep.gather_cells(cells(3), store)) == [1, 2]


HANGS = "import time\ntime.sleep(600)"
CRASHES = "import os\nos.abort()"


def patient_but_with(name, monkeypatch):
    """Let the time limit hold for one workload alone: what is merely slow today is waited for."""
    real = process.Process.__init__

    def start(self, target, *, timeout_s=PATIENCE_S, **options):
        real(self, target, timeout_s=timeout_s if name in target.path else PATIENCE_S, **options)

    monkeypatch.setattr(process.Process, "__init__", start)


def test_crashing_and_hanging_cells_fail_with_their_reason_and_the_rest_goes_on(tmp_path, monkeypatch):
    patient_but_with("hangs.py", monkeypatch)
    for name, text in (("crashes", CRASHES), ("hangs", HANGS), ("good", WORK)):
        (tmp_path / f"{name}.py").write_text(text)
    words = [*(str(tmp_path / f"{name}.py") for name in ("crashes", "hangs", "good")), "--processes", "1",
             "--seconds", "0.1", "--timeout", "1", "--out", str(tmp_path / "out"), "--json"]  # fmt: skip
    done = CliRunner().invoke(sweep_command, words)
    assert done.exit_code == 1, done.output
    assert "got signal 6" in done.stderr
    assert "hangs; got no answer to 'open' in 1 s" in done.stderr
    assert [one["subject"]["model"] for one in json.loads(done.stdout)[0]["results"]] == ["good"]


def test_a_full_disk_keeps_what_was_measured(tmp_path, monkeypatch):
    """The third write finds no room, as the system says it; the two before stay, and the sweep goes on later."""
    store, real, written = Store(tmp_path), Path.write_text, []

    def full(path, text, *rest, **more):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        return real(path, text, *rest, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EdgesmithError, match="No space left"):
        sweep.sweep(cells(5), store, null)
    monkeypatch.undo()
    assert [store.has(cell) for cell in cells(5)] == [True, True, False, False, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{cell.key}.json" for cell in cells(2))
    assert sweep.sweep(cells(5), store, null) == (3, 0)


def test_the_command_measures_and_then_finds_it_done(tmp_path):
    (tmp_path / "good.py").write_text(WORK)
    (tmp_path / "bad.py").write_text("1 / 0")
    words = [str(tmp_path / "good.py"), str(tmp_path / "bad.py"), "--processes", "1", "--seconds", "0.1",
             "--out", str(tmp_path / "out"), "--json"]  # fmt: skip
    first = CliRunner().invoke(sweep_command, words)
    assert first.exit_code == 1, first.output
    assert "ZeroDivisionError" in first.stderr
    assert "1 cells measured, 0 were measured before, 1 failed" in first.stderr
    assert [one["subject"]["model"] for one in json.loads(first.stdout)[0]["results"]] == ["good"]
    second = CliRunner().invoke(sweep_command, words)
    assert "0 cells measured, 1 were measured before, 1 failed" in second.stderr


@pytest.mark.parametrize("threads", ["one", "-1", "1,,2"])
def test_senseless_numbers_are_wrong_use(threads, tmp_path):
    (tmp_path / "good.py").write_text(WORK)
    assert CliRunner().invoke(sweep_command, [str(tmp_path / "good.py"), "--threads", threads]).exit_code == 2


needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="no Dask here: pip install 'edgesmith[cluster]'"
)


def kills_its_worker_once(cell, marker):
    """Work that takes its process with it the first time, as a machine that goes away."""
    if cell.path == "net2.onnx" and not os.path.exists(marker):  # noqa: PTH110
        open(marker, "w").close()  # noqa: PTH123
        os.kill(os.getpid(), signal.SIGKILL)
    return null(cell)


def always_kills(cell):
    if cell.path == "net1.onnx":
        os.kill(os.getpid(), signal.SIGKILL)
    return null(cell)


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_costs_only_its_own_cell(tmp_path):
    store = Store(tmp_path / "once")
    with cluster.Cluster(workers=2) as local:
        work = functools.partial(kills_its_worker_once, marker=str(tmp_path / "marker"))
        assert sweep.sweep(cells(6), store, work, local) == (6, 0)
    store = Store(tmp_path / "always")
    with cluster.Cluster(workers=2) as local:
        assert sweep.sweep(cells(6), store, always_kills, local) == (5, 1)
    assert store.failure(cells(6)[1]).startswith("the worker was lost in each of 3 runs")


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_cells_arrive_once():
    with cluster.Cluster(workers=4) as local:
        outcomes = list(local(cells(1000), nothing))
    assert sorted(outcome.cell.path for outcome in outcomes) == sorted(cell.path for cell in cells(1000))


def nothing(cell):
    return {"path": cell.path}


def slow(cell):
    start = time.time()
    time.sleep(0.2)
    return {"span": [start, time.time()], "worker": os.getpid()}


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_benchmark_at_a_time_on_a_device():
    with cluster.Cluster(workers=2) as local:
        outcomes = [outcome.run for outcome in local(cells(8), slow)]
    for worker in {run["worker"] for run in outcomes}:
        spans = sorted(run["span"] for run in outcomes if run["worker"] == worker)
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))


def test_plans_and_cells_travel():
    cell = cells(1)[0]
    assert SweepCell(**json.loads(json.dumps(cell.__dict__))) == cell
    assert SamplingPlan(**json.loads(json.dumps(SamplingPlan().__dict__))) == SamplingPlan()


ADDRESSES = {
    "tls://lab:8786": True, "wss://lab:8786": True, "tcp://127.0.0.1:8786": True, "tcp://localhost:8786": True,
    "tcp://[::1]:8786": True, "127.0.0.1:8786": True, "tcp://lab:8786": False, "lab:8786": False,
    "tcp://10.0.0.1:8786": False, "ucx://lab:8786": False, "ws://lab:8786": False, "tcp://127.0.0.1.evil.org:1": False,
    "tcp://localhost.evil.org:8786": False, "": False, "tcp://0.0.0.0:8786": False,
}  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_unencrypted_connection_to_another_machine_is_asked_for(address):
    cluster.check_address(address, plain=True)
    if ADDRESSES[address]:
        cluster.check_address(address)
        return
    with pytest.raises(UsageError, match="neither encrypted nor authenticated.*--plain-tcp"):
        cluster.check_address(address)


class Hostile:
    """An object that runs code where it is unpickled: it leaves a file with the number of the process."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return exec, (f"import os; open(f'{self.folder}/{{os.getpid()}}', 'w').close()",)


def hostile(cell, work):
    """What a worker may answer, whatever it was asked."""
    return Hostile(cell.path)


def certificates(folder):
    security = importlib.import_module("distributed").Security.temporary()
    files = {"ca": security.tls_ca_file, "certificate": security.tls_client_cert, "key": security.tls_client_key}
    for name, text in files.items():
        (folder / f"{name}.pem").write_text(text)
    return security, cluster.Tls(*(folder / f"{name}.pem" for name in files))


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_with_tls_works_and_its_answers_are_not_unpickled(tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    security, tls = certificates(tmp_path)
    local = importlib.import_module("distributed").LocalCluster(
        n_workers=1, threads_per_worker=1, security=security, resources={"orin": 1}, dashboard_address=None
    )
    with local:
        address = local.scheduler_address
        assert address.startswith("tls://")
        with cluster.Cluster(address, resource="orin", tls=tls) as remote:
            assert [one.run["path"] for one in remote(cells(3), nothing)] == [cell.path for cell in cells(3)]
            (tmp_path / "ran").mkdir()
            monkeypatch.setattr(cluster, "_attempt_text", hostile)
            (outcome,) = remote([SweepCell(str(tmp_path / "ran"), "", "", 1, 1)], nothing)
            assert outcome.run is None
            assert "the cell failed" in outcome.failure
            assert str(os.getpid()) not in [path.name for path in (tmp_path / "ran").iterdir()]
        with pytest.raises(UsageError, match="no worker has the resource 'nano'; got 1 workers with orin"):
            cluster.Cluster(address, resource="nano", tls=tls)
        with pytest.raises(RunError, match="no scheduler answers"):
            cluster.Cluster(address, resource="orin")
