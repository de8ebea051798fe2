"""An ONNX file in ONNX Runtime's own blocked layout, kept blocked where ONNX Runtime would convert to and fro.

ONNX Runtime writes its optimised graph; passes then move what stands between two conversions of layout onto the blocked
tensors. The result runs on this version of ONNX Runtime and on processors with the same block, and nowhere else: that
is its contract, which stands in its metadata and in a bundle's manifest. The portable file stays beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from ..runtime import nchwc
from ..runtime.console import need
from ..runtime.errors import CheckFailed, ModelError
from ..runtime.external import model_file
from ..runtime.files import workplace
from .recipes import RECIPES
from .report import Report
from .runner import optimize
from .verify import compare

KEY = "edgesmith.nchwc"
RECIPE = "ort-nchwc"
# The pass that pays; the others alone save microseconds, which no file is worth.
GAINS = "keep_blocked"


@dataclass(frozen=True)
class Blocked:
    """A blocked file: where it is, what must hold where it runs, and what was done, checked against the portable one.

    Attributes:
        path: The file.
        contract: onnxruntime (version), block (channels), isa (vector instructions), machine (architecture).
        report: `source` is the portable file; `before` counts ONNX Runtime's own graph.
    """

    path: Path
    contract: dict[str, str]
    report: Report

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"path": str(self.path), "contract": self.contract, "report": self.report.to_dict()}


def beside(portable: Path) -> Path:
    """Return the name of the blocked file that belongs to a portable one: out.onnx, out.nchwc16.onnx.

    Raises:
        NotAvailable: ONNX Runtime has no blocked layout here.
    """
    return portable.with_name(f"{portable.stem}.nchwc{nchwc.contract()['block']}.onnx")


def keep(
    source: str | Path, target: str | Path | None = None, *, verify: bool = True, samples: Iterable[Any] | None = None
) -> Blocked:
    """Make the blocked file of a portable one.

    Args:
        source: A float32 network with fixed shapes; best made by `optimize(..., target="ort-x86")`.
        target: The file to write, whole or not at all; None for `beside(source)`.
        verify: Compare with the source, and undo single rewrites that do not hold.
        samples: Real inputs, as for `runner.optimize`.

    Raises:
        NotAvailable: ONNX Runtime is not installed, or has no blocked layout on this machine.
        ModelError: The network is quantised, has free dimensions, or nothing that is gained by keeping it blocked.
        CheckFailed: The result differs from the source even without the suspicious rewrites.
        UsageError: The source is not there.
    """
    source = model_file(source)
    target = beside(source) if target is None else Path(target)
    contract, kept = nchwc.contract(), None if samples is None else list(samples)
    _suits(source)
    with workplace(target) as folder:
        own, made = folder / "own.onnx", folder / target.name
        _write_own(source, own)
        options: dict[str, Any] = {"passes": RECIPES[RECIPE], "block": int(contract["block"])}
        report = optimize(own, made, verify=verify, samples=kept, **options)
        if not any(entry.name == GAINS and entry.rewrites for entry in report.passes):
            raise ModelError(
                f"nothing in {source} is gained by keeping it blocked", got=_reasons(report),
                expected="squeeze-excite, Split or the like between convolutions", do="use the portable file",
            )  # fmt: skip
        _stamp(made, contract)
        report = replace(report, source=str(source), target_path=str(target), target=RECIPE)
        if verify:
            report = replace(report, check=_compared(source, made, kept, report))
        made.replace(target)
    return Blocked(target, contract, report)


def contract_of(path: str | Path) -> dict[str, str]:
    """Return the contract in a file's metadata; empty where it has none.

    Raises:
        UsageError: There is no such file.
        ModelError: It is no ONNX file, or its contract cannot be read.
    """
    try:
        model = onnx.load(str(model_file(path)), load_external_data=False)
        text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY, "{}")
        return {str(key): str(value) for key, value in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError, onnx.checker.ValidationError) as error:
        raise ModelError(f"the contract of {path} cannot be read", got=str(error)[:200]) from error


def _compared(source: Path, made: Path, samples: list[Any] | None, report: Report) -> Any:
    """Compare with the portable file: what ONNX Runtime itself did to the graph is then checked too."""
    check = compare(source, made, samples)
    if check.verdict == "different":
        raise CheckFailed(
            f"the blocked {source.name} differs from the portable file", got=check.detail, expected="equal outputs",
            do="use the portable file",
        )  # fmt: skip
    return replace(check, seconds=check.seconds + report.check.seconds)


def _suits(source: Path) -> None:
    """Refuse what has no blocked form, before ONNX Runtime is asked.

    Raises:
        ModelError: Free dimensions, or quantised layers.
    """
    try:
        model = onnx.load(str(source), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{source} is no ONNX file", got=type(error).__name__, do="export it again") from error
    held = {tensor.name for tensor in model.graph.initializer}
    for value in (value for value in model.graph.input if value.name not in held):
        dims = value.type.tensor_type.shape.dim
        if not value.type.tensor_type.HasField("shape") or any(dim.dim_value <= 0 for dim in dims):
            raise ModelError(
                f"input {value.name!r} of {source} has free dimensions",
                got=str([dim.dim_value or dim.dim_param or "?" for dim in dims]), expected="fixed ones: a scale per "
                "image is written as weights", do="fix the batch: --batch 1",
            )  # fmt: skip
    for node in model.graph.node:
        if "Quantize" in node.op_type or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
            raise ModelError(
                f"{source} is quantised", got=f"{node.op_type} {node.name!r}", do="keep it as it is",
                expected="float32: ONNX Runtime has no blocked layout for INT8",
            )  # fmt: skip


def _write_own(source: Path, target: Path) -> None:
    """Let ONNX Runtime write its optimised graph; it keeps the shapes that the source declares, and writes no others.

    Raises:
        ModelError: It cannot load the source, or nothing in it is blocked.
    """
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    shaped = target.with_name("shaped.onnx")
    try:
        onnx.shape_inference.infer_shapes_path(str(source), str(shaped))
        ort.InferenceSession(str(shaped), options, providers=["CPUExecutionProvider"])
        found = sum(node.domain == nchwc.DOMAIN for node in onnx.load(str(target)).graph.node)
    except Exception as error:
        got = " ".join(str(error).split())[:300]
        raise ModelError(f"ONNX Runtime cannot optimise {source}", got=got, do="export it again") from error
    if not found:
        raise ModelError(
            f"ONNX Runtime keeps nothing of {source} blocked", got="no layer in the blocked layout",
            expected="float32 convolutions of two-dimensional maps", do="use the portable file",
        )  # fmt: skip


def _stamp(path: Path, contract: dict[str, str]) -> None:
    model = onnx.load(str(path))
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=KEY, value=json.dumps(contract, sort_keys=True))
    path.write_bytes(model.SerializeToString())


def _reasons(report: Report) -> str:
    refused = [f"{node}: {why}" for entry in report.passes for node, why in entry.refusals]
    return "; ".join(refused[:3]) or "ONNX Runtime keeps all of it blocked by itself"
