"""The FP32 networks of `make bench-quant`: digits-trained ones, each as it is, stressed, or at another size.

mobilenetv2           what `edgesmith export mobilenetv2 --weights digits --precision fp32` makes
mobilenetv2-stress    the same function, with channels rescaled by factors from 1/16 to 16
mobilenetv2-224       the same weights on images of 224x224, for time and memory
shufflenetv2-export   what PyTorch's exporter writes, for 224x224: peers get it as it is, ours is optimised first
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from edgesmith.optimize.graph.proto_graph import ProtoGraph, attributes
from edgesmith.optimize.quantize.equalization.channel_groups import channel_groups
from edgesmith.optimize.quantize.equalization.cross_layer import own_weights
from edgesmith.runtime.spec import SPEC_KEY

LARGEST = 16.0
EXPORTED_SIDE = 224


def fp32(name, folder):
    """Return the FP32 file of a network, made on the first call; a path to an ONNX file is returned as it is."""
    if name.endswith(".onnx"):
        return Path(name)
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    plain, _, kind = name.partition("-")
    if kind == "export":  # in a process of its own: the memory of torch would count for every child of this one
        subprocess.run([sys.executable, __file__, plain, path], check=True)
        return path
    if kind:
        model = onnx.load(fp32(plain, folder))
        model = stressed(model) if kind == "stress" else resized(model, int(kind))
        temporary = path.with_suffix(".part")
        onnx.save(model, temporary)
        temporary.rename(path)
        return path
    command = [sys.executable, "-m", "edgesmith", "export", plain, "--weights", "digits", "--precision", "fp32"]
    subprocess.run([*command, "--target", "ort-x86", "--out", folder / plain], check=True, stdout=subprocess.DEVNULL)
    (folder / plain / "onnx" / f"{plain}-fp32.onnx").rename(path)
    return path


def _exported(name, path):
    """Export a network trained on digits for images of EXPORTED_SIDE, as torch.onnx does it by itself."""
    from edgesmith.export import to_onnx
    from edgesmith.models import catalog, weights

    spec = catalog.network_spec(name, "digits")
    module = catalog.build_network(name, spec.num_classes)
    spec = weights.load_into(module, spec, "digits", folder=Path("weights"))
    side = (EXPORTED_SIDE, EXPORTED_SIDE)
    spec = replace(spec, input_shape=(3, *side), preprocess=replace(spec.preprocess, crop=side))
    to_onnx.export(module.eval(), spec, path, keep_batchnorm=False)


def optimised(source):
    """Return the file that `edgesmith optimize` makes of one, made on the first call."""
    path = source.with_suffix(".optimised.onnx")
    if not path.exists():
        command = [sys.executable, "-m", "edgesmith", "optimize", source, "-o", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def stressed(model, seed=5):
    """Return the same function with channels scaled by factors of 1/16 to 16 wherever ReLU or nothing stands between.

    Each factor is drawn log-uniformly; what is added together is scaled together, and a Clip lets nothing through.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    net, draw = ProtoGraph(copy), np.random.default_rng(seed)
    own_weights(net)
    for space in channel_groups(net):
        if space.frozen or "Clip" in space.between or not space.writers or not space.readers:
            continue
        count = len(net.arrays[space.writers[0].input[1]])
        scale = np.exp(draw.uniform(-np.log(LARGEST), np.log(LARGEST), count))
        for node in space.writers:
            for name in node.input[1:]:
                array = net.arrays[name]
                net.set_array(name, (array * scale.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32))
        for node in space.readers:
            weight, groups = net.arrays[node.input[1]], attributes(node).get("group", 1)
            each = np.repeat(scale.reshape(groups, -1), len(weight) // groups, axis=0)
            changed = weight / each.reshape(*each.shape, *[1] * (weight.ndim - 2))
            net.set_array(node.input[1], changed.astype(np.float32))
    return copy


def resized(model, side):
    """Return a network without fixed shapes inside, for square images of another size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for dim in copy.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = side
    del copy.graph.value_info[:]
    (entry,) = [item for item in copy.metadata_props if item.key == SPEC_KEY]
    spec = json.loads(entry.value)
    spec["input_shape"][1:] = spec["preprocess"]["crop"] = [side, side]
    entry.value = json.dumps(spec)
    return copy


if __name__ == "__main__":
    _exported(sys.argv[1], Path(sys.argv[2]))
