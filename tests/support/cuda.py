"""CUDA and a TensorRT engine, emulated on the host: memory, streams and graphs that really move bytes.

Nothing here stands for a GPU's speed or results. It keeps what the CUDA runtime promises and what a session relies on:
work in a stream happens at the latest when it is waited for and never before it is queued; while a stream is captured,
nothing runs and allocating is an error; a graph repeats the very addresses that were captured; GPU memory cannot be
read by the host; memory that was freed cannot be used.
"""

# ruff: noqa: N815 - the names are those of CUDA
import ctypes
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace

import numpy as np


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


OK, INVALID, FULL, CAPTURING = Status


@dataclass
class Cuda:
    """cuda-python's runtime module with `limit` bytes of GPU memory."""

    limit: int = 1 << 30
    captures: bool = True
    memory: dict = field(default_factory=dict)
    pinned: dict = field(default_factory=dict)
    queued: list = field(default_factory=list)
    capturing: list | None = None
    graphs: dict = field(default_factory=dict)
    launches: int = 0
    device: int = -1
    now_ms: float = 0.0  # a copy takes 1 ms for each 1000 bytes, computing COMPUTE_MS for each image
    events: dict = field(default_factory=dict)

    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def used(self):
        return sum(len(block) for block in self.memory.values())

    def cudaSetDevice(self, device):
        self.device = device
        return (OK,)

    def cudaGetLastError(self):
        return (OK,)

    def cudaMemGetInfo(self):
        return OK, self.limit - self.used(), self.limit

    def cudaMalloc(self, size):
        if self.capturing is not None:
            return CAPTURING, 0
        if self.used() + size > self.limit:
            return FULL, 0
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def cudaFree(self, pointer):
        return (OK,) if self.memory.pop(pointer, None) is not None else (INVALID,)

    def cudaHostAlloc(self, size, flags):
        block = ctypes.create_string_buffer(size)
        self.pinned[ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def cudaFreeHost(self, pointer):
        del self.pinned[pointer]
        return (OK,)

    def cudaStreamCreate(self):
        return OK, 7

    def cudaStreamDestroy(self, stream):
        return (OK,)

    def queue(self, work):
        (self.queued if self.capturing is None else self.capturing).append(work)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        device, host = (target, source) if kind == 1 else (source, target)
        if device not in self.memory or host not in self.pinned or size > len(self.memory[device]):
            return (INVALID,)

        def copy():
            ctypes.memmove(target, source, size)
            self.now_ms += size / 1000

        self.queue(copy)
        return (OK,)

    def cudaEventCreate(self):
        event = len(self.events) + 1
        self.events[event] = None
        return OK, event

    def cudaEventRecord(self, event, stream):
        self.queue(lambda: self.events.__setitem__(event, self.now_ms))
        return (OK,)

    def cudaEventSynchronize(self, event):
        return self.cudaStreamSynchronize(7)

    def cudaEventElapsedTime(self, start, end):
        if self.events[start] is None or self.events[end] is None:
            return INVALID, 0.0
        return OK, self.events[end] - self.events[start]

    def cudaEventDestroy(self, event):
        del self.events[event]
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        while self.queued:
            self.queued.pop(0)()
        return (OK,)

    def cudaStreamBeginCapture(self, stream, mode):
        if not self.captures:
            return (CAPTURING,)
        self.capturing = []
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        graph, self.capturing = self.capturing, None
        return OK, graph

    def cudaGraphInstantiate(self, graph, flags):
        self.graphs[id(graph)] = graph
        return OK, id(graph)

    def cudaGraphLaunch(self, launchable, stream):
        self.launches += 1
        for work in self.graphs[launchable]:
            self.queue(work)
        return (OK,)

    def cudaGraphExecDestroy(self, launchable):
        del self.graphs[launchable]
        return (OK,)

    def cudaGraphDestroy(self, graph):
        return (OK,)


class Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class Profiler:
    """The base of profilers."""


COMPUTE_MS = 2.0
LAYERS = {"pool": 0.75, "gain": 0.25}  # shares of the time to compute
TRT = SimpleNamespace(TensorIOMode=Mode, nptype=lambda kind: kind, IProfiler=Profiler)


class Engine:
    """Gives `gain` times the mean over height and width of `input` (batch up to `most`, 3, 4, 4), float32."""

    num_io_tensors = 2

    def __init__(self, cuda, gain=4.0, most=16):
        self.cuda, self.gain, self.most = cuda, gain, most

    def get_tensor_name(self, index):
        return ("input", "output")[index]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name == "input" else Mode.OUTPUT

    def get_tensor_dtype(self, name):
        return np.float32

    def get_tensor_shape(self, name):
        return (-1, 3, 4, 4) if name == "input" else (-1, 3)

    def get_tensor_profile_shape(self, name, profile):
        return (1, 3, 4, 4), (1, 3, 4, 4), (self.most, 3, 4, 4)

    def create_execution_context(self, config=None):
        return Context(self)


class Context:
    """Computes when the stream gets there, from the addresses and shapes that it had when it was queued."""

    def __init__(self, engine):
        self.engine, self.shape, self.places, self.capturable = engine, None, {}, True
        self.profiler = None

    def set_input_shape(self, name, shape):
        if shape[0] > self.engine.most:
            return False
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return self.shape if name == "input" else self.shape[:2]

    def set_tensor_address(self, name, pointer):
        self.places[name] = pointer

    def is_stream_capturable(self, stream):
        return self.capturable

    def execute_async_v3(self, stream):
        shape, places, memory = self.shape, dict(self.places), self.engine.cuda.memory

        def compute():
            x = np.frombuffer(memory[places["input"]], np.float32)[: int(np.prod(shape))].reshape(shape)
            y = np.frombuffer(memory[places["output"]], np.float32)[: shape[0] * shape[1]]
            y[:] = self.engine.gain * x.mean(axis=(2, 3)).ravel()
            spent = COMPUTE_MS * shape[0]
            self.engine.cuda.now_ms += spent
            for name, share in LAYERS.items() if self.profiler else ():
                self.profiler.report_layer_time(name, share * spent)

        self.engine.cuda.queue(compute)
        return True
