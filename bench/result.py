"""The record of a measurement: immutable, with units in its names, as JSON with a format version.

History of the format:
    1  Run {format, version, created, command, environment, results}; a Result has a subject and readings; a Reading
       has values named with their unit (`p50_s`, `peak_bytes`), intervals, samples by process, and, if nothing
       could be measured, the reason in `missing`.
    2  A Reading may have rows: a table, such as the operators of `layers`. A Run may have a reference: the seconds of
       one call of the reference workload, by process (see `bench/measure/reference.py`).
    3  A subject has a variant, which distinguishes artefacts of one precision and target, and the data set of its
       published accuracy. The metrics `limit` and `conditions` are called `roofline_share` and `thermal`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.common.display import Displayed, Table
from ..runtime.common.files import atomic_file, existing_file
from ..runtime.errors import DataError
from .measure.environment import Environment

FORMAT, VERSION = "edgesmith-bench", 3
RENAMED = {"limit": "roofline_share", "conditions": "thermal"}  # metrics, since version 3
UNITS = {"_s": "seconds", "_bytes": "bytes", "_per_s": "1/s", "_ratio": "ratio", "_db": "dB", "_count": "count",
         "_j": "joules", "_w": "watts", "_c": "degrees Celsius", "_hz": "hertz"}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """The measured artefact of a network, on one backend with one number of threads."""

    model: str
    artifact: str
    precision: str = "fp32"
    target: str = ""
    backend: str = "ort"
    threads: int = 1
    batch: int = 1
    input_shape: tuple[int, ...] = ()
    sha256: str = ""
    params: int | None = None
    macs: int | None = None
    published_top1_percent: float | None = None
    weights: str = ""
    variant: str = ""
    published_dataset: str = ""

    @property
    def form(self) -> str:
        """Precision, target and, if any, variant: «int8-ort-x86», «int8-trt-fp16»."""
        return "-".join(part for part in (self.precision, self.target, self.variant) if part not in ("", "generic"))

    @property
    def key(self) -> str:
        """The name that is equal in two runs of the same subject; it excludes the digest, which changes."""
        return f"{self.model}/{self.form}/{self.backend}/t{self.threads}/b{self.batch}"


@dataclass(frozen=True)
class Reading:
    """The result of one metric for one subject.

    `values` and the keys of `intervals` carry their unit; `samples` are by process; `rows` are a table of plain values.
    `missing` is the reason why there are no values; `notes` are caveats.
    """

    metric: str
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    samples: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
    missing: str = ""
    rows: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if not name.endswith(tuple(UNITS)):
                raise ValueError(f"the value {name!r} has no unit: its name must end in one of {', '.join(UNITS)}")
            if not math.isfinite(value):
                raise ValueError(f"{self.metric}: {name} is {value}; a value that was not measured must be absent")
        if not self.values and not self.missing:
            raise ValueError(f"{self.metric} has no values and no reason why they are missing")


@dataclass(frozen=True)
class Result:
    """A subject with one reading per metric, by the metric's name."""

    subject: Subject
    readings: dict[str, Reading] = field(default_factory=dict)

    def value(self, metric: str, name: str) -> float | None:
        """Return one value, or None if it is missing."""
        return self.readings[metric].values.get(name) if metric in self.readings else None


@dataclass(frozen=True, repr=False)
class Run(Displayed):
    """All results of one command on one machine. `created` is UTC, ISO 8601."""

    created: str
    command: str
    environment: Environment
    results: tuple[Result, ...] = ()
    reference: tuple[tuple[float, ...], ...] = ()

    def headline(self) -> str:
        """Return a summary: number of results, networks, machine and time."""
        models = ", ".join(dict.fromkeys(result.subject.model for result in self.results))
        return f"{len(self.results)} results of {models} on {self.environment.cpu}, {self.created}"

    def table(self) -> Table:
        """Return one row for each subject: p50 and p99 in milliseconds, and the file in MB."""
        figures = (("latency", "p50_s", 1e3), ("latency", "p99_s", 1e3), ("size", "file_bytes", 1e-6))
        rows = []
        for result in self.results:
            values = [result.value(metric, name) for metric, name, _ in figures]
            rows.append((
                result.subject.key,
                *(None if value is None else round(value * figure[2], 3)
                  for value, figure in zip(values, figures, strict=True)),
            ))  # fmt: skip
        return ("subject", "p50 ms", "p99 ms", "file MB"), rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values with the format's name and version."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "environment": self.environment.to_dict()}


def write_run(run: Run, path: str | Path) -> Path:
    """Write a run as JSON atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(run.to_dict(), indent=1, allow_nan=False) + "\n")
    return Path(path)


def read_run(path: str | Path) -> Run:
    """Read a run.

    Raises:
        UsageError: There is no such file.
        DataError: The file was not written by Edgesmith, or has a newer format.
    """
    path = existing_file(path, "result")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        header = values.get("format"), values.get("version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise _unreadable(path, f"no JSON object ({error})") from error
    if header[0] != FORMAT or not isinstance(header[1], int) or not 1 <= header[1] <= VERSION:
        raise _unreadable(path, f"format {header[0]!r} version {header[1]!r}")
    try:
        return run_from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def run_from_dict(values: dict[str, Any]) -> Run:
    """Build a run from plain JSON values.

    Raises:
        KeyError, TypeError, ValueError: A field is missing, unknown or of the wrong type.
    """
    environment = Environment.from_dict(values["environment"])
    results = tuple(_result(item) for item in values["results"])
    reference = _floats(values.get("reference", ()))
    return Run(str(values["created"]), str(values["command"]), environment, results, reference)


def _result(values: dict[str, Any]) -> Result:
    subject = Subject(**{**values["subject"], "input_shape": tuple(values["subject"]["input_shape"])})
    return Result(subject, {RENAMED.get(name, name): _reading(item) for name, item in values["readings"].items()})


def _reading(values: dict[str, Any]) -> Reading:
    return Reading(
        metric=RENAMED.get(values["metric"], values["metric"]),
        values={name: float(value) for name, value in values["values"].items()},
        intervals={name: (float(low), float(high)) for name, (low, high) in values["intervals"].items()},
        samples=_floats(values["samples"]),
        notes=tuple(values["notes"]),
        missing=values["missing"],
        rows=tuple(dict(row) for row in values.get("rows", ())),
    )


def _floats(groups: Iterable[Iterable[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in group) for group in groups)


def _unreadable(path: Path, got: str) -> DataError:
    expected = f"{FORMAT} JSON of version 1 to {VERSION}"
    return DataError(f"{path} is not a result", got=got, expected=expected, do="write it with `edgesmith bench`")
