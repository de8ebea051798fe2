"""What the runtime itself costs, against bare numpy and bare onnxruntime in the same run.

    python tests/support/cost.py BUNDLE [--out cost.json]

import          `import edgesmith.runtime`, and the look-up of `load`, over `import numpy`: fresh processes in turn
first_answer    from process start to the first answer of BUNDLE on an image file, with ONNX Runtime; beside it a bare
                InferenceSession of the same file on zeros
overhead        one `model.run` over the bare `InferenceSession.run` of the same file, one thread, interleaved
installed_bytes the package's runtime folder, sources and data

`_wall_s` is the least wall time, `_cpu_s` the median processor time, which other processes disturb less.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BARE = "import numpy"
IMPORT = "import numpy, edgesmith.runtime"
LOAD = "import numpy, edgesmith.runtime; edgesmith.runtime.load"
FIRST = (
    "import sys; from edgesmith.runtime import load;print(load(sys.argv[1], device='ort')(sys.argv[2]).top(1)[0].label)"
)
BARE_FIRST = (
    "import sys, numpy, onnxruntime; s = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']);"
    "i = s.get_inputs()[0]; print(s.run(None, {i.name: numpy.zeros([d if isinstance(d, int) else 1 for d in i.shape],"
    " numpy.float32)})[0].argmax())"
)


def seconds(code: str, *words: str) -> tuple[float, float]:
    """Return the wall and the processor time of a fresh process."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return wall, cpu


def summary(name: str, times: list[tuple[float, float]]) -> dict[str, float]:
    walls, cpus = zip(*times, strict=True)
    return {f"{name}_wall_s": min(walls), f"{name}_cpu_s": statistics.median(cpus)}


def imports(rounds: int) -> dict[str, float]:
    """Return the extra time of the import, and of the import and the look-up of `load`, over numpy's own."""
    codes = {"numpy": BARE, "import": IMPORT, "import_and_load": LOAD}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            times[name].append(seconds(code))
    found = {key: value for name in codes for key, value in summary(name, times[name]).items()}
    for name in ("import", "import_and_load"):
        for unit in ("wall_s", "cpu_s"):
            found[f"{name}_{unit}"] -= found[f"numpy_{unit}"]
    return found


def first_answer(folder: Path, rounds: int) -> dict[str, float]:
    """Return the time to the first answer of a process, ours and a bare session's on the same file."""
    from PIL import Image

    from edgesmith.runtime import load

    with load(folder, device="ort") as model:
        network = str(model.bundle.folder / model.chosen.artefact.path)
    image = folder.parent / "cost.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)).save(image)
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(seconds(FIRST, str(folder), str(image)))
        bare.append(seconds(BARE_FIRST, network))
    image.unlink()
    return {**summary("first_answer", ours), **summary("bare_first_answer", bare)}


def overhead(folder: Path, rounds: int) -> dict[str, float]:
    """Return what a call costs over the bare session's own, both ways of looking for NaN; calls interleaved."""
    from edgesmith.runtime import load

    with load(folder, device="ort", threads=1) as model:
        native, name = model.session.native, model.session.inputs[0].name
        batch = np.random.default_rng(0).standard_normal((1, *model.spec.input_shape)).astype(np.float32)
        names = [tensor.name for tensor in model.session.outputs]
        calls = {
            "bare": lambda: native.run(names, {name: batch}),
            "checked": lambda: model.run(batch),
            "finite": lambda: model.run(batch, finite=True),
        }
        times: dict[str, list[float]] = {key: [] for key in calls}
        for _ in range(rounds):
            for key, call in calls.items():
                start = time.perf_counter()
                call()
                times[key].append(time.perf_counter() - start)
    typical = {key: min(found) for key, found in times.items()}
    extra = {f"overhead_{key}_wall_s": typical[key] - typical["bare"] for key in ("checked", "finite")}
    return {"bare_run_wall_s": typical["bare"], **extra}


def installed() -> int:
    """Return the bytes of what a device needs: the runtime folder without caches."""
    files = [path for path in (ROOT / "runtime").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sum(path.stat().st_size for path in files)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", default=15, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(bundle: Path, rounds: int, out: Path | None) -> None:
    """Measure BUNDLE and print JSON."""
    found = {
        **imports(rounds),
        **first_answer(bundle, rounds),
        **overhead(bundle, 2000),
        "installed_bytes": installed(),
    }
    text = json.dumps(found, indent=1)
    click.echo(text)
    if out:
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
