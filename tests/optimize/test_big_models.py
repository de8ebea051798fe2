"""A model over protobuf's 2 GiB, weights in a file beside it: optimised and checked in less than twice its size."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnx.helper
import pytest
from experiments.optimizer_peers import LAUNCH

SIDE, LAYERS = 11_000, 5
LAYER_BYTES = 4 * SIDE * SIDE


def big(folder):
    """Write layers of a mostly empty (sparse) file: the first rows of each are numbers, the rest are zeros."""
    rng, tensors, nodes, before = np.random.default_rng(0), [], [], "x"
    with (folder / "big.bin").open("wb") as store:
        for layer in range(LAYERS):
            store.seek(layer * LAYER_BYTES)
            store.write((rng.standard_normal((8, SIDE)) / 3).astype(np.float32).tobytes())
            tensor = onnx.TensorProto(name=f"w{layer}", data_type=1, dims=[SIDE, SIDE], data_location=1)
            for key, value in (("location", "big.bin"), ("offset", layer * LAYER_BYTES), ("length", LAYER_BYTES)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            nodes.append(onnx.helper.make_node("MatMul", [before, f"w{layer}"], [f"m{layer}"]))
            nodes.append(onnx.helper.make_node("Identity", [f"m{layer}"], [f"i{layer}"]))
            before = f"i{layer}"
        store.truncate(LAYERS * LAYER_BYTES)
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, SIDE]) for name in ("x", before)]
    graph = onnx.helper.make_graph(nodes, "big", ends[:1], ends[1:], tensors)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    (folder / "big.onnx").write_bytes(made.SerializeToString())


@pytest.mark.slow
def test_a_model_over_two_gigabytes(tmp_path):
    big(tmp_path)
    result = tmp_path / "out.onnx"
    command = [sys.executable, "-m", "edgesmith", "optimize", str(tmp_path / "big.onnx"), "-o", str(result), "--json"]
    shell = ["/bin/sh", "-c", f'"$@" > "{tmp_path}/report.json"', "sh", *command]
    launch = [sys.executable, "-IS", "-c", LAUNCH, "600", str(64 << 30), *shell]
    done = subprocess.run(launch, capture_output=True, text=True, check=True)
    code, _, _, peak, errors = json.loads(done.stdout)
    assert code == 0, errors
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["check"]["verdict"] == "equal"
    assert (found["before"]["nodes"], found["after"]["nodes"]) == (2 * LAYERS, LAYERS)
    assert (tmp_path / "out.onnx.data").stat().st_size >= LAYERS * LAYER_BYTES > 2**31
    assert peak < 2 * LAYERS * LAYER_BYTES
