"""Settings, artefacts, checks, summary and state of one run of the pipeline."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bench.measure.evaluation import Evaluated
from ..models.catalog import embedded_data, find_network
from ..optimize.quantize.targets import quantized_targets
from ..runtime import datasets, targets
from ..runtime.backends import ort
from ..runtime.common.display import Displayed, Table
from ..runtime.common.plugins import did_you_mean
from ..runtime.datasets.photos import NAME as PHOTOS
from ..runtime.errors import UsageError
from ..runtime.spec import ModelSpec
from ..runtime.tasks import Task
from ..runtime.tasks import find as find_task
from .sources.load import resolve_weights
from .sources.options import SpecOptions
from .sources.source import NetworkSource, find_source

if TYPE_CHECKING:
    from ..optimize.graph.graph_file import GraphFile

PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("ort-x86", "trt")  # the default
# Where no label can judge: per cent of the images that must have FP32's top-1, and dB of the worst part of an output.
MIN_AGREEMENT, MIN_SQNR = 95.0, 15.0
SPLITS = ("test", "hard")
RANDOM_DATA = "random"  # noise, for a try without data
PACKAGE = "package"  # weights of ImageNet out of a package
TRAINED = "trained"  # weights that are trained on the data

Say = Callable[[str], None]


# What the network reads: images normalised by the runtime, or pixels, which the graph itself normalises.
INPUTS = NORMALISED, FLOATS, PIXELS = "normalised", "float-nchw", "uint8-nhwc"


@dataclass(frozen=True)
class ExportSettings:
    """Settings of a run; every field is an option of `edgesmith export`.

    `model` is a name or file as `source.find_source` reads it, or a `torch.nn.Module`. For networks of
    the zoo, the `weights` TRAINED are trained on `data`: embedded ones, or the user's folder of images; for others they
    are the network's own. `data` "random" is noise.
    """

    model: Any
    weights: str = TRAINED
    data: str = ""
    precisions: tuple[str, ...] = PRECISIONS
    targets: tuple[str, ...] = TARGETS
    out: Path | None = None
    sms: tuple[str, ...] = ("8.6", "8.9")
    calibration: int = datasets.CALIBRATION
    dynamic_batch: bool = False
    opset: int = 18
    threads: int = 0
    weights_folder: Path = Path("weights")
    max_drop: float | None = None
    min_agreement: float = MIN_AGREEMENT
    min_sqnr: float = MIN_SQNR
    evaluate: bool = True
    input: str = NORMALISED
    overwrite: bool = False
    describe: SpecOptions = field(default_factory=SpecOptions)

    def __post_init__(self) -> None:
        """Refuse unknown words before anything is computed."""
        if not self.source.is_ours:
            object.__setattr__(self, "weights", resolve_weights(self.source, self.weights))
        else:
            embedded = embedded_data(self.model) or datasets.DIGITS
            if not self.data:
                object.__setattr__(self, "data", PHOTOS if self.weights == PACKAGE else embedded)
            if self.weights in datasets.EMBEDDED or (self.weights, self.data) == (TRAINED, embedded):
                object.__setattr__(self, "weights", embedded)
        words = (("precision", self.precisions, PRECISIONS), ("target", self.targets, quantized_targets()),
                 ("input", (self.input,), INPUTS))  # fmt: skip
        for kind, choices, known in words:
            for word in choices:
                if word not in known:
                    near = did_you_mean(word, known) or "choose from these"
                    raise UsageError(f"unknown {kind} {word!r}", expected=", ".join(known), do=near)
        if "fp32" not in self.precisions:
            raise UsageError("fp32 is missing from the precisions", do="add it: every other one is compared with it")

    @functools.cached_property
    def source(self) -> NetworkSource:
        """The source of the network."""
        return find_source(self.model)

    @property
    def place(self) -> Path:
        """The bundle's folder."""
        return self.out or Path("bundles") / (
            find_network(self.model).name if self.source.is_ours else self.source.stem
        )

    def most_lost(self, task: Task) -> float:
        """Return the points of the task's metric that a lower precision may lose against FP32, on each split."""
        return task.max_drop if self.max_drop is None else self.max_drop

    def to_dict(self) -> dict[str, str]:
        """Return every setting as text."""
        values = {one.name: str(getattr(self, one.name)) for one in dataclasses.fields(self)}
        return {**values, "model": f"{self.source.place}{':' * bool(self.source.factory)}{self.source.factory}"}


def result_key(task: Task) -> str:
    """Return the key of a task's metric in `ExportedArtefact.results`, in per cent: "top1" for `top1_ratio`."""
    return task.metric.removesuffix("_ratio")


@dataclass(frozen=True)
class StageCheck:
    """One check and its result.

    `passed` is None if the check could not run here, or if the form that failed it was left out of the bundle.
    """

    name: str
    passed: bool | None
    detail: str
    left_out: bool = False


@dataclass(frozen=True)
class Kept:
    """Similarity of a form to FP32 on the worse split, and whether it is sufficient.

    Attributes:
        enough: Whether it meets the settings; True if it cannot be evaluated.
        lost_points: The loss in points of the task's metric, if the truth is known.
        agreement: Otherwise: per cent of equal choices (images with the same top-1, near ties included; objects).
        near_ties: How many images of both splits have another top-1 where FP32 was all but undecided.
        sqnr_db: Otherwise: the SQNR of the worst part of an output, in dB; None if it is equal to FP32's.
        near: Whether it meets the settings, or would with 1 dB less noise.
        not_judged: Why it was not evaluated; empty if it was.
    """

    enough: bool = True
    lost_points: float | None = None
    agreement: float | None = None
    near_ties: int = 0
    sqnr_db: float | None = None
    near: bool = True
    not_judged: str = ""

    def __str__(self) -> str:
        """Say it."""
        if self.not_judged:
            return f"not judged: {self.not_judged}"
        if self.lost_points is not None:
            return f"{self.lost_points:.2f} points are lost"
        sqnr = "all is equal" if self.sqnr_db is None else f"the SQNR is {self.sqnr_db:.1f} dB"
        if self.agreement is None:
            return sqnr
        ties = f" with {self.near_ties} near ties" if self.near_ties else ""
        return f"the agreement{ties} is {self.agreement:.2f} %, {sqnr}"


@dataclass
class ExportedArtefact:
    """One file of the bundle: an ONNX file, or an engine (then with its sidecar)."""

    name: str
    precision: str
    target: str
    path: Path
    nodes: int
    backend: str = "ort"
    sidecar: dict[str, Any] | None = None
    results: dict[str, Any] = field(default_factory=dict)
    left_out: bool = False  # it failed a check, and does not go into the bundle

    @property
    def simulated(self) -> bool:
        """Whether ONNX Runtime only simulates the target, with Q/DQ in float; its speed is then meaningless."""
        return targets.is_simulated(self.target, self.backend)

    @property
    def timed(self) -> bool:
        """Whether a file of a quick run is timed: files for CPUs, and engines."""
        return self.backend != "ort" or (self.precision != "fp16" and not self.simulated)

    @property
    def options(self) -> dict[str, Any]:
        """The options with which ONNX Runtime opens it."""
        return dict(ort.SIMULATED) if self.simulated else {}

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return self.path.stat().st_size


@dataclass(repr=False)
class Summary(Displayed):
    """The artefacts and checks of a run."""

    spec: ModelSpec
    bundle: Path
    artefacts: list[ExportedArtefact]
    checks: list[StageCheck]
    seconds: dict[str, float]
    written: bool = False

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    def headline(self) -> str:
        """Return the verdict and where the bundle is."""
        failed = [check.name for check in self.checks if check.passed is False]
        if failed:
            return f"{self.spec.name}: FAILED: {', '.join(failed)}"
        out = [check.name for check in self.checks if check.left_out]
        left_out = f"; left out: {', '.join(out)}" if out else ""
        return f"{self.spec.name}: {len(self.checks)} checks, none failed{left_out}; {self.bundle}"

    def table(self) -> Table:
        """Return one row per artefact, with values in per cent and milliseconds."""
        task, rows = find_task(self.spec.task), []
        for one in self.artefacts:
            scores = [one.results.get(split, {}).get(result_key(task)) for split in SPLITS]
            size, p50 = round(one.results.get("bytes", 0) / 1024), one.results.get("p50_s")
            rows.append((one.name, one.precision, one.target, size, *scores, p50 and round(1e3 * p50, 3)))
        splits = (f"{task.title} {split}" for split in SPLITS)
        return ("artefact", "precision", "target", "KB", *splits, "p50 ms"), rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rows = [
            {**dataclasses.asdict(one), "path": one.path.name, "bytes": one.results.get("bytes")}
            for one in self.artefacts
        ]
        return {
            "model": self.spec.name, "bundle": str(self.bundle), "written": self.written, "passed": self.passed,
            "artefacts": rows,
            "checks": [dataclasses.asdict(check) for check in self.checks], "seconds": self.seconds,
        }  # fmt: skip


class Flow:
    """One run: the settings, the data, and the artefacts and checks so far.

    `quick`: the files are only timed, so INT8 is plain calibration and no check compares with the module.
    """

    def __init__(self, settings: ExportSettings, say: Say, *, quick: bool = False) -> None:
        self.settings, self.say, self.quick = settings, say, quick
        self.checks: list[StageCheck] = []
        self.artefacts: list[ExportedArtefact] = []
        self.bf16: list[ExportedArtefact] = []  # artefacts in BF16: they are measured, and have no file of their own
        self.seconds: dict[str, float] = {}
        self.data: dict[str, datasets.Dataset] = {}
        self.records: dict[str, Any] = {}
        self.answers: dict[tuple[str, int, str, str], Evaluated] = {}  # file, its time, backend, images
        self.scores: dict[tuple[str, int, str, str], float] = {}
        self.likeness: dict[tuple[str, int, str], Kept] = {}
        self.trained_ranges: dict[str, tuple[float, float]] = {}  # of a file that was trained with Q/DQ
        self.graphs: dict[str, GraphFile] = {}  # the graphs in the artefacts' files, until the engines are built

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits on which forms are evaluated."""
        return tuple(split for split in SPLITS if split in self.data)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage and report its end."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        self.say(f"{name:<10} {self.seconds[name]:6.1f} s")

    def onnx(self, name: str) -> ExportedArtefact:
        """Return an ONNX artefact by its name."""
        return next(one for one in self.artefacts if one.name == name)

    def add(self, name: str, precision: str, target: str, graph: GraphFile) -> None:
        """Add an ONNX file to the artefacts."""
        self.artefacts.append(self.artefact(name, precision, target, graph))

    def artefact(self, name: str, precision: str, target: str, graph: GraphFile) -> ExportedArtefact:
        """Return an ONNX file as an artefact, and keep its graph."""
        self.graphs[name] = graph
        return ExportedArtefact(name, precision, target, graph.path, graph.nodes)
