"""SQNR of each layer in INT8, in dB, as the quantiser measured it.

Read from the output of `edgesmith quantize --json` (with `--explain`: each layer quantised alone), or from a bundle,
whose provenance contains the same record for every INT8 file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.bundle.bundle import read_bundle
from ...runtime.common.files import existing_file
from ...runtime.errors import DataError

KINDS = {"layer_sqnr_db": "layer alone", "tensor_sqnr_db": "tensor"}
SHOWN = 24  # bars of one chart; the data behind it has all


def read_sensitivity(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a file or a bundle, by name.

    Raises:
        DataError: The file is not such a record, or the bundle has none.
        BundleError: The bundle cannot be read.
    """
    if path.is_dir() or path.suffix == ".zip":
        bundle = read_bundle(path)
        records = {key: value for key, value in bundle.manifest.provenance.items() if _is_record(value)}
        if not records:
            raise DataError(f"{path} has no record of its quantisation", do="export it with INT8, or give the JSON")
        return {f"{bundle.spec.name} {key}": value for key, value in records.items()}
    try:
        record = json.loads(existing_file(path, "quantisation").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON", got=str(error), do="write it with `edgesmith quantize --json`"
        ) from error
    if not _is_record(record):
        raise DataError(
            f"{path} is not a record of a quantisation",
            expected=" or ".join(KINDS),
            do="use `edgesmith quantize --json`",
        )
    return {path.stem: record}


def _is_record(value: Any) -> bool:
    """Whether a value contains only numbers by layer or by tensor."""
    if not isinstance(value, dict) or not any(value.get(key) for key in KINDS):
        return False
    groups = [value.get(key) or {} for key in KINDS]
    return all(isinstance(one, dict) and all(_number(item) for item in one.values()) for one in groups)


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def view_sensitivity(records: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layers of lowest SQNR, and every layer and tensor as a row (name, kind, layer, dB).

    A record's layers quantised alone are drawn, or its tensors if there are none; values without noise are omitted.
    """
    rows = [
        [name, KINDS[key], layer, round(float(db), 2)]
        for name, record in records.items()
        for key in KINDS
        for layer, db in sorted((record.get(key) or {}).items(), key=lambda item: item[1] or 0.0)
        if db is not None
    ]
    charts = []
    for name, record in records.items():
        key = next(key for key in KINDS if record.get(key))
        mine = [row for row in rows if row[0] == name and row[1] == KINDS[key]]
        charts.append({"name": name, "kind": KINDS[key], "bars": [[row[2], row[3]] for row in mine[:SHOWN]]})
    return {"records": [one for one in charts if one["bars"]], "rows": rows}
