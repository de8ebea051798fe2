"""ONNX Runtime: on the CPU by default, on CUDA if that provider is installed and requested."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.external_data import checked_source
from ..common.ort_session import ort_session
from ..common.packages import need
from ..errors import ModelError, NotAvailable, RunError
from ._base import Session, Tensor, brief, check_threads, fixed_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Options that keep Q/DQ pairs as they are written, in float: what TensorRT computes, since its INT8 kernels do
# not saturate as ONNX Runtime's fused ones do on CPUs without VNNI; everything else is optimised as usual.
SIMULATED = {"session.disable_quant_qdq": "1"}
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_DTYPES = {"float": "float32", "double": "float64"}


class OrtSession(Session):
    """An `onnxruntime.InferenceSession` behind the runtime's checks; safe to call from several threads at once."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self.inputs = tuple(_tensor(value) for value in native.get_inputs())
        self.outputs = tuple(_tensor(value) for value in native.get_outputs())
        self._names = [tensor.name for tensor in self.outputs]

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(self._names, self.native.run(self._names, feeds), strict=True))
        except Exception as error:
            raise RunError("ONNX Runtime failed", got=brief(error), do="`edgesmith verify` the bundle") from error

    def bind(self, batch: int = 1) -> BoundSession:
        """Return a call with fixed input and output arrays; see `BoundSession`.

        Raises:
            UsageError: A dimension other than the batch is dynamic.
        """
        return BoundSession(self, batch)

    def _close(self) -> None:
        self.native = None


class BoundSession:
    """Inputs and outputs without a copy: write into `inputs`, call, read `outputs` before the next call.

    `inputs` and `outputs` map names to arrays, which belong to this object; ONNX Runtime reads and writes them in
    place. For one thread; values are not checked for NaN.
    """

    def __init__(self, session: OrtSession, batch: int) -> None:
        ort = need("onnxruntime")
        self._session = session
        self.inputs, self.outputs = ({t.name: _array(t, batch) for t in ts} for ts in (session.inputs, session.outputs))
        self._binding = session.native.io_binding()
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in (self.inputs | self.outputs).items()}
        for name in self.inputs:
            self._binding.bind_ortvalue_input(name, values[name])
        for name in self.outputs:
            self._binding.bind_ortvalue_output(name, values[name])
        self._values = values

    def __call__(self) -> dict[str, NDArray[Any]]:
        """Compute, and return `outputs`.

        Raises:
            RunError: The session is closed, or ONNX Runtime failed.
        """
        if self._session.closed:
            raise RunError("this session is closed", do="load the bundle again")
        try:
            self._session.native.run_with_iobinding(self._binding)
        except Exception as error:
            raise RunError("ONNX Runtime failed", got=brief(error), do="`edgesmith verify` the bundle") from error
        return self.outputs


def _array(tensor: Tensor, batch: int) -> NDArray[Any]:
    return np.zeros(fixed_shape(tensor, batch), tensor.dtype)


def available() -> tuple[bool, str]:
    """Return whether onnxruntime is installed, and if not, how to install it."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False, "onnxruntime is not installed: pip install 'edgesmith[ort]'"
    return True, "onnxruntime is installed"


def open(
    path: str | Path,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    optimise: bool = True,
    content: bytes | None = None,
    **options: Any,
) -> OrtSession:
    """Load an ONNX file.

    Args:
        path: The file.
        threads: Threads within an operator; with None ONNX Runtime chooses (the physical cores).
        provider: "cpu", "cuda", "tensorrt" or "openvino".
        optimise: Let ONNX Runtime rewrite the graph; if false, it computes the graph as written.
        content: Its bytes, which are loaded instead of the file.
        options: Session configuration entries, for example {"session.intra_op.allow_spinning": "0"}.

    Raises:
        UsageError: There is no such file, or `threads` is below 1.
        ModelError: ONNX Runtime cannot load it.
        NotAvailable: onnxruntime, or the provider, is not installed.
    """
    ort = need("onnxruntime")
    source = checked_source(path, content)
    wanted = PROVIDERS.get(provider, provider)
    if wanted not in ort.get_available_providers():
        raise NotAvailable(
            f"onnxruntime has no {wanted}",
            got=", ".join(ort.get_available_providers()),
            do="install the build that has",
        )
    check_threads(threads)
    entries = {key: str(value) for key, value in options.items()}
    level = "ENABLE_ALL" if optimise else "DISABLE_ALL"
    try:
        native = ort_session(source, level=level, threads=threads or 0, entries=entries, provider=wanted, log_level=3)
    except ModelError as error:
        raise ModelError(f"ONNX Runtime cannot load {path}", got=error.got, do="export it again") from error
    if wanted not in native.get_providers():
        raise NotAvailable(
            f"{wanted} does not start here", got=", ".join(native.get_providers()), do="check the driver"
        )
    return OrtSession(native)


def _tensor(value: Any) -> Tensor:
    kind = value.type[len("tensor(") : -1]
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else None for dim in value.shape)
    names = tuple(dim if isinstance(dim, str) else "" for dim in value.shape)
    return Tensor(value.name, shape, _DTYPES.get(kind, kind), names)
