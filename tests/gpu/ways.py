"""Each way to run a network on a GPU: what it lacks here, and one call of it.

    tensorrt-rtx, tensorrt    an engine built for this GPU, by our runtime, with CUDA graphs where the engine allows it
    torch-graph               the module in a CUDA graph
    torch-compile             the module by `torch.compile`
    ort-cuda                  the ONNX file in ONNX Runtime's CUDA build

A dry run takes what has no GPU as far as it goes: engines are built and not run, modules and files run on the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesmith.models import catalog
from edgesmith.runtime.backends import ort, ort_cuda, trt
from edgesmith.runtime.backends._base import random_feeds
from edgesmith.runtime.common.machine import gpu_possible
from edgesmith.runtime.engines import flavour, gpu
from edgesmith.runtime.engines.build import build_engine
from edgesmith.runtime.errors import EdgesmithError, NotAvailable

Call = Callable[[], Any]
DRY_SM = "8.6"  # a GPU that both TensorRTs know
NO_GPU = "no NVIDIA GPU here"
TORCH_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Cell:
    """One measurement: a network, its files by precision, a precision, a batch size."""

    name: str
    files: dict[str, Path]
    precision: str
    batch: int

    @property
    def key(self) -> str:
        """The cell's name in the result."""
        return f"{self.name} {self.precision} batch {self.batch}"


@dataclass(frozen=True)
class Opened:
    """One call, which waits for the GPU, and what is known of what it runs; `call` is None where nothing can run."""

    call: Call | None
    facts: dict[str, Any]


class Way:
    """One way; `missing` and `open` are its interface."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry

    def missing(self) -> str:
        """Return what it lacks on this machine and what brings it, or an empty string."""
        raise NotImplementedError

    def takes(self, precision: str) -> bool:
        """Return whether it computes in a precision."""
        raise NotImplementedError

    @contextlib.contextmanager
    def open(self, cell: Cell, folder: Path) -> Iterator[Opened]:
        """Open a cell; files that it needs are made in a folder."""
        raise NotImplementedError
        yield


class TensorRT(Way):
    """An engine of one flavour of TensorRT."""

    def __init__(self, dry: bool, kind: str) -> None:
        super().__init__(dry)
        self.kind = kind

    def missing(self) -> str:
        """Return what a build and a run lack."""
        sm = DRY_SM if self.dry else gpu.device_sm() if gpu_possible() else ""
        if not sm:
            return NO_GPU
        try:
            flavour.choose_flavour(self.kind, sm)
            gpu.cudart()
        except EdgesmithError as error:
            return str(error)
        return ""

    def takes(self, precision: str) -> bool:
        """Return true: each precision has its file."""
        return True

    @contextlib.contextmanager
    def open(self, cell: Cell, folder: Path) -> Iterator[Opened]:
        """Build the engine, once for each batch, and open it."""
        sm = DRY_SM if self.dry else "current"
        path = folder / f"{cell.name}-{cell.precision}-{cell.batch}-{self.kind}.engine"
        made = build_engine(cell.files[cell.precision], path, sm=sm, precision=cell.precision, flavour=self.kind,
                            batch=[cell.batch] * 3, allow_float=True)  # fmt: skip
        facts = {"kernels": len(made.kernels), "build_s": made.build_s}
        if self.dry:
            yield Opened(None, facts)
            return
        with trt.open(path) as session:
            feeds = random_feeds(session.inputs, None, cell.batch)
            yield Opened(lambda: session.run(feeds, finite=True), facts)


class Torch(Way):
    """The module itself, in a CUDA graph or compiled."""

    def __init__(self, dry: bool, compiled: bool) -> None:
        super().__init__(dry)
        self.compiled = compiled

    def missing(self) -> str:
        """Return whether torch sees a GPU."""
        if self.dry:
            return "a dry run does not compile" if self.compiled else ""
        if not gpu_possible():
            return NO_GPU
        if not torch.cuda.is_available():
            return f"torch {torch.__version__} sees no GPU: pip install torch with CUDA (the default index has it)"
        return ""

    def takes(self, precision: str) -> bool:
        """Return whether torch has the type."""
        return precision in TORCH_TYPES

    @contextlib.contextmanager
    def open(self, cell: Cell, folder: Path) -> Iterator[Opened]:
        """Build the module with random weights, and capture or compile it."""
        device, kind = "cpu" if self.dry else "cuda", TORCH_TYPES[cell.precision]
        entry = catalog.find_network(cell.name)
        module = catalog.build_network(cell.name, entry.classes).eval()
        module = module.to(device, kind, memory_format=torch.channels_last)
        x = torch.randn(cell.batch, *entry.input_shape).to(device, kind, memory_format=torch.channels_last)
        with torch.inference_mode():
            if self.dry:
                yield Opened(lambda: module(x), {})
                return
            step = torch.compile(module, mode="max-autotune-no-cudagraphs") if self.compiled else module
            graph = _captured(lambda: step(x))
            yield Opened(lambda: (graph.replay(), torch.cuda.synchronize()), {})


def _captured(step: Call) -> torch.cuda.CUDAGraph:
    """Return a step as a CUDA graph; the warm-up on a stream of its own is what torch's manual asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


class OrtCuda(Way):
    """ONNX Runtime with CUDA."""

    def missing(self) -> str:
        """Return what the backend lacks."""
        ready, reason = (ort if self.dry else ort_cuda).available()
        return "" if ready else reason

    def takes(self, precision: str) -> bool:
        """Return whether its CUDA kernels have the precision: it has none for INT8 with Q/DQ, nor BF16 convolutions."""
        return precision in ("fp32", "fp16")

    @contextlib.contextmanager
    def open(self, cell: Cell, folder: Path) -> Iterator[Opened]:
        """Open the file."""
        with (ort if self.dry else ort_cuda).open(cell.files[cell.precision]) as session:
            feeds = random_feeds(session.inputs, None, cell.batch)
            yield Opened(lambda: session.run(feeds, finite=True), {})


def ways(dry: bool) -> dict[str, Way]:
    """Return every way by name."""
    return {
        "tensorrt-rtx": TensorRT(dry, "rtx"), "tensorrt": TensorRT(dry, "standard"),
        "torch-graph": Torch(dry, compiled=False), "torch-compile": Torch(dry, compiled=True), "ort-cuda": OrtCuda(dry),
    }  # fmt: skip


def finite(values: Any) -> bool:
    """Return whether outputs hold no NaN: a run of nonsense is no measurement."""
    arrays = values.values() if isinstance(values, dict) else [values]
    return all(np.isfinite(np.asarray(one.float() if isinstance(one, torch.Tensor) else one)).all() for one in arrays)


def require_any(every: dict[str, str]) -> None:
    """Refuse a machine on which no way works.

    Raises:
        NotAvailable: Each way lacks something; the message says what.
    """
    if all(every.values()):
        lacks = "; ".join(f"{name}: {why}" for name, why in every.items())
        raise NotAvailable("no way runs on this machine", got=lacks, do="give --dry to try the check without a GPU")
