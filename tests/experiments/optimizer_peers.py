"""The optimizer beside its peers, each in its own process: nodes, correctness, seconds, memory, speed of the result.

    python -m experiments.optimizer_peers --folder build/bench-passes [--models mobilenetv2,resnet18] [FILE.onnx ...]

The peers are installed into an environment of their own in the folder; models of the zoo are exported there with both
of torch's exporters, BatchNorm kept. Each tool on each model leaves one JSON file under `rows`, so that a second call
does only what is missing; each process is limited in time and memory. Writes `passes.json` and `passes.md`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from experiments.optimizer_peers_table import ONE_NODE, Row, markdown

from edgesmith.cli.console import say
from edgesmith.runtime.common import child_process
from edgesmith.runtime.common.files import atomic_file
from edgesmith.runtime.common.packages import need
from edgesmith.runtime.common.progress import note

PEERS = {
    "onnxslim": "0.1.98", "onnxsim": "0.8.1", "onnxoptimizer": "0.4.2", "onnxscript": "0.7.2",
    "onnxruntime": "1.31.1", "polygraphy": "0.53.6", "onnx": "1.23.2", "onnx-graphsurgeon": "0.6.1",
}  # fmt: skip
ORT = """import sys, onnxruntime as r; o = r.SessionOptions(); o.log_severity_level = 4
o.graph_optimization_level = r.GraphOptimizationLevel.ORT_ENABLE_{}; o.optimized_model_filepath = sys.argv[2]
r.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])"""
ONNX = "import sys, onnx; m = onnx.load(sys.argv[1]); {}; onnx.save(m, sys.argv[2])"
# Each is a program that reads argv[1] and writes argv[2].
TOOLS = {
    "copy": ONNX.format("pass"),
    "onnxslim": "import sys, onnxslim; onnxslim.slim(sys.argv[1], sys.argv[2])",
    "onnxsim": ONNX.format("import onnxsim; m = onnxsim.simplify(m)[0]"),
    "onnxoptimizer": ONNX.format(
        "import onnxoptimizer as o; m = o.optimize(m, o.get_fuse_and_elimination_passes(), fixed_point=True)"
    ),
    "onnxscript": ONNX.format("from onnxscript import optimizer; m = optimizer.optimize(m)"),
    "ORT basic": ORT.format("BASIC"),
    "ORT extended": ORT.format("EXTENDED"),
    "Polygraphy": "import sys; from polygraphy.tools import main; sys.argv[:] = "
    "['polygraphy', 'surgeon', 'sanitize', sys.argv[1], '-o', sys.argv[2], '--fold-constants', '--cleanup']; main()",
}
OURS = {
    "edgesmith": ["--target", "generic"],
    "edgesmith ort-x86": ["--target", "ort-x86"],
    "edgesmith unchecked": ["--no-verify"],
}
UNTIMED = ("copy", "edgesmith unchecked")
# A process counts as its peak what its parent held when it was started, so a small one starts it.
LAUNCH = """import json, os, resource, subprocess as s, sys, tempfile, threading, time
limit, most, start = float(sys.argv[1]), int(sys.argv[2]), time.perf_counter()
bound = lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))
with tempfile.TemporaryFile("w+", errors="replace") as errors:
    child = s.Popen(sys.argv[3:], stdout=s.DEVNULL, stderr=errors, preexec_fn=bound, start_new_session=True)
    late = threading.Timer(limit, lambda: os.killpg(child.pid, 9)); late.start()
    _, status, used = os.wait4(child.pid, 0); seconds = time.perf_counter() - start; late.cancel()
    errors.seek(0); said = errors.read()[-2000:]
said = f"no end after {limit:g} s" if seconds >= limit else said
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024,
said]))"""
# A process is run again while that is cheap; the least processor time is the one least disturbed by others.
TURNS, CHEAP_S = 3, 2.0
ONE = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }'
MODELS = "shufflenetv2,mobilenetv2,resnet50,densenet121,googlenet,efficientnet_b0,vgg16"
EXPORT = """import sys, warnings; warnings.simplefilter("ignore"); import torch; from edgesmith.models import catalog
name, legacy, path = sys.argv[1:]; torch.manual_seed(0); net = catalog.build_network(name).eval()
for part in net.modules():
    if isinstance(part, torch.nn.BatchNorm2d):
        part.running_mean.normal_(0, 0.1); part.running_var.uniform_(0.5, 1.5); part.weight.data.uniform_(0.5, 1.5)
def shuffle(x, groups):  # as torchvision spells it; TorchScript has no name for it
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
if legacy == "torchscript":
    torch.nn.functional.channel_shuffle = shuffle
given = (torch.randn(1, *catalog.network_spec(name).input_shape),)
names = dict(input_names=["input"], output_names=["output"])
if legacy == "torchscript":
    kept = dict(training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    torch.onnx.export(net, given, path, dynamo=False, opset_version=17, **names, **kept)
else:
    torch.onnx.export(net, given, dynamo=True, optimize=False, opset_version=18, verbose=False, **names).save(path)"""


def environment(folder: Path) -> Path:
    """Return the Python of an environment with the peers, made on the first call."""
    python = folder / "peers" / "bin" / "python"
    if not (folder / "peers" / ".ready").exists():
        note(f"installing the peers into {folder / 'peers'}")
        subprocess.run(child_process.isolated("-m", "venv", str(folder / "peers")), check=True)
        wanted = [f"{name}=={version}" for name, version in PEERS.items()]
        subprocess.run([str(python), "-I", "-m", "pip", "install", "--quiet", *wanted], check=True)
        (folder / "peers" / ".ready").touch()
    return python


def models(folder: Path, names: Sequence[str]) -> list[Path]:
    """Export each network with both exporters, where that has not been done, and add ONNX's own light graphs."""
    found = []
    for name in names:
        for exporter in ("torchscript", "dynamo"):
            path = folder / "models" / f"{name}-{exporter}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                note(f"exporting {path.stem}")
                command = child_process.code(EXPORT, name, exporter, str(path))
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    note(f"{path.stem} cannot be exported: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
                    continue
            found.append(path)
    light = Path(str(need("onnx").__file__)).parent / "backend" / "test" / "data" / "light"
    return [_one_node(folder / "models"), *found, *sorted(light.glob("*.onnx"))]


def _one_node(folder: Path) -> Path:
    """Write a graph of one node: what a tool costs on it is what it costs to start."""
    onnx, path = need("onnx"), folder / f"{ONE_NODE}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(onnx.parser.parse_model(ONE).SerializeToString())
    return path


def measured(
    command: list[str], result: Path, timeout_s: float = 120, memory_bytes: int = 12_000_000_000
) -> tuple[float, float, int, str]:
    """Run a process; return wall-clock and processor seconds, peak bytes, and the last line of its error, if any."""
    limits = [str(timeout_s), str(memory_bytes)]
    runs: list[tuple[float, float, int]] = []
    while not runs or (len(runs) < TURNS and sum(cpu for cpu, _, _ in runs) < CHEAP_S):
        result.unlink(missing_ok=True)
        launch = child_process.isolated("-S", "-c", LAUNCH, *limits, *command)
        # Some tools leave files where they stand.
        done = subprocess.run(launch, capture_output=True, text=True, check=True, cwd=result.parent)
        code, seconds, cpu, peak, errors = json.loads(done.stdout)
        runs.append((cpu, seconds, peak))
        if code not in (0, 3) or not result.exists():
            why = (errors.strip().splitlines() or [f"ended with {code}"])[-1][:120]
            return seconds, cpu, peak, why
    cpu, seconds, peak = min(runs)
    return seconds, cpu, peak, ""


def row(model: Path, tool: str, command: list[str], result: Path, expected: Any, speed: bool, **limits: Any) -> Row:
    """Run one tool on one model and judge what comes out."""
    from edgesmith.optimize import equivalence

    seconds, cpu, peak, why = measured(command, result, **limits)
    size = max(path.stat().st_size if path.exists() else 0 for path in (model, result))
    if why:
        return Row(model.stem, tool, None, f"failed: {why}", seconds, cpu, peak, size)
    nodes = len(need("onnx").load(str(result), load_external_data=False).graph.node)
    verdict = equivalence.against(expected, result).verdict if expected is not None else "cannot tell"
    ratios = [speed_up(model, result, optimised) for optimised in (False, True)] if speed else [None, None]
    return Row(model.stem, tool, nodes, verdict, seconds, cpu, peak, size, *ratios)


def speed_up(source: Path, result: Path, optimised: bool, runs: int = 15, enough_s: float = 2.0) -> float:
    """Return the median ratio of processor times of the source and the result, run in turns on one thread.

    After two turns to warm up, as many as fit in `enough_s` seconds, five to `runs`.
    """
    runtime, numpy = need("onnxruntime"), need("numpy")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    level = runtime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    sessions = [
        runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]) for path in (source, result)
    ]
    given = sessions[0].get_inputs()[0]
    shape = [dim if isinstance(dim, int) else 1 for dim in given.shape]
    feeds = {given.name: numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32)}
    times: list[list[float]] = [[], []]
    while len(times[0]) < 7 or (len(times[0]) < runs + 2 and sum(map(sum, times)) < enough_s):
        for session, spent in zip(sessions, times, strict=True):
            start = time.process_time()
            session.run(None, feeds)
            spent.append(time.process_time() - start)
    return float(numpy.median([one / other for one, other in zip(times[0][2:], times[1][2:], strict=True)]))


def compare(folder: Path, paths: Sequence[Path], speed: bool, again: str = "", **limits: Any) -> Iterator[list[Row]]:
    """Run every tool on every model, or read what that gave before; yield the rows of each model.

    ONNX's light graphs are not timed: their networks are. Tools whose names begin with `again` are run anew.
    """
    from edgesmith.optimize import comparison_inputs, equivalence

    python = environment(folder)
    for model in paths:
        result = folder / "rows" / model.stem / "result.onnx"
        result.parent.mkdir(parents=True, exist_ok=True)
        ours = child_process.python("edgesmith.cli", "optimize", str(model), "-o", str(result))
        timed = speed and not model.name.startswith("light_") and model.stem != ONE_NODE
        commands = {tool: [str(python), "-I", "-c", code, str(model), str(result)] for tool, code in TOOLS.items()}
        commands |= {tool: [*ours, *options] for tool, options in OURS.items()}
        rows, expected = [], None
        for tool, command in commands.items():
            place = result.with_name(f"{tool.replace(' ', '-')}.json")
            if place.is_file() and not (again and tool.startswith(again)):
                rows.append(Row(**json.loads(place.read_text(encoding="utf-8"))))
                continue
            if expected is None:
                with contextlib.suppress(comparison_inputs.Refusal):
                    expected = equivalence.reference(model)
            rows.append(row(model, tool, command, result, expected, timed and tool not in UNTIMED, **limits))
            with atomic_file(place) as temporary:
                temporary.write_text(json.dumps(asdict(rows[-1]), indent=1), encoding="utf-8")
            note(f"{model.stem} {tool}: {rows[-1].nodes} nodes, {rows[-1].verdict}, {rows[-1].seconds:.2f} s")
        result.unlink(missing_ok=True)
        yield rows


@click.command()
@click.argument("files", nargs=-1)
@click.option("--folder", default="build/bench-passes", show_default=True, help="Where peers, models and results go.")
@click.option("--models", "names", default=MODELS, show_default=True, help="Networks of the zoo, or empty for none.")
@click.option("--speed/--no-speed", default=True, help="Time the results in ONNX Runtime.")
@click.option("--timeout", "timeout_s", default=120.0, show_default=True, help="Seconds for one process.")
@click.option("--memory", "memory_gb", default=12.0, show_default=True, help="GB of address space for one process.")
@click.option("--again", default="", metavar="TOOL", help="Run anew the tools whose names begin with this.")
def main(
    files: tuple[str, ...], folder: str, names: str, speed: bool, timeout_s: float, memory_gb: float, again: str
) -> None:
    """Compare with every peer on the zoo's networks, ONNX's light graphs, or the files given."""
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    paths = [Path(file).resolve() for file in files] or models(place, [name for name in names.split(",") if name])
    rows: list[Row] = []
    limits = {"timeout_s": timeout_s, "memory_bytes": int(memory_gb * 1e9)}
    for found in compare(place, paths, speed, again, **limits):
        rows += found
        (place / "passes.json").write_text(json.dumps([asdict(entry) for entry in rows], indent=1) + "\n")
        (place / "passes.md").write_text(markdown(rows))
    say(markdown(rows))


if __name__ == "__main__":
    main()
