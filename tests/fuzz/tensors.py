"""Ways to make nonsense of a model's tensors and attributes: each takes (rng, model, folder) and changes the model."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fuzz.pick import number, some


def tensor_dims(rng, source, folder):
    if tensor := some(rng, source.graph.initializer):
        if tensor.dims and rng.integers(3):
            tensor.dims[rng.integers(len(tensor.dims))] = number(rng)
        else:
            tensor.dims.extend([number(rng)] * int(rng.choice([1, 1, 70])))


def tensor_bytes(rng, source, folder):
    if tensor := some(rng, source.graph.initializer):
        tensor.raw_data = tensor.raw_data[: rng.integers(len(tensor.raw_data) + 1)] + rng.bytes(int(rng.integers(0, 9)))


def tensor_type(rng, source, folder):
    if tensor := some(rng, source.graph.initializer):
        tensor.data_type = int(rng.choice([0, 2, 7, 8, 9, 10, 11, 14, 16, 17, 23, 26, 99, 2**31 - 1]))


def tensor_values(rng, source, folder):
    if tensor := some(rng, source.graph.initializer):
        try:
            array = numpy_helper.to_array(tensor).copy()
        except Exception:
            return
        if array.size:
            value = rng.choice([np.nan, np.inf, -np.inf, 1e38, 0, -1, 1e-45])
            with np.errstate(all="ignore"):
                array.reshape(-1)[: int(rng.integers(1, array.size + 1))] = np.array(value).astype(array.dtype)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def outside(rng, source, folder):
    """Weights in another file: missing, too short, far away, a link, a pipe, with offsets beyond everything."""
    if not (tensor := some(rng, source.graph.initializer)):
        return
    place = str(rng.choice(["weights.bin", "../../../../../../../../etc/passwd", "/etc/passwd", "/dev/zero", "link", "",
                            "missing.bin", "sub/../weights.bin", "in.onnx", "."]))  # fmt: skip
    (folder / "weights.bin").write_bytes(bytes(4096))
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to("/etc/passwd")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", place), ("offset", number(rng)), ("length", number(rng))):
        if key == "location" or rng.integers(2):
            tensor.external_data.add(key=key, value=str(value))


def sparse(rng, source, folder):
    if tensor := some(rng, source.graph.initializer):
        made = source.graph.sparse_initializer.add()
        made.values.CopyFrom(tensor)
        made.indices.CopyFrom(numpy_helper.from_array(np.array([number(rng), 0]), "i"))
        made.dims.extend([number(rng), 3])
        source.graph.initializer.remove(tensor)


def declared(rng, source, folder):
    """Inputs and outputs of other shapes, ranks and types than the graph takes."""
    value = some(rng, [*source.graph.input, *source.graph.output])
    if value is None:
        return
    what = rng.integers(4)
    if what == 0:
        value.type.tensor_type.elem_type = int(rng.integers(0, 24))
    elif what == 1:
        value.ClearField("type")
    elif what == 2:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        dim = value.type.tensor_type.shape.dim.add() if rng.integers(2) else some(rng, value.type.tensor_type.shape.dim)
        if dim is not None:
            dim.dim_value = number(rng)


def attribute(rng, source, folder):
    """Change a number, a list, a type or a name; divisions by zero (group, stride, block) are among them."""
    nodes = [node for node in source.graph.node if node.attribute]
    if not nodes:
        return
    item = some(rng, some(rng, nodes).attribute)
    what = rng.integers(5)
    if what == 0:
        item.i = number(rng)
    elif what == 1 and item.ints:
        item.ints[rng.integers(len(item.ints))] = number(rng)
    elif what == 2:
        del item.ints[:]
        item.ints.extend([number(rng)] * int(rng.choice([0, 1, 3, 5, 2000])))
    elif what == 3:
        item.type = int(rng.integers(0, 15))
    else:
        item.name = str(rng.choice(["group", "axis", "", "auto_pad", "to", "perm", "kernel_shape", "ref"]))


def odd_attributes(rng, source, folder):
    node = some(rng, source.graph.node)
    name = str(rng.choice(["group", "axis", "strides", "dilations", "pads", "auto_pad", "perm", "keepdims", "epsilon"]))
    value = [0, -1, 2**62, [0, 0], [-1, -1], [2**62] * 2, "SAME", 0.0, [1.5], b"\xff\xfe"][rng.integers(10)]
    node.attribute.append(helper.make_attribute(name, value))


def huge_result(rng, source, folder):
    """A node that makes far more than it is given: fill, expand, tile, range, pad, resize."""
    dims = np.array([[2**40], [2**31, 2**31], [10**9], [-5], [0], [3 * 10**8]][rng.integers(6)][:1])
    add = source.graph.initializer.append
    add(numpy_helper.from_array(dims, "huge dims"))
    add(numpy_helper.from_array(np.array(0), "zero i"))
    add(numpy_helper.from_array(np.array(1), "one i"))
    add(numpy_helper.from_array(np.array(2**40), "many i"))
    add(numpy_helper.from_array(np.ones(1, np.float32), "one f"))
    node = [
        helper.make_node("ConstantOfShape", ["huge dims"], ["huge"]),
        helper.make_node("Expand", ["one f", "huge dims"], ["huge"]),
        helper.make_node("Tile", ["one f", "huge dims"], ["huge"]),
        helper.make_node("Range", ["zero i", "many i", "one i"], ["huge"]),
        helper.make_node("RandomNormal", [], ["huge"], shape=[int(dims[0])]),
        helper.make_node("OneHot", ["huge dims", "many i", "huge dims"], ["huge"]),
    ][rng.integers(6)]
    source.graph.node.append(node)
    if rng.integers(2):
        source.graph.output.append(helper.make_tensor_value_info("huge", 0, None))


def notes(rng, source, folder):
    """Metadata of nonsense where a ModelSpec is looked for."""
    text = str(rng.choice(["", "{", "[]", '{"name": "x"}', "[" * 50_000]))
    source.metadata_props.add(key="edgesmith.spec", value=text)


WAYS = (
    tensor_dims, tensor_dims, tensor_bytes, tensor_type, tensor_values, tensor_values, outside, outside, sparse,
    declared, declared, attribute, attribute, attribute, odd_attributes, odd_attributes, huge_result, notes,
)  # fmt: skip
