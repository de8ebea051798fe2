"""OpenVINO on the CPU: faster than ONNX Runtime for several INT8 networks; reads the same ONNX files."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.external_data import checked_source
from ..common.packages import need
from ..errors import ModelError, RunError
from ._base import Session, Tensor, brief, check_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OpenvinoSession(Session):
    """A compiled model; each calling thread gets its own infer request."""

    def __init__(self, model: Any, compiled: Any) -> None:
        self._compiled: Any = compiled
        self._local = threading.local()
        # Names come from the model as it was read: compiling fuses tensors, which then answer to several.
        self.inputs = tuple(_tensor(port) for port in model.inputs)
        self.outputs = tuple(_tensor(port) for port in model.outputs)

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            request = self._request()
            arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
            request.infer(arrays, share_inputs=True, share_outputs=True)
            return {tensor.name: request.get_output_tensor(at).data.copy() for at, tensor in enumerate(self.outputs)}
        except Exception as error:
            raise RunError("OpenVINO failed", got=brief(error), do="`edgesmith verify` the bundle") from error

    def _request(self) -> Any:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        return request

    def _close(self) -> None:
        self._compiled = None
        self._local = threading.local()


def available() -> tuple[bool, str]:
    """Return whether openvino is installed, and if not, how to install it."""
    if importlib.util.find_spec("openvino") is None:
        return False, "openvino is not installed: pip install 'edgesmith[openvino]'"
    return True, "openvino is installed"


def open(
    path: str | Path, *, threads: int | None = None, content: bytes | None = None, **options: Any
) -> OpenvinoSession:
    """Load and compile an ONNX file for the CPU, for minimum latency of one request; float tensors stay float32.

    Args:
        path: The file.
        threads: Threads for inference; with None OpenVINO chooses.
        content: Its bytes, which are loaded instead of the file.
        options: Properties of the CPU plugin, for example {"CACHE_DIR": "/var/cache/model"}.

    Raises:
        UsageError: There is no such file, or `threads` is below 1.
        ModelError: OpenVINO cannot read or compile it.
        NotAvailable: openvino is not installed.
    """
    native = _ready()
    source = checked_source(path, content)
    check_threads(threads)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", **options}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        core = native.Core()
        model = core.read_model(source)
        if settings["INFERENCE_PRECISION_HINT"] == "bf16":
            _require_end(model, path)
        return OpenvinoSession(model, core.compile_model(model, "CPU", settings))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"OpenVINO cannot load {path}", got=brief(error), do="export it again") from error


LONGEST_GROUPED_KERNEL = 12


def _require_end(model: Any, path: str | Path) -> None:
    """Refuse to compile in BF16 what never ends: convolutions by channel of 15x15 and more on 16 channels or fewer.

    Measured with openvino 2026.1 on a CPU with AMX: 12x12 is compiled in 0.1 s, 15x15 not within an hour.

    Raises:
        ModelError: There is a grouped convolution with a longer kernel than LONGEST_GROUPED_KERNEL.
    """
    for node in model.get_ops():
        if node.get_type_name() == "GroupConvolution":
            sides = list(node.input_value(1).get_partial_shape())[3:]
            if any(side.is_dynamic or side.get_length() > LONGEST_GROUPED_KERNEL for side in sides):
                got = f"kernel {'x'.join(map(str, sides))} in {node.get_friendly_name()}"
                expected = f"at most {LONGEST_GROUPED_KERNEL} in grouped convolutions"
                raise ModelError(f"OpenVINO cannot compile {path} in BF16", got=got, expected=expected,
                                 do="use the backend openvino")  # fmt: skip


_FIRST = threading.Lock()
_used: list[bool] = []


def _ready() -> Any:
    """Import openvino and call each used function once, in one thread.

    At the first call its bindings initialise themselves without holding the GIL: two threads that did this at the same
    time deadlocked (openvino 2026.1).
    """
    with _FIRST:
        native = need("openvino")
        if not _used:
            parameter = native.opset8.parameter([1], np.float32, name="x")
            model = native.Model([native.opset8.relu(parameter)], [parameter])
            for port in (*model.inputs, *model.outputs):
                port.get_tensor().set_names({"x" if port.get_node() == parameter else "y"})
            session = OpenvinoSession(model, native.Core().compile_model(model, "CPU", {}))
            session._run({"x": np.zeros(1, np.float32)})
            session.close()
            _used.append(True)
    return native


def _tensor(port: Any) -> Tensor:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    return Tensor(port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()).name)
