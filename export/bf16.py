"""Float layers in BF16: which files are measured so, and what keeps the runtime from it where it fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..bench.measure.process import Process
from ..bench.measure.workload import BenchTarget
from ..runtime.errors import EdgesmithError, UsageError
from ..runtime.selection.candidates import ARITHMETIC, BF16, bears_bf16, usable
from .settings import ExportedArtefact, Flow, StageCheck

TIMEOUT_S = 120.0  # OpenVINO compiles the largest networks of the zoo in a few seconds, and some files never


def as_bf16(flow: Flow, files: list[ExportedArtefact]) -> list[ExportedArtefact]:
    """Return the files whose float layers may be BF16, to be measured so, where this machine can."""
    for one in files if usable(BF16)[0] else ():
        if not bears_bf16(one.precision, one.target):
            continue
        row = dataclasses.replace(one, name=f"{one.name} as BF16", backend=BF16, results={"bytes": one.bytes})
        if why := why_not_bf16(one.path):
            one.results[ARITHMETIC] = {BF16: why}
            flow.checks.append(StageCheck(f"accuracy {row.name}", None, why, left_out=True))
        else:
            flow.bf16.append(row)
    return flow.bf16


def why_not_bf16(path: Path) -> str:
    """Return why a file cannot be opened in BF16, tried in a process that may crash or hang; "" if it can."""
    try:
        Process(BenchTarget(str(path), "", BF16), timeout_s=TIMEOUT_S).close()
    except UsageError:  # it leaves a size free, and was opened
        return ""
    except EdgesmithError as error:
        return str(error).replace(str(path), path.name)
    return ""


def refuse_bf16(flow: Flow) -> None:
    """Keep the runtime from BF16 where it failed the check of its accuracy; the file itself stays."""
    for at, check in enumerate(flow.checks):
        artefact = next((one for one in flow.bf16 if check.name == f"accuracy {one.name}"), None)
        if artefact is not None and check.passed is False:
            flow.checks[at] = dataclasses.replace(check, passed=None, left_out=True)
            source = next(one for one in flow.artefacts if one.path == artefact.path)
            source.results[ARITHMETIC] = {BF16: check.detail}
