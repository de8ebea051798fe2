"""Opening of what is measured, inside the measuring process: an ONNX file, a bundle, or a Python file.

    model.onnx               the file on ONNX Runtime, on random input of its shape
    model.engine             the engine on the GPU, on random input of the sizes that its sidecar says
    bundles/mobilenetv2      a bundle: one of its artefacts, on one backend
    plates/pipeline.json     a pipeline of bundles, from its sample image to the last answer
    work.py                  a Python file with `setup() -> call`; the call is measured

The backend's library is imported only in `open_workload`, so that its cost can be measured separately.
"""

from __future__ import annotations

import functools
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime import backends
from ...runtime.backends._base import random_feeds
from ...runtime.bundle.bundle import read_bundle
from ...runtime.common.packages import need
from ...runtime.common.plugins import load_plugin
from ...runtime.errors import DataError, NotAvailable, UsageError
from ...runtime.images.preprocess import read_image
from ...runtime.pipeline import FILE as PIPELINE
from ...runtime.pipeline import load_pipeline, sample_of
from ...runtime.selection.candidates import open_artefact
from .clock import now_ns

if TYPE_CHECKING:
    from ...runtime.backends._base import Session
    from ...runtime.spec import ModelSpec

FILES = {
    ".onnx": "ort",
    ".engine": "trt",
    ".py": "python",
    ".json": "pipeline",
}  # suffix of a file without a bundle -> its backend
LIBRARIES = {
    "ort": "onnxruntime",
    "openvino": "openvino",
    "openvino_bf16": "openvino",
}  # imported in a stage of their own


@dataclass(frozen=True)
class BenchTarget:
    """What to open and how; plain data, which can be sent to another process."""

    path: str
    artefact: str = ""
    backend: str = "ort"
    threads: int = 1  # 0 leaves the choice to the backend
    batch: int = 1
    shape: str = ""  # of inputs that leave it free, as `runtime.common.sizes.parse_sizes` reads it

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Workload:
    """One inference as a call without arguments, and the seconds of each stage of opening it.

    `session` is None for a Python file; `spec` is None for a file that has none in its metadata; `feeds` are what
    the call computes.
    """

    call: Callable[[], Any]
    stages: Mapping[str, float]
    rss: Mapping[str, int]
    session: Session | None = None
    spec: ModelSpec | None = None
    feeds: Mapping[str, Any] = field(default_factory=dict)


class Stages:
    """Seconds and resident bytes at the end of each start-up stage, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.rss: dict[str, int] = {"interpreter_bytes": resident_bytes()}
        self._last = now_ns()

    def done(self, name: str) -> None:
        """End a stage."""
        self.seconds[f"{name}_s"] = (now_ns() - self._last) * 1e-9
        self.rss[f"{name}_bytes"] = resident_bytes()
        self._last = now_ns()


def open_workload(target: BenchTarget) -> Workload:
    """Import, load and call once.

    Raises:
        UsageError: The path holds nothing that can be measured.
        NotAvailable: Its backend is not installed.
    """
    stages, path = Stages(), Path(target.path)
    session, spec, feeds = None, None, dict[str, Any]()
    if path.is_dir() or (path.is_file() and path.suffix in (".zip", ".onnx", ".engine")):
        session, spec = _session(target, stages)
        feeds = random_feeds(session.inputs, spec, target.batch, target.shape)
        call: Callable[[], Any] = functools.partial(session.run, feeds, finite=True)
    elif path.suffix == ".py" and path.is_file():
        call = _python(path, stages)
    elif path.name == PIPELINE and path.is_file():
        call = _pipeline(target, stages)
    else:
        got = f"a {path.suffix or 'nameless'} file" if path.exists() else "no such file"
        raise UsageError(f"cannot measure {path}", got=got, expected=f"a bundle, or a file: {', '.join(FILES)}")
    call()
    stages.done("first_call")
    return Workload(call, stages.seconds, stages.rss, session, spec, feeds)


def _session(target: BenchTarget, stages: Stages) -> tuple[Session, ModelSpec | None]:
    """Open a bundle's artefact, or an ONNX file or engine without a bundle, on its backend."""
    path = Path(target.path)
    name = target.backend if path.suffix == ".onnx" else FILES.get(path.suffix, target.backend)
    backend = load_plugin(backends, name, "backend")
    usable, reason = backend.available()
    if not usable:
        raise NotAvailable(f"the backend {name} cannot be used", got=reason)
    need(LIBRARIES.get(name, "numpy"))
    stages.done("import")
    spec: ModelSpec | None = None
    if path.suffix in FILES:
        session: Session = backend.open(path, threads=target.threads or None)
        spec = spec_in_session(getattr(session, "native", None))
    else:
        bundle = read_bundle(path)
        artefact = next((item for item in bundle.artefacts if item.name == target.artefact), None)
        if artefact is None:
            known = ", ".join(item.name for item in bundle.artefacts)
            raise UsageError(f"{path} has no artefact {target.artefact!r}", expected=known)
        session, spec = open_artefact(bundle, artefact, name, threads=target.threads or None), bundle.spec
    stages.done("load")
    return session, spec


def spec_in_session(native: Any) -> ModelSpec | None:
    """Return the ModelSpec in the metadata of a session of ONNX Runtime, or None."""
    from ...runtime.spec import ModelSpec

    return ModelSpec.from_metadata(
        native.get_modelmeta().custom_metadata_map if hasattr(native, "get_modelmeta") else {}
    )


def _python(path: Path, stages: Stages) -> Callable[[], Any]:
    stages.done("import")
    sys.path.append(str(path.resolve().parent))  # last: what stands beside it can be imported, and hides nothing
    setup = runpy.run_path(str(path)).get("setup")
    call: Callable[[], Any] | None = setup() if callable(setup) else None
    if call is None or not callable(call):
        expected = "a function `setup()` that returns the function to measure"
        raise DataError(f"{path} cannot be measured", got=f"setup = {setup!r}, call = {call!r}", expected=expected)
    stages.done("load")
    return call


def _pipeline(target: BenchTarget, stages: Stages) -> Callable[[], Any]:
    """Return the answering of the pipeline's sample image, from its pixels."""
    folder = Path(target.path).parent
    image = read_image(sample_of(folder))
    stages.done("import")
    pipeline = load_pipeline(folder, threads=target.threads or None)
    stages.done("load")
    return functools.partial(pipeline, image)


def peak_rss_bytes() -> int | None:
    """Return the highest resident size of this process so far, in bytes; None if the system does not report it."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """Return the resident size of this process in bytes, 0 if the system does not report it."""
    return _status("VmRSS") or 0


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
