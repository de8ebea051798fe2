"""Write a `Graph` as an ONNX file, weights one at a time, so that no second copy of them is in memory."""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.numpy_helper
import onnx_graphsurgeon as gs

from ...runtime.errors import ModelError
from .graph import Graph
from .node import GraphTensor, Node
from .protobuf import LOCAL, captured, copied, copy_fields, is_plain

EXTERNAL_ABOVE = 1_800_000_000
ALIGNMENT = 4096
REPEATED = ("opset_import", "metadata_props", "functions", "training_info")
# Field numbers of onnx.proto with wire type 2: ModelProto.graph, GraphProto.initializer.
GRAPH, INITIALIZER = b"\x3a", b"\x2a"
# Field number of TensorProto.raw_data; number of equal elements per write; below it, typed data is unchanged.
RAW_DATA, PIECE, SMALL = b"\x4a", 1 << 18, 1 << 20
Array = np.ndarray[Any, Any]


def write(net: Graph, path: Path, data: Path | None = None) -> None:
    """Write a graph as an ONNX file.

    Args:
        net: The graph.
        path: The file; the write is not atomic, so callers pass a temporary path.
        data: The external file for the weights, if any; the model refers to it by name.
    """
    skeleton, constants = to_shell(net)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(data.open("wb")) if data else None
        file = stack.enter_context(path.open("wb"))
        _stream(net, file, skeleton, constants, store)


def needs_data_file(net: Graph) -> bool:
    """Return whether weights must be external, because protobuf's limit is 2 GiB."""
    return sum(int(tensor._values.nbytes) for tensor in _constants(net).values()) > EXTERNAL_ABOVE


def to_proto(net: Graph) -> onnx.ModelProto:
    """Return a graph as a model in memory."""
    skeleton, constants = to_shell(net)
    skeleton.graph.initializer.extend(_tensor(net, tensor) for tensor in constants)
    return skeleton


def to_shell(net: Graph) -> tuple[onnx.ModelProto, list[GraphTensor]]:
    """Return the model without its weights, and the constants that it needs."""
    model, constants = copied(net.skeleton), _constants(net)
    model.graph.node.extend(node_proto(net, node) for node in net.ordered())
    reads = {item for node in model.graph.node for item in (*node.input, *captured(node))}
    reads |= {value.name for value in (*model.graph.input, *model.graph.output)}
    for name, tensor in net.passthrough_tensors.items():
        if name in reads:
            sparse = isinstance(tensor, onnx.SparseTensorProto)
            (model.graph.sparse_initializer if sparse else model.graph.initializer).append(tensor)
    alive = {output for node in model.graph.node for output in node.output}
    _filter(model.graph.value_info, lambda value: value.name in alive)
    _filter(model.graph.quantization_annotation, lambda note: note.tensor_name in alive | reads)
    return model, list(constants.values())


def _filter(repeated: Any, wanted: Any) -> None:
    left = [copied(item) for item in repeated if wanted(item)]
    del repeated[:]
    repeated.extend(left)


def _constants(net: Graph) -> dict[str, GraphTensor]:
    constants: dict[str, GraphTensor] = {}
    for node in net.everything():
        for tensor in net.reads(node):
            if isinstance(tensor, gs.Constant):
                constants[tensor.name] = tensor
    constants |= {tensor.name: tensor for tensor in net.graph.outputs if isinstance(tensor, gs.Constant)}
    return constants


def node_proto(net: Graph, node: Node) -> onnx.NodeProto:
    """Return a node's proto, with the original attributes unless a pass changed them."""
    read = net.origin.get(id(node))
    names = [tensor.name for tensor in node.inputs]
    proto = onnx.NodeProto(op_type=node.op, name=node.name, input=names, output=[item.name for item in node.outputs])
    if node.domain and node.domain != LOCAL:
        proto.domain = node.domain
    old = {} if read is None else {attribute.name: attribute for attribute in read.attribute}
    if read is not None:
        copy_fields(read, proto, "op_type", "name", "domain", "input", "output", "attribute")
    for key, value in node.attrs.items():
        proto.attribute.append(_attribute(key, value, old.get(key)))
    proto.attribute.extend(attribute for key, attribute in old.items() if not is_plain(attribute))
    return proto


def _attribute(key: str, value: Any, old: onnx.AttributeProto | None) -> onnx.AttributeProto:
    if isinstance(value, gs.Constant):
        return old or onnx.helper.make_attribute(key, onnx.numpy_helper.from_array(value.values))
    if old is not None and _same(value, onnx.helper.get_attribute_value(old)):
        return old
    kind = onnx.AttributeProto.INTS if isinstance(value, list) and not value else None
    return onnx.helper.make_attribute(key, value, attr_type=kind)


def _same(value: Any, read: Any) -> bool:
    if isinstance(value, list):
        return value == [item.decode() if isinstance(item, bytes) else item for item in read]
    return bool(value == (read.decode() if isinstance(read, bytes) else read))


def _tensor(net: Graph, tensor: GraphTensor) -> onnx.TensorProto:
    values = tensor._values
    if isinstance(values, np.ndarray):
        return onnx.numpy_helper.from_array(values, tensor.name)
    if values.tensor.name == tensor.name and not onnx.external_data_helper.uses_external_data(values.tensor):
        proto: onnx.TensorProto = values.tensor
        return proto
    return onnx.numpy_helper.from_array(net.array(tensor), tensor.name)


def _stream(
    net: Graph, file: BinaryIO, model: onnx.ModelProto, constants: list[GraphTensor], store: BinaryIO | None
) -> None:
    """Write the wire format by hand: the graph's weights follow its other fields, one tensor in memory at a time.

    What stands more than once, operator sets or metadata, follows the graph: OpenVINO 2026.1 takes a file for none of
    ONNX if a field comes twice before it.
    """
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    several = [name for name in REPEATED if len(getattr(model, name)) > 1]
    head = copied(model)
    for name in several:
        head.ClearField(name)
    file.write(head.SerializeToString())
    if store:
        parts = [(_stored(net, tensor, store).SerializeToString(), 0) for tensor in constants]
    else:
        parts = [_head(net, tensor) for tensor in constants]
    sizes = [len(head) + size for head, size in parts]
    total = len(graph) + sum(1 + len(_varint(size)) + size for size in sizes)
    file.write(GRAPH + _varint(total) + graph)
    for tensor, (head, size), whole in zip(constants, parts, sizes, strict=True):
        file.write(INITIALIZER + _varint(whole) + head)
        if size:
            _write_raw(file, _raw(net, tensor), size, tensor.name)
    rest = onnx.ModelProto()
    for name in several:
        getattr(rest, name).extend(getattr(model, name))
    file.write(rest.SerializeToString())


def _head(net: Graph, tensor: GraphTensor) -> tuple[bytes, int]:
    """Return a tensor's message before its raw bytes, and their number; 0 if the message is complete."""
    values, data_type, shape = tensor._values, *net.known(tensor)
    original = None if isinstance(values, np.ndarray) else values.tensor
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
    size = 0 if kind.hasobject else math.prod(shape or ()) * kind.itemsize
    if original is not None and (original.HasField("segment") or (size < SMALL and not original.HasField("raw_data"))):
        size = 0
    if not size or sys.byteorder != "little":
        return _tensor(net, tensor).SerializeToString(), 0
    proto = onnx.TensorProto(name=tensor.name, data_type=data_type, dims=shape)
    if original is not None:
        proto.doc_string = original.doc_string
        proto.metadata_props.extend(original.metadata_props)
    return proto.SerializeToString() + RAW_DATA + _varint(size), size


def _raw(net: Graph, tensor: GraphTensor) -> Array | bytes:
    values = tensor._values
    if isinstance(values, np.ndarray):
        return values
    return bytes(values.tensor.raw_data) if values.tensor.HasField("raw_data") else net.array(tensor)


def _write_raw(file: BinaryIO, raw: Array | bytes, size: int, name: str) -> None:
    """Write a tensor's bytes without a copy if they are contiguous; write equal elements piece by piece."""
    if isinstance(raw, np.ndarray) and raw.size > PIECE and not any(raw.strides):
        piece = np.full(PIECE, raw.flat[0], raw.dtype).tobytes()
        for _ in range(size // len(piece)):
            file.write(piece)
        raw = piece[: size % len(piece)]
    elif (length := len(raw) if isinstance(raw, bytes) else raw.nbytes) != size:
        raise ModelError(f"the weights {name!r} are damaged", got=f"{length} bytes", expected=f"{size} bytes")
    file.write(np.ascontiguousarray(raw).view(np.uint8).data if isinstance(raw, np.ndarray) else raw)


def _stored(net: Graph, tensor: GraphTensor, store: BinaryIO) -> onnx.TensorProto:
    """Write a tensor's bytes into the data file and return the reference to them; small ones stay in the model."""
    array = net.array(tensor)
    if array.nbytes < 1024:
        return onnx.numpy_helper.from_array(array, tensor.name)
    store.write(b"\0" * (-store.tell() % ALIGNMENT))
    proto = onnx.TensorProto(name=tensor.name, data_type=net.dtype(tensor), dims=array.shape)
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", Path(store.name).name), ("offset", store.tell()), ("length", array.nbytes)):
        proto.external_data.add(key=key, value=str(value))
    store.write(np.ascontiguousarray(array).tobytes())
    return proto


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
