"""Read an ONNX file into a `Graph`.

Parts that GraphSurgeon does not support (defaults of graph inputs, bodies of If and Loop, local functions, sparse and
exotic tensors, attributes of unknown types, metadata, documentation) are stored unchanged for the writer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from ...runtime.common.external_data import model_file
from ...runtime.errors import ModelError
from .graph import STANDARD, Graph, Passthrough
from .protobuf import LOCAL, PLAIN_TYPES, captured, copied, copy_fields, is_plain
from .schema_check import check_nodes
from .shape_inference import infer
from .upgrade import upgraded, with_free_sizes


def read(source: str | Path | onnx.ModelProto, fold_inputs: bool = False, raise_opset: bool = False) -> Graph:
    """Read a model; convert an old opset and correct output shapes that contradict the graph (`Graph.notes`).

    Args:
        source: A file (external weights are read on demand), or a model in memory (not changed).
        fold_inputs: Treat initializers that are also graph inputs as constants, and remove these inputs.
        raise_opset: Convert an opset below 13, if ONNX's converter can.

    Raises:
        UsageError: There is no such file.
        ModelError: It is not an ONNX model, or its graph is broken: a tensor without a producer or with two, or a
            cycle.
    """
    if isinstance(source, onnx.ModelProto):
        model, folder, name = onnx.ModelProto(), Path(), "the model"
        model.CopyFrom(source)
    else:
        model, folder, name = _parse(model_file(source)), Path(source).parent, str(source)
    _validate(model, name)
    model = with_free_sizes(model)
    model, notes = upgraded(model, must=False) if raise_opset else (model, [])
    net = _import(model, folder, fold_inputs)
    net.notes = notes
    if broken := net.sort():
        raise ModelError(f"the graph of {name} has a cycle", got=f"through node {broken[0].name!r}")
    return net


def _parse(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelError(
            f"{path} is not an ONNX file",
            got=type(error).__name__,
            expected="a serialised ModelProto",
            do="export it again",
        ) from error


def _validate(model: onnx.ModelProto, name: str) -> None:
    graph = model.graph
    if not graph.output:
        raise ModelError(f"{name} is not an ONNX model", got="a graph without outputs", do="export it again")
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    names |= {tensor.values.name for tensor in graph.sparse_initializer} | {""}
    initial = len(names)
    outputs = [output for node in graph.node for output in node.output if output]
    names.update(outputs)
    if len(names) != initial + len(outputs):
        raise ModelError(f"{name} is not a valid graph", got="a tensor with two producers", expected="one producer")
    wanted = [(node.name or node.op_type, item) for node in graph.node for item in (*node.input, *captured(node))]
    wanted += [("the graph's outputs", value.name) for value in graph.output]
    if missing := [(reader, item) for reader, item in wanted if item not in names]:
        reader, item = missing[0]
        raise ModelError(f"{name} is not a valid graph", got=f"{reader} reads {item!r}, which no node produces")
    check_nodes(model, name)


def _names(graph: onnx.GraphProto) -> set[str]:
    """Return all names of a graph and of its bodies."""
    names = {value.name for part in (graph.input, graph.output, graph.value_info) for value in part}
    names |= {tensor.name for tensor in graph.initializer}
    names |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        names |= {node.name, *node.input, *node.output}
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                names |= _names(body)
    return names


def _import(model: onnx.ModelProto, folder: Path, fold_inputs: bool) -> Graph:
    used_names, graph = _names(model.graph), model.graph
    captures = [captured(node) for node in graph.node]
    origin = [_detached(node) for node in graph.node]
    kept = _keep(model, fold_inputs)
    shell = onnx.ModelProto()
    copy_fields(model, shell, "graph")
    copy_fields(graph, shell.graph, "node", "initializer", "sparse_initializer")
    _drop_default_inputs(shell, {tensor.name for tensor in graph.initializer})
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.WhichOneof("value") != "tensor_type" or value.type.tensor_type.elem_type not in PLAIN_TYPES:
            value.ClearField("type")
    del model.functions[:]
    imported = _quietly_import(model)
    for part in (*imported.nodes, *shell.opset_import):
        part.domain = "" if part.domain in STANDARD else part.domain
    local = {function.name for function in shell.functions if function.domain in STANDARD}
    for node in imported.nodes:
        node.domain = LOCAL if not node.domain and node.op in local else node.domain
    tensors = imported.tensors()
    for tensor in (*imported.inputs, *imported.outputs):
        tensors[tensor.name] = tensor
    for tensor in graph.initializer:  # read only by bodies
        if tensor.name not in tensors:
            kept[tensor.name] = tensor
    pairs = zip(imported.nodes, captures, strict=True)
    captured_tensors = {
        id(node): [tensors[name] for name in names if name in tensors] for node, names in pairs if names
    }
    pinned = {value.name for value in graph.output} | {name for names in captures for name in names}
    proto = {id(node): read for node, read in zip(imported.nodes, origin, strict=True)}
    return Graph(imported, shell, proto, kept, pinned, folder, infer, captures=captured_tensors, used_names=used_names)


def _detached(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return the original node; in the graph, remove the attributes that GraphSurgeon would misread."""
    odd = [attribute.name for attribute in node.attribute if not is_plain(attribute)]
    if not odd:
        return node
    whole = onnx.NodeProto()
    whole.CopyFrom(node)
    plain = [attribute for attribute in whole.attribute if attribute.name not in odd]
    del node.attribute[:]
    node.attribute.extend(plain)
    return whole


def _keep(model: onnx.ModelProto, fold_inputs: bool) -> dict[str, Passthrough]:
    """Remove the initializers that are not treated as constants: defaults of inputs (from IR 4), sparse and exotic."""
    graph = model.graph
    inputs = {value.name for value in graph.input} if model.ir_version >= 4 and not fold_inputs else set()
    kept: dict[str, Passthrough] = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
    kept |= {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.name in inputs or tensor.data_type not in PLAIN_TYPES
    }
    if kept:
        plain = [tensor for tensor in graph.initializer if tensor.name not in kept]
        kept = {name: copied(tensor) for name, tensor in kept.items()}
        rest = onnx.GraphProto()
        rest.initializer.extend(plain)
        del graph.initializer[:], graph.sparse_initializer[:]
        graph.initializer.MergeFrom(rest.initializer)
    return kept


def _drop_default_inputs(shell: onnx.ModelProto, constants: set[str]) -> None:
    """Remove inputs that are constants; before IR 4 each initializer had to be an input and could not be set."""
    inputs = [value for value in shell.graph.input if value.name not in constants]
    if len(inputs) < len(shell.graph.input):
        whole = [copied(value) for value in inputs]
        del shell.graph.input[:]
        shell.graph.input.extend(whole)
        shell.ir_version = max(shell.ir_version, 4)


def _quietly_import(model: onnx.ModelProto) -> Any:
    level = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.ERROR
    try:
        return gs.import_onnx(model)
    finally:
        G_LOGGER.severity = level
