"""The fused kernels of an engine, read from the builder's «Layers:» message, which needs no GPU.

With a verbose logger and detailed profiling verbosity the builder ends with one message that lists every fused kernel:
its type, its tensors with data types, and the ONNX nodes it computes. It gives the number of
convolutions that really run in INT8, of launched kernels, and of kernels that only requantise.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

PRECISION = {"Int8": "int8", "Half": "fp16", "Float": "fp32", "BFloat16": "bf16", "FP8": "fp8"}
TENSORS = ("inputs", "constants", "outputs")
SYNCHRONISING = ("signal", "wait")
CONVOLVING = ("correlation", "deconvolution", "convolution", "gemm", "runtime_fusion")
# A generated kernel's name lists its operations in order. A convolution whose input was rounded to integers just before
# it, and whose weights are INT8, is computed in INT8, whatever the kernel reads at its beginning.
ROUNDED = "RounCastCorr"


@dataclass(frozen=True)
class KernelTensor:
    """One tensor of a kernel: dims as built, dtype "int8", "fp16", "fp32", "int32" and so on."""

    name: str
    dims: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Kernel:
    """One fused kernel: TensorRT's type for it and the ONNX nodes it computes."""

    name: str
    kind: str
    inputs: tuple[KernelTensor, ...]
    constants: tuple[KernelTensor, ...]
    outputs: tuple[KernelTensor, ...]
    nodes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the sidecar."""
        lists = {key: [list(astuple(tensor)) for tensor in getattr(self, key)] for key in TENSORS}
        return {"name": self.name, "kind": self.kind, **lists, "nodes": list(self.nodes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Kernel:
        """Read what `to_dict` wrote."""
        inputs, constants, outputs = (
            tuple(KernelTensor(n, tuple(dims), kind) for n, dims, kind in values[k]) for k in TENSORS
        )
        return cls(values["name"], values["kind"], inputs, constants, outputs, tuple(values["nodes"]))

    @property
    def precision(self) -> str:
        """Its compute data type: that of its first input."""
        tensors = self.inputs or self.constants or self.outputs
        return tensors[0].dtype if tensors else "?"

    @property
    def convolves_in(self) -> str:
        """The data type of a convolution in it; also INT8 if the kernel quantises the input itself."""
        int8 = any(tensor.dtype == "int8" and tensor.dims[:1] > (1,) for tensor in self.constants)
        return "int8" if int8 and ROUNDED in self.name else self.precision

    @property
    def requantises(self) -> bool:
        """Whether it writes INT8 and is not a convolution."""
        return self.kind not in CONVOLVING and any(tensor.dtype == "int8" for tensor in self.outputs)


@dataclass(frozen=True)
class Attestation:
    """Requested and actual precisions of the convolutions.

    `asked` and `got` map a convolution's ONNX name to a precision ("float": any but INT8). A convolution that is fused
    into a pointwise kernel has the data type of that kernel's convolution; one that no kernel names is "folded".
    `products` are the precisions of the matrix products (Gemm, MatMul). `synchronisations` are entries that only order
    two streams; they are not counted as kernels.
    """

    kernels: int
    kinds: dict[str, int]
    requantisations: int
    synchronisations: int = 0
    asked: dict[str, str] = field(default_factory=dict)
    got: dict[str, str] = field(default_factory=dict)
    products: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The number of convolutions per actual precision."""
        return dict(Counter(self.got.values()))

    @property
    def missed(self) -> dict[str, str]:
        """The convolutions whose precision differs from the requested one, with the actual precision."""
        pairs = ((name, self.got[name], precision) for name, precision in self.asked.items())
        return {name: got for name, got, precision in pairs if not _fulfils(got, precision)}

    def sentence(self, precision: str) -> str:
        """Return «requested INT8: 53 of 53 convolutions INT8, 105 kernels»."""
        ran = self.counts.get(precision, 0)
        total = len(self.got)
        return (
            f"requested {precision.upper()}: {ran} of {total} convolutions {precision.upper()}, {self.kernels} kernels"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the derived counts."""
        return {**asdict(self), "counts": self.counts, "missed": self.missed}


def _fulfils(got: str, precision: str) -> bool:
    return got == precision or (precision == "float" and got in ("fp32", "fp16", "bf16"))


def attest(kernels: Iterable[Kernel], precisions: Mapping[str, str], products: Iterable[str] = ()) -> Attestation:
    """Match the convolutions of the network against the kernels.

    Args:
        kernels: The kernel list.
        precisions: ONNX name of each convolution -> precision that it was asked to run in.
        products: ONNX names of the matrix products.
    """
    every = list(kernels)
    kernels = [kernel for kernel in every if kernel.kind not in SYNCHRONISING]
    return Attestation(
        kernels=len(kernels),
        kinds=dict(Counter(kernel.kind for kernel in kernels)),
        requantisations=sum(kernel.requantises for kernel in kernels),
        synchronisations=len(every) - len(kernels),
        asked=dict(precisions),
        got={name: _ran_as(name, kernels) for name in precisions},
        products={name: _ran_as(name, kernels) for name in products},
    )


def _ran_as(name: str, kernels: list[Kernel]) -> str:
    mentions = [kernel for kernel in kernels if name in kernel.nodes]
    mains = [kernel for kernel in mentions if kernel.kind in CONVOLVING]
    namesakes = [kernel for kernel in mains if kernel.name.startswith(name)]
    best = namesakes or mains or [kernel for kernel in mentions if "Corr" in kernel.name] or mentions
    return best[0].convolves_in if best else "folded"


def parse_log(message: str) -> list[Kernel]:
    """Read the «Layers:» message of a verbose build (TensorRT-RTX; dims, dtypes and metadata as it writes them)."""
    lines = message.split("\n\nI/O Tensors:")[0].splitlines()
    return [_kernel(line) for line in lines if line.startswith("Name: ") and "LayerType: " in line]


def _kernel(line: str) -> Kernel:
    head, _, rest = line.partition(", LayerType: ")
    kind, _, rest = rest.partition(", Inputs: ")
    inputs, _, rest = rest.partition(", Constants: ")
    constants, _, rest = rest.partition(", Outputs: ")
    outputs, _, rest = rest.partition(", TacticName: ")
    nodes = nodes_of(rest.partition("Metadata: ")[2])
    return Kernel(head.removeprefix("Name: "), kind, _tensors(inputs), _tensors(constants), _tensors(outputs), nodes)


def nodes_of(metadata: str) -> tuple[str, ...]:
    r"""Split "[ONNX Layer: a]\x1f[ONNX Layer: b]__gemm_from_conv1x1" into ("a", "b").

    TensorRT's separators are the ASCII unit and record separators; it may append a word to a name.
    """
    parts = (re.match(r"\s*\[ONNX Layer: (.*)\]", part) for part in re.split("[\x1e\x1f]", metadata))
    return tuple(part[1] for part in parts if part)


def _tensors(text: str) -> tuple[KernelTensor, ...]:
    rows = re.findall(r"\{ Name: (.*?), Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)", text)
    return tuple(KernelTensor(name, _dims(dims.split(",")), _dtype(kind)) for name, dims, kind in rows)


def _dims(parts: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in parts if str(part).strip())


def _dtype(name: str) -> str:
    return PRECISION.get(name, name.lower())


def parse_inspector(text: str) -> list[Kernel]:
    """Read the JSON of `EngineInspector.get_engine_information` (standard TensorRT, detailed verbosity)."""
    layers = json.loads(text).get("Layers", [])
    return [_inspected(layer) for layer in layers if isinstance(layer, dict)]


def _inspected(layer: dict[str, Any]) -> Kernel:
    nodes = nodes_of(str(layer.get("Metadata", "")))
    kind = str(layer.get("ParameterType") or layer.get("LayerType", "")).lower()
    inputs, outputs = (tuple(_described(item) for item in layer.get(key, [])) for key in ("Inputs", "Outputs"))
    names = nodes or tuple(str(layer.get("Name", "")).split(" + "))
    return Kernel(str(layer.get("Name", "")), kind, inputs, (), outputs, names)


def _described(item: dict[str, Any]) -> KernelTensor:
    text = str(item.get("Format/Datatype", item.get("Datatype", "")))
    words = {"int8": "int8", "fp16": "fp16", "half": "fp16", "fp32": "fp32", "float": "fp32", "bf16": "bf16"}
    dtype = next((kind for word, kind in words.items() if word in text.lower()), text.lower())
    return KernelTensor(str(item.get("Name", "")), _dims(item.get("Dimensions", [])), dtype)
