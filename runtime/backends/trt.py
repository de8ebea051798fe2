"""TensorRT engines of both flavours, through cuda-python: TensorRT-RTX and standard TensorRT 8.5 to 11.

An engine is executable code: before it is deserialised, the file's header (flavour, version, SM) is compared with this
machine, and its digest with the sidecar if there is one. The file is read once, and exactly the checked bytes are run.
Load only engines whose source you trust; the check of the library does not detect tampering.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..common.cache_folder import cache_folder
from ..common.files import existing_file
from ..engines import flavour, gpu, header, sidecar
from ..errors import BuildError, ModelError, NotAvailable, RunError
from ._engine import TrtSession


def available() -> tuple[bool, str]:
    """Return whether an engine can run here (TensorRT, cuda-python and a GPU), and if not, what is missing."""
    flavours = [name for name in flavour.MODULES if flavour.installed_module(name)]
    if not flavours:
        return False, "TensorRT is not installed: " + " or ".join(flavour.INSTALL.values())
    try:
        sm = gpu.device_sm()
    except NotAvailable as error:
        return False, str(error)
    return True, f"{' and '.join(flavours)} TensorRT, GPU of SM {sm}"


def open(
    path: str | Path,
    *,
    threads: int | None = None,
    device: int = 0,
    graphs: bool = True,
    content: bytes | None = None,
    sidecar_content: bytes | None = None,
    **options: Any,
) -> TrtSession:
    """Load an engine file; `threads` is ignored.

    Args:
        path: The engine.
        threads: Ignored.
        device: Index of the GPU.
        graphs: Capture CUDA graphs if the engine allows it.
        content: Its bytes, which are loaded instead of the file.
        sidecar_content: The bytes of its sidecar; with `content`, no sidecar is read from the disk.
        options: There are none.

    Raises:
        UsageError: There is no such file.
        ModelError: It is not an engine, is damaged, or does not match its sidecar.
        BuildError: It was built for another TensorRT, version or SM.
        NotAvailable: No TensorRT of its flavour, no cuda-python, or no GPU here.
        RunError: TensorRT refuses it, or there is not enough GPU memory.
    """
    path = Path(path)
    described = sidecar_content is not None or (content is None and sidecar.path_of(path).is_file())
    if content is None:
        content = existing_file(path, "engine").read_bytes()
    head = header.read_header(path, content)
    module = flavour.installed_module(head.flavour)
    if module is None:
        raise NotAvailable(f"{path} needs TensorRT ({head.flavour})", do=flavour.INSTALL[head.flavour])
    trt = flavour.load_tensorrt(module)
    header.check_header(path, sm=None, version=str(trt.__version__), flavour=head.flavour, content=content)
    sm = gpu.device_sm(device)
    header.check_header(path, sm=sm, version=None, content=content)
    digest = hashlib.sha256(content).hexdigest()
    if described:
        _check_sidecar(path, sm, digest, sidecar_content)
    runtime = gpu.cudart()
    gpu.call(runtime.cudaSetDevice, device)
    cache = cache_folder() / "engines" / f"{digest[:32]}-sm{sm}-{trt.__version__}.compiled"
    return TrtSession(trt, runtime, _deserialised(trt, path, content), device=device, graphs=graphs, cache=cache)


def _check_sidecar(path: Path, sm: str, digest: str, content: bytes | None = None) -> None:
    facts = sidecar.read_sidecar(path, content)
    if facts.sha256 != digest:
        raise ModelError(f"the engine {path} does not match its sidecar", got=digest[:12],
                         expected=facts.sha256[:12], do="build it again")  # fmt: skip
    if facts.sm != sm and not any(flag.startswith("HARDWARE_") for flag in facts.flags):
        raise BuildError(f"{path} was built for another GPU", got=f"SM {facts.sm}", expected=f"SM {sm}",
                         do=f"`edgesmith build --sm {sm}`")  # fmt: skip


def _deserialised(trt: Any, path: Path, content: bytes) -> Any:
    log = _log(trt)
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        raise RunError(f"TensorRT refuses {path}", got="; ".join(log.errors[:1]), do="build it on this machine")
    return engine


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Collect the errors; the library prints nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= 1:
                self.errors.append(message)

    _KEPT.append(logger := Log())
    return logger


_KEPT: list[Any] = []  # a logger must outlive every engine of the process
