"""An ONNX graph as its protobuf messages: producers and readers by tensor name, constants, edits, and safe reading."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
from onnx import NodeProto, helper, numpy_helper

from ...runtime.common.external_data import model_file
from ...runtime.common.files import atomic_file
from ...runtime.errors import ModelError
from .protobuf import captured, copied
from .topological_sort import topological
from .upgrade import OLDEST, standard_opset, upgraded, with_free_sizes


def read_model(path: str | Path) -> onnx.ModelProto:
    """Read and check an ONNX file, as `read_upgraded` does."""
    return read_upgraded(path)[0]


def read_upgraded(path: str | Path) -> tuple[onnx.ModelProto, list[str]]:
    """Read and check an ONNX file and inline its functions; also return the changes: see `upgrade.upgraded`.

    Raises:
        UsageError: No such file.
        ModelError: Not an ONNX file, refused by onnx.checker, or with an old opset that cannot be converted.
    """
    model = with_free_sizes(loaded(path))
    try:
        notes: list[str] = []
        if standard_opset(model) < OLDEST or not _passes_checker(model):
            model, notes = upgraded(model)
            onnx.checker.check_model(model, full_check=True)
        for tensor in model.graph.initializer:
            onnx.numpy_helper.to_array(tensor)  # the checker does not compare the shape with data from other files
        return (onnx.inliner.inline_local_functions(model) if model.functions else model), notes
    except ModelError:
        raise
    except Exception as error:
        raise _unusable(path, error) from error


def _passes_checker(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # checked and reported again after the corrections
        return False
    return True


def loaded(path: str | Path) -> onnx.ModelProto:
    """Read an ONNX file unchanged, for its metadata.

    Raises:
        UsageError: No such file.
        ModelError: Not an ONNX file.
    """
    path = model_file(path, "ONNX file")
    try:
        return onnx.load(path)
    except Exception as error:
        raise _unusable(path, error) from error


def _unusable(path: str | Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:300]
    return ModelError(f"{path} is not a usable ONNX file", got=reason or type(error).__name__, do="export it again")


def write_model(model: onnx.ModelProto, path: str | Path) -> None:
    """Check a model, then write it completely or not at all.

    Raises:
        ModelError: onnx.checker refuses the model; nothing is written.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ModelError(f"the graph made for {path} is invalid", got=str(error)[:300], do="report it") from error
    with atomic_file(path) as temporary:
        onnx.save(model, temporary)


def tensor_types(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return type and shape of the inputs, outputs and other tensors; inferred unless the model has them for all."""
    graph = model.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    complete = {item.name for item in values if _is_complete(item.type.tensor_type)}
    if not complete.issuperset(name for node in graph.node for name in node.output if name):
        graph = onnx.shape_inference.infer_shapes(model).graph
    return [*graph.input, *graph.value_info, *graph.output]


def _is_complete(kind: onnx.TypeProto.Tensor) -> bool:
    dims = kind.shape.dim
    return bool(kind.elem_type) and kind.HasField("shape") and all(dim.WhichOneof("value") for dim in dims)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as plain values."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def set_attributes(node: NodeProto, **values: Any) -> None:
    """Set attributes of a node, after the existing ones; None removes one."""
    kept = [item for item in node.attribute if item.name not in values]
    del node.attribute[:]
    fresh = [helper.make_attribute(name, value) for name, value in values.items() if value is not None]
    node.attribute.extend([*kept, *fresh])


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model itself where each node has a name of its own, else a copy where it has."""
    names = [node.name for node in model.graph.node]
    if all(names) and len(set(names)) == len(names):
        return model
    copy = copied(model)
    name_nodes(copy.graph)
    return copy


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: of its operator and place where it has none or one that is another's."""
    names: set[str] = set()
    every = {node.name for node in graph.node}
    for index, node in enumerate(graph.node):
        if not node.name or node.name in names:
            name = f"{node.name or node.op_type}_{index}"
            while name in every:
                name = f"{name}_{index}"
            node.name = name
            every.add(name)
        names.add(node.name)


def constant_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the stored constants of a graph by name: initializers and Constant nodes."""
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        for item in node.attribute:
            if node.op_type == "Constant" and item.type == onnx.AttributeProto.TENSOR:
                constants[node.output[0]] = item.t
    return constants


class ProtoIndex:
    """A read-only graph: its nodes, and the producer and the consumers of each tensor.

    The indices are rebuilt by `index()` after nodes or edges changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.index()

    def index(self) -> None:
        """Rebuild `nodes`, `producer` and `readers` from the graph."""
        self.nodes = list(self.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys([*node.input, *captured(node)]):
                self.readers.setdefault(name, []).append(node)


class ProtoGraph(ProtoIndex):
    """One graph to rewrite, with `arrays` of its constants.

    Constant nodes become initializers, and each node gets a unique name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.arrays: dict[str, np.ndarray] = {}
        for tensor in self.graph.initializer:
            self.arrays[tensor.name] = numpy_helper.to_array(tensor)
        self._lift_constants()
        self.opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
        self.inputs = [item.name for item in self.graph.input if item.name not in self.arrays]
        self.outputs = [item.name for item in self.graph.output]
        name_nodes(self.graph)
        self._names = {name for node in self.graph.node for name in (*node.input, *node.output)} | set(self.arrays)
        self.index()

    def _lift_constants(self) -> None:
        for node in [item for item in self.graph.node if item.op_type == "Constant"]:
            value = attributes(node).get("value")
            if value is not None and node.output[0] not in {item.name for item in self.graph.output}:
                self.graph.node.remove(node)
                self._store(node.output[0], numpy_helper.to_array(value))

    @functools.cached_property
    def _floats(self) -> set[str]:
        kinds = {item.name: item.type.tensor_type.elem_type for item in tensor_types(self.model)}
        return {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}

    def is_float(self, name: str) -> bool:
        """Return whether a tensor of the graph as it was read is known to be float32."""
        return name in self._floats

    def fresh(self, name: str) -> str:
        """Return `name`, or `name_1`, …: a name that no tensor has; it is then reserved."""
        candidate, count = name, 0
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    def add_array(self, name: str, array: np.ndarray) -> str:
        """Add a constant with a new name similar to `name` and return that name."""
        name = self.fresh(name)
        self._store(name, array)
        return name

    def set_array(self, name: str, array: np.ndarray) -> None:
        """Replace a constant's value."""
        for tensor in self.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), name))
        self.arrays[name] = array

    def set_bias(self, node: NodeProto, bias: np.ndarray) -> None:
        """Give a Conv, ConvTranspose or Gemm a bias of its own."""
        name = self.add_array(f"{node.name}_bias", bias)
        del node.input[2:]
        node.input.append(name)

    def _store(self, name: str, array: np.ndarray) -> None:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        self.arrays[name] = array

    def insert(self, before: NodeProto, node: NodeProto) -> None:
        """Insert a node before another node's first input."""
        before.input[0] = node.output[0]
        self.graph.node.insert(self.nodes.index(before), node)
        self.index()

    def remove(self, reader: NodeProto, node: NodeProto) -> None:
        """Remove a node before another node's first input."""
        reader.input[0] = node.input[0]
        self.graph.node.remove(node)
        self.index()

    def prune(self) -> None:
        """Remove unused initializers, and value_info of removed tensors."""
        read = {name for node in self.graph.node for name in all_inputs(node)} | set(self.outputs)
        for tensor in [item for item in self.graph.initializer if item.name not in read]:
            self.graph.initializer.remove(tensor)
            self.arrays.pop(tensor.name, None)
        written = {name for node in self.graph.node for name in node.output}
        for info in [item for item in self.graph.value_info if item.name not in written]:
            self.graph.value_info.remove(info)


def all_inputs(node: NodeProto) -> set[str]:
    """Return all tensor names that a node reads, including those in bodies of If, Loop and Scan."""
    names = set(node.input)
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            names |= {name for inner in item.g.node for name in all_inputs(inner)}
            names |= {output.name for output in item.g.output}
    return names


def all_nodes(node: NodeProto) -> list[NodeProto]:
    """Return the nodes in the bodies of an If, Loop or Scan, at however many levels."""
    bodies = [body for item in node.attribute for body in ([item.g] if item.HasField("g") else item.graphs)]
    return [one for body in bodies for inner in body.node for one in (inner, *all_nodes(inner))]


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Sort the nodes topologically, and keep their order otherwise.

    Afterwards the graph has copies: nodes obtained earlier are not part of it any more.

    Raises:
        ModelError: The graph has a cycle.
    """
    nodes = list(graph.node)
    owner = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    order, cycle = topological([{owner[name] for name in all_inputs(node) if name in owner} for node in nodes])
    if cycle:
        raise ModelError("the graph has a cycle", expected="a directed acyclic graph", do="report it")
    del graph.node[:]
    graph.node.extend([nodes[index] for index in order])
