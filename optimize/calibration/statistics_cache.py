"""Keep what calibration counted: a file for each model, data and preprocessing, so that a second run computes nothing.

The key is the SHA-256 of the graph, the tensors asked for, the preprocessed images in their order and the noise; what
does not belong to exactly these is never read. A damaged file is computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...runtime.common.files import atomic_file
from .axis_roles import AxisRoles
from .finite_check import collect
from .histogram import Histogram
from .samples import AugmentedSamples
from .statistics import ChannelAxes, Stats

FORMAT = "2"


def collected(
    model: onnx.ModelProto,
    names: list[str],
    samples: AugmentedSamples,
    *,
    histograms: bool = False,
    channels: ChannelAxes = True,
    roles: AxisRoles | None = None,
) -> dict[str, Stats]:
    """Return the statistics of the named tensors, from the samples' cache folder where they stand in it."""
    folder = samples.samples.cache
    if folder is None:
        return collect(model, names, samples, histograms=histograms, channels=channels, roles=roles)
    path = folder / f"{key(model, names, samples, histograms, channels)}.npz"
    statistics = read(path, names)
    if statistics is None:
        statistics = collect(model, names, samples, histograms=histograms, channels=channels, roles=roles)
        write(path, statistics)
    return statistics


def key(
    model: onnx.ModelProto,
    names: Iterable[str],
    samples: AugmentedSamples,
    histograms: bool,
    channels: ChannelAxes = True,
) -> str:
    """Return the digest of everything that the statistics depend on."""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    axes = sorted(channels.items(), key=str) if isinstance(channels, Mapping) else channels
    settings = (samples.noise, samples.cover, histograms, axes)
    for part in (FORMAT, *names, samples.samples.digest, *map(repr, settings)):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


def write(path: Path, statistics: dict[str, Stats]) -> None:
    """Write statistics, whole or not at all."""
    arrays: dict[str, Any] = {}
    for name, stats in statistics.items():
        arrays[f"ends/{name}"] = np.array([stats.low, stats.high, *stats.average])
        arrays[f"channels/{name}"] = np.array([stats.lows(), stats.highs()])
        if stats.histogram is not None:
            arrays[f"counts/{name}"] = np.append(stats.histogram.counts, stats.histogram.exponent)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path, names: Iterable[str]) -> dict[str, Stats] | None:
    """Return the statistics in a file; None where there is no such file, or it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: _stats(arrays, name) for name in names}
    except Exception:  # NumPy, zipfile and zlib raise whatever a damaged file leads them to
        return None


def _stats(arrays: np.lib.npyio.NpzFile, name: str) -> Stats:
    low, high, first, second = arrays[f"ends/{name}"].tolist()
    channels = arrays[f"channels/{name}"]
    stats = Stats(low, high, channels[0], channels[1], average=(first, second))
    if f"counts/{name}" in arrays:
        *counts, exponent = arrays[f"counts/{name}"].tolist()
        stats.histogram = Histogram()
        stats.histogram.counts, stats.histogram.exponent = np.array(counts), int(exponent)
    return stats
