"""Count TensorRT-RTX's kernels for FP16, INT8 and their mixes, and estimate the time on GPUs that are not here.

    python docs/measurements/tensorrt_rtx_kernels.py shufflenet_v2_x1_0 resnet50 --gpu A2 --gpu L4 --batch 1 8

Random weights, BatchNorm statistics from random images: kernels and estimates do not depend on them. One JSON line
per network, GPU, batch and form goes to standard output; tensorrt-rtx-kernels.jsonl holds such lines.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from edgesmith.export import to_onnx
from edgesmith.models import catalog
from edgesmith.optimize import optimizer
from edgesmith.optimize.quantize import quantize
from edgesmith.optimize.trt.autotune import autotune
from edgesmith.runtime.engines import cost


def network(name: str, folder: Path) -> tuple[Path, Path]:
    """Return the float32 file and the quantised file of one network at 224x224."""
    import torch  # noqa: TID251 - a script, not the package

    torch.manual_seed(0)
    module, random = catalog.build_network(name), np.random.default_rng(0)
    images = [random.normal(size=(4, 3, 224, 224)).astype(np.float32) for _ in range(2)]
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        module.train()(torch.from_numpy(images[0]))
    to_onnx.export(module.eval(), catalog.network_spec(name), folder / "raw.onnx")
    optimizer.optimize(folder / "raw.onnx", folder / "fp32.onnx", target="trt")
    quantize(folder / "fp32.onnx", folder / "int8.onnx", images, target="trt", allow_random=True, min_images=1)
    return folder / "fp32.onnx", folder / "int8.onnx"


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--gpu", action="append", default=[])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    given = parser.parse_args()
    for name in given.names:
        with tempfile.TemporaryDirectory() as folder:
            files = network(name, Path(folder))
            for gpu in given.gpu or ["A2", "L4", "RTX 5090"]:
                for batch, wide in ((batch, wide) for batch in given.batch for wide in (False, True)):
                    report = autotune(
                        *files, Path(folder) / "out.onnx", cost.find_gpu(gpu), batch=batch, per_tensor=wide
                    )
                    line = {"network": name, "per_tensor": wide, **report.to_dict()}
                    line["placement"] = {"int8": line["placement"]["int8"]}
                    print(json.dumps(line), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
