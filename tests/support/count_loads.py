"""Count what one export loads: `python tests/support/count_loads.py mobilenetv2`, by caller; docs/measurements has it.

Counted in this process: ONNX files parsed (each file's times too), shape inferences, runs of onnx.checker, and sessions
of ONNX Runtime. Children (engines, latency) are not counted, what torch's exporter does inside itself is not either.
"""

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from pathlib import Path

import onnx
import onnx.checker
import onnx.shape_inference
import onnxruntime

from edgesmith.export import pipeline
from edgesmith.export.settings import ExportSettings

PACKAGE = Path(pipeline.__file__).resolve().parents[1]
KINDS = ("load", "infer_shapes", "check_model", "session")


class Counts:
    """Calls by kind and caller, and files by how often each was parsed."""

    def __init__(self) -> None:
        self.calls: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.files: Counter[str] = Counter()

    def counted(self, kind, function):
        """Return the function with its calls counted."""

        def call(*args, **options):
            if caller := _caller():
                self.calls[kind][caller] += 1
                if kind == "load" and isinstance(args[0], (str, os.PathLike)):
                    self.files[Path(args[0]).name] += 1
            return function(*args, **options)

        return call

    def install(self) -> None:
        """Put the counters in place of the functions."""
        onnx.load = self.counted("load", onnx.load)
        onnx.shape_inference.infer_shapes = self.counted("infer_shapes", onnx.shape_inference.infer_shapes)
        onnx.checker.check_model = self.counted("check_model", onnx.checker.check_model)
        onnxruntime.InferenceSession = self.counted("session", onnxruntime.InferenceSession)

    def totals(self) -> dict[str, int]:
        """Return how many calls of each kind there were."""
        return {kind: sum(callers.values()) for kind, callers in self.calls.items()}


def _caller() -> str:
    """Return the file of the package that calls, with its caller in another file; empty from outside the package."""
    places: list[str] = []
    frame = sys._getframe(2)
    if not Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        return ""
    while frame is not None and len(places) < 3:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE) and "tests" not in path.parts:
            place = f"{path.relative_to(PACKAGE)}:{frame.f_code.co_name}"
            if not places or place.split(":")[0] != places[-1].split(":")[0]:
                places.append(place)
        frame = frame.f_back
    return " <- ".join(places)


def main() -> None:
    """Export a network and print the counts, the seconds of each stage, and the digest of each ONNX file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--weights", default="trained")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    counts = Counts()
    counts.install()
    start = time.perf_counter()
    settings = ExportSettings(given.model, weights=given.weights, out=given.out, overwrite=True)
    pipeline.run(settings, lambda line: (sys.stdout.write(f"{line}\n"), sys.stdout.flush()))
    lines = [f"{time.perf_counter() - start:.1f} s in all; calls: {counts.totals()}"]
    lines += [f"{kind:<13}{count:5}  {caller}" for kind in KINDS for caller, count in counts.calls[kind].most_common()]
    lines += ["parsed: " + ", ".join(f"{name} {count}" for name, count in counts.files.most_common())]
    lines += [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}" for path in sorted(given.out.glob("onnx/*.onnx"))
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
