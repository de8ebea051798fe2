"""`es.export(...)`: the flow as a function, with the words of `edgesmith export`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from ..models.catalog import find_network
from ..runtime.common.progress import silent
from ..runtime.datasets.array_files import is_array_source
from ..runtime.errors import UsageError
from .pipeline import run
from .settings import ExportSettings, Say, Summary
from .sources.load import OWN, RANDOM, load_network
from .sources.options import SpecOptions
from .sources.source import Network, find_source


def export(
    model: Any, *, precision: str = "fp32,fp16,int8", target: str = "ort-x86,trt", sm: str = "8.6,8.9",
    out: str | Path | None = None, say: Say = silent, **options: Any,
) -> Summary:  # fmt: skip
    """Take a network from PyTorch to a verified bundle: ONNX, FP16, INT8, TensorRT engines, golden outputs.

    Args:
        model: A name of `edgesmith models`; "FILE.onnx" or "FILE.pt2"; "FILE.py:NAME" or "PACKAGE.MODULE:NAME", a class
            or function that makes a network (its code is run); "timm:NAME", "torchvision:NAME"; a Hugging Face folder
            on disk; or a `torch.nn.Module`.
        precision: Precisions, comma-separated.
        target: Targets, comma-separated; trt builds engines.
        sm: Compute capabilities to build engines for, comma-separated.
        out: The bundle's folder; None for bundles/MODEL.
        say: Called with one line after each stage; None prints nothing.
        options: Any other field of `ExportSettings`: weights, data, calibration, dynamic_batch, input, opset, threads,
            weights_folder, max_drop, min_agreement, min_sqnr, overwrite; and, for a network outside the zoo, those of
            `SpecOptions`: spec, size, shape, mean, std, channels, resize, fit, fill, interpolation, labels, layout,
            task, args.

    Returns:
        The artefacts and checks; no bundle is written if a check failed (`summary.passed` is then False).

    Raises:
        UsageError: An unknown word, or settings that cannot be met; raised before any work.
        CheckFailed: The ONNX file differs from the module, or a rewrite from what it replaces.
        EdgesmithError: Any other reason why no bundle can be made; an earlier bundle is unchanged.
    """
    names = {one.name for one in fields(SpecOptions)}
    spec_words = {name: _as_written(name, value) for name, value in options.items() if name in names}
    options = {name: value for name, value in options.items() if name not in names}
    settings = ExportSettings(
        model, describe=SpecOptions(**spec_words), precisions=words(precision), targets=words(target), sms=words(sm),
        out=None if out is None else Path(out), **options,
    )  # fmt: skip
    return run(settings, say)


def describe(model: Any, *, data: str = "", **options: Any) -> Network:
    """Return the facts about the input and output of a network outside the zoo, with their sources.

    Args:
        model: As for `export`.
        data: As for `export`; for arrays, which need no preprocessing, no preprocessing is guessed.
        options: The fields of `SpecOptions`.

    Returns:
        The network, with `spec` and `facts`.

    Raises:
        UsageError: A network of the zoo, or missing or contradictory facts.
        ModelError: Code of the source raised an error, or a file cannot be read.
        NotAvailable: A package is not installed.
    """
    source = find_source(model)
    if source.is_ours:
        name = find_network(model).name
        raise UsageError(f"{name} is a network of ours", do=f"see `edgesmith describe {name}`")
    spec_options = SpecOptions(**{name: _as_written(name, value) for name, value in options.items()})
    packaged = source.kind in ("timm", "torchvision")
    return load_network(source, RANDOM if packaged else OWN, spec_options, images=not is_array_source(data))


def _as_written(name: str, value: Any) -> Any:
    """Return an option as on the command line: numbers and sequences of numbers as text."""
    if name in ("spec", "labels") and isinstance(value, str):
        return Path(value)
    if name in ("labels", "args"):
        return tuple(value) if isinstance(value, (list, tuple)) else value
    if isinstance(value, (list, tuple)):
        return ("x" if name == "size" else ",").join(map(str, value))
    return str(value) if isinstance(value, (int, float)) else value


def words(text: str) -> tuple[str, ...]:
    """Return the words of a comma-separated list, in lower case.

    Raises:
        UsageError: There is none.
    """
    parts = tuple(word.strip().lower() for word in text.split(",") if word.strip())
    if not parts:
        raise UsageError(
            f"{text!r} names nothing", expected="words separated by commas", do="see `edgesmith export --help`"
        )
    return parts
