"""FP32 in ONNX Runtime's blocked layout, an artefact of a bundle beside the portable files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .optimize import blocked, runner
from .pipeline_types import Check, Flow
from .runtime import nchwc
from .runtime.errors import ModelError, NotAvailable


def add_blocked(flow: Flow, samples: list[NDArray[Any]], work: Path, stem: str) -> None:
    """Make the blocked form of the FP32 file, or note as a check why there is none.

    Args:
        flow: The run; its FP32 file reads what the bundle's files will read.
        samples: Batches of that input, to compare on.
        work: Where to write.
        stem: The network's name.
    """
    tuned = work / f"{stem}-ort-x86.onnx"
    try:
        runner.optimize(flow.onnx("fp32").path, tuned, target=nchwc.TARGET, samples=samples)
        name = f"fp32-nchwc{nchwc.contract()['block']}"
        made = blocked.keep(tuned, work / f"{stem}-{name}.onnx", samples=samples)
    except (ModelError, NotAvailable) as error:
        flow.checks.append(Check("blocked layout", None, str(error)))
        return
    flow.add(name, "fp32", nchwc.TARGET, made.path)
    flow.artefacts[-1] = dataclasses.replace(flow.artefacts[-1], contract=made.contract)
    flow.records[name] = made.to_dict() | {"path": made.path.name}
    check, fewer = made.report.check, made.report.before.nodes - made.report.after.nodes
    detail = f"{fewer} nodes less than ONNX Runtime's own graph, {check.error}"
    flow.checks.append(Check("blocked layout", {"equal": True}.get(check.verdict), detail))
