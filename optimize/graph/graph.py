"""The graph that passes rewrite: an onnx-graphsurgeon Graph with its constants, shapes and pinned tensors.

A tensor is pinned if it is read by name outside the rewrite: a graph output, or a tensor that a body of If, Loop or
Scan captures. Passes may move the computation of a pinned tensor, but never rename or remove the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs

from ...runtime.errors import ModelError
from .node import GraphTensor, Node, NodeGraph, is_a
from .topological_sort import topological

Shape = tuple[Any, ...]
Passthrough = onnx.TensorProto | onnx.SparseTensorProto
STANDARD = ("", "ai.onnx", None)


@dataclass
class Graph:
    """A graph being rewritten.

    Attributes:
        graph: The nodes and tensors. Bodies of If, Loop and Scan are not in it; their nodes are opaque.
        skeleton: The model without nodes and weights: inputs, outputs, metadata, opsets.
        origin: `id(node)` to its original NodeProto, with the attributes that GraphSurgeon does not support.
        passthrough_tensors: Written unchanged and never treated as constants: defaults of inputs, sparse, exotic ones.
        protected_names: Names that must be preserved.
        block: The target's channel block; groups of channels are padded to a multiple of it.
        captures: `id(node)` to the tensors that the node's bodies read by name.
        folder: The folder of external weights.
        infer_shapes: Fills `kinds` (shape_inference.infer); the reader passes it.
    """

    graph: NodeGraph
    skeleton: onnx.ModelProto
    origin: dict[int, onnx.NodeProto]
    passthrough_tensors: dict[str, Passthrough]
    protected_names: set[str]
    folder: Path
    infer_shapes: Callable[[Graph], None]
    block: int = 1
    captures: dict[int, list[GraphTensor]] = field(default_factory=dict)
    used_names: set[str] = field(default_factory=set)
    value_types: dict[str, tuple[int, Shape | None]] = field(default_factory=dict)
    inferred: bool = False
    inferences: int = 0
    exact_outputs: dict[str, bytes] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)  # the changes made while reading
    keep_shared: bool = False  # weights of several layers are not copied to fold something into one of them
    sharers: dict[str, list[Node]] = field(default_factory=dict)  # copied weights -> the layers that shared them

    @property
    def opset(self) -> int:
        """The version of the standard operator set."""
        return next((int(entry.version) for entry in self.skeleton.opset_import if entry.domain in STANDARD), 1)

    def nodes(self, *ops: str) -> Iterator[Node]:
        """Yield the live nodes of the standard domain, all or of some types, in their current order."""
        for node in list(self.graph.nodes):
            if id(node) not in self.dead and (is_a(node, *ops) if ops else not node.domain):
                yield node

    def everything(self) -> list[Node]:
        """Return the live nodes of every domain."""
        return [node for node in self.graph.nodes if id(node) not in self.dead]

    # -- reading ---------------------------------------------------------------------------------------------------

    def value(self, tensor: GraphTensor) -> np.ndarray[Any, Any] | None:
        """Return a constant's array, or None if the tensor is not a constant. The array must not be modified."""
        if not isinstance(tensor, gs.Constant):
            return None
        values = tensor._values
        if isinstance(values, np.ndarray):
            return values
        array = self.load(values.tensor)
        if array.nbytes <= 4096:
            tensor._values = array
        return np.asarray(array)

    def load(self, proto: onnx.TensorProto) -> np.ndarray[Any, Any]:
        """Return the array of a stored tensor.

        Raises:
            ModelError: Its external file does not exist or is too short.
        """
        try:
            return np.asarray(onnx.numpy_helper.to_array(proto, str(self.folder)))
        except (ValueError, OSError, onnx.checker.ValidationError) as error:
            place = {entry.key: entry.value for entry in proto.external_data}.get("location", "the file itself")
            raise ModelError(
                f"the weights {proto.name!r} cannot be read from {place}",
                got=str(error)[:200],
                do="put the file of weights beside the model",
            ) from error

    def array(self, tensor: GraphTensor) -> np.ndarray[Any, Any]:
        """Return the array of a tensor that must be a constant."""
        array = self.value(tensor)
        assert array is not None, tensor.name
        return array

    def scalar(self, tensor: GraphTensor) -> float | None:
        """Return the value of a constant with one element (any rank), or None."""
        if not isinstance(tensor, gs.Constant) or int(np.prod(tensor._values.shape)) != 1:
            return None
        array = self.value(tensor)
        return None if array is None or array.dtype == object else float(array.reshape(-1)[0])

    def producer(self, tensor: GraphTensor) -> Node | None:
        """Return the producer of a tensor, or None for inputs and constants."""
        return tensor.inputs[0] if tensor.inputs else None

    def producer_of_type(self, tensor: GraphTensor, *ops: str) -> Node | None:
        """Return the producer of a tensor if it has one of these standard types, else None."""
        node = self.producer(tensor)
        return node if node is not None and is_a(node, *ops) else None

    def users(self, tensor: GraphTensor) -> list[Node]:
        """Return the distinct consumers of a tensor."""
        return list({id(node): node for node in tensor.outputs}.values())

    def only_user(self, tensor: GraphTensor) -> Node | None:
        """Return the only consumer of a tensor, if it reads the tensor once and the tensor is not pinned; else None."""
        return tensor.outputs[0] if len(tensor.outputs) == 1 and tensor.name not in self.protected_names else None

    def input(self, node: Node, index: int) -> GraphTensor | None:
        """Return a node's input, or None if it is omitted."""
        if index >= len(node.inputs) or node.inputs[index].name == "":
            return None
        return node.inputs[index]

    def ints(self, node: Node, attribute: str, index: int) -> list[int] | None:
        """Return integers that are an attribute in older opsets and an input in newer ones; None if not constant."""
        if attribute in node.attrs:
            value = node.attrs[attribute]
            return [int(item) for item in value] if isinstance(value, list) else [int(value)]
        tensor = self.input(node, index)
        array = None if tensor is None else self.value(tensor)
        return None if array is None else [int(item) for item in array.reshape(-1)]

    def shape(self, tensor: GraphTensor) -> Shape | None:
        """Return a tensor's shape: integers, names of dynamic axes, None for unknown ones; None if unknown."""
        return self.known(tensor)[1]

    def dtype(self, tensor: GraphTensor) -> int:
        """Return a tensor's ONNX data type (0 if unknown)."""
        return self.known(tensor)[0]

    def static(self, tensor: GraphTensor) -> tuple[int, ...] | None:
        """Return a tensor's shape if every dimension is a known number, else None."""
        shape = self.shape(tensor)
        return shape if shape is not None and all(isinstance(dim, int) for dim in shape) else None

    def same_shape(self, one: GraphTensor, other: GraphTensor) -> bool:
        """Return whether two tensors certainly have the same shape; dynamic axes with the same name are equal."""
        shape = self.shape(one)
        return shape is not None and None not in shape and shape == self.shape(other)

    def rank(self, tensor: GraphTensor) -> int | None:
        """Return the rank, or None if unknown."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def refresh(self) -> None:
        """Infer shapes again at the next request, if some were unknown."""
        if any(shape is None or None in shape for _, shape in self.value_types.values()):
            self.value_types, self.inferred = {}, False

    def known(self, tensor: GraphTensor) -> tuple[int, Shape | None]:
        """Return a tensor's data type (0 if unknown) and shape (None if unknown)."""
        if isinstance(tensor, gs.Constant):
            values = tensor._values
            if isinstance(values, np.ndarray):
                return int(onnx.helper.np_dtype_to_tensor_dtype(values.dtype)), tuple(values.shape)
            return int(values.tensor.data_type), tuple(values.tensor.dims)
        if tensor.name not in self.value_types and not self.inferred:
            self.infer_shapes(self)
        return self.value_types.get(tensor.name, (0, None))

    # -- writing ---------------------------------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """Return a name that is unused in the model, including the bodies of If, Loop and Scan."""
        name, number = hint, 1
        while name in self.used_names:
            name, number = f"{hint}_{number}", number + 1
        self.used_names.add(name)
        return name

    def constant(self, hint: str, array: np.ndarray[Any, Any]) -> GraphTensor:
        """Create a constant tensor."""
        alike = array.size > 1 and not any(array.strides)
        values = array if alike else np.ascontiguousarray(array).reshape(np.shape(array))
        tensor: GraphTensor = gs.Constant(self.fresh(hint), values)
        return tensor

    def variable(self, like: GraphTensor, hint: str | None = None) -> GraphTensor:
        """Create a tensor with the data type and shape of another."""
        tensor: GraphTensor = gs.Variable(self.fresh(hint or like.name))
        self.value_types[tensor.name] = self.known(like)
        return tensor

    def blank(self, hint: str) -> GraphTensor:
        """Create a tensor whose data type and shape will be inferred."""
        tensor: GraphTensor = gs.Variable(self.fresh(hint))
        return tensor

    def add(
        self, op: str, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor], near: Node,
        attrs: dict[str, Any] | None = None,
    ) -> Node:  # fmt: skip
        """Add a node of the standard domain, with the name and position of the node that it replaces."""
        name = self.fresh(f"{near.name or near.op}_{op}")
        node: Node = gs.Node(op, name, dict(attrs or {}), list(inputs), list(outputs))
        at = next((index for index, item in enumerate(self.graph.nodes) if item is near), len(self.graph.nodes))
        list.insert(self.graph.nodes, at + 1, node)
        self.inferred = False
        return node

    def drop(self, node: Node) -> None:
        """Remove a node; its outputs then have no producer."""
        node.inputs.clear()
        node.outputs.clear()
        self.dead.add(id(node))
        if self.captures.pop(id(node), None):
            outputs = {value.name for value in self.skeleton.graph.output}
            self.protected_names = outputs | {tensor.name for tensors in self.captures.values() for tensor in tensors}

    def substitute(self, old: GraphTensor, new: GraphTensor) -> None:
        """Replace one tensor by another in all consumers."""
        for node in self.users(old):
            for index, tensor in enumerate(node.inputs):
                if tensor is old:
                    node.inputs[index] = new

    def can_bypass(self, node: Node, source: GraphTensor) -> bool:
        """Return whether `bypass` would succeed."""
        output = node.outputs[0]
        if output.name not in self.protected_names:
            return True
        return source.name not in self.protected_names and bool(source.inputs) and not isinstance(source, gs.Constant)

    def bypass(self, node: Node, source: GraphTensor) -> bool:
        """Remove a node whose first output always equals `source`; return False if names must be preserved."""
        if not self.can_bypass(node, source):
            return False
        output = node.outputs[0]
        self.drop(node)
        if output.name not in self.protected_names:
            self.substitute(output, source)
            return True
        maker = source.inputs[0]
        self.substitute(source, output)
        maker.outputs[next(index for index, item in enumerate(maker.outputs) if item is source)] = output
        return True

    def sweep(self) -> None:
        """Delete the removed nodes."""
        if self.dead:
            alive = [node for node in self.graph.nodes if id(node) not in self.dead]
            list.clear(self.graph.nodes)
            list.extend(self.graph.nodes, alive)
            self.dead.clear()

    def sort(self) -> list[Node]:
        """Sort the nodes topologically, else in their order; return those on a cycle (none in a valid graph)."""
        self.sweep()
        order, cycle = self._ordered()
        list.clear(self.graph.nodes)
        list.extend(self.graph.nodes, order)
        return cycle

    def ordered(self) -> list[Node]:
        """Return the live nodes in topological order, otherwise in their order."""
        return self._ordered()[0]

    def _ordered(self) -> tuple[list[Node], list[Node]]:
        nodes = self.everything()
        at = {id(node): index for index, node in enumerate(nodes)}
        makers = [[tensor.inputs[0] for tensor in self.reads(node) if tensor.inputs] for node in nodes]
        order, cycle = topological([{at[id(maker)] for maker in each} for each in makers])
        return [nodes[index] for index in order], [nodes[index] for index in cycle]

    def reads(self, node: Node) -> Iterable[GraphTensor]:
        """Return the tensors that a node reads, including those that its bodies capture."""
        return [*(tensor for tensor in node.inputs if tensor.name), *self.captures.get(id(node), ())]
