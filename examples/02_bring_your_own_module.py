"""Take a torch module of your own to INT8, checked at each step: python examples/02_bring_your_own_module.py FOLDER."""

import sys
from pathlib import Path

import numpy as np
import torch

from edgesmith.export import parity, to_onnx
from edgesmith.optimize import optimizer, quantize
from edgesmith.runtime import bundle, datasets
from edgesmith.runtime.backends import ort
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.verify import replay

folder = Path(sys.argv[1])
torch.manual_seed(0)
module = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3, stride=2, bias=False),
    torch.nn.BatchNorm2d(16),
    torch.nn.ReLU6(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(16, 10),
)

# What the network expects; it travels in the ONNX file and in the bundle.
spec = ModelSpec("mine", (3, 32, 32), 10, preprocess=Preprocess(crop=(32, 32), resize=0), labels=tuple("0123456789"))
images = list(datasets.load("digits", "calibration").batches(spec, 1))

raw = to_onnx.export(module, spec, folder / "raw.onnx")
print("parity:", parity.check(module, raw, spec, np.concatenate(images[:3])).worst)
report = optimizer.optimize(raw, folder / "fp32.onnx", samples=images[:2])
print(f"passes: {report.before.nodes} -> {report.after.nodes} nodes, {report.check.verdict}")
int8 = quantize.quantize(folder / "fp32.onnx", folder / "int8.onnx", images, target="ort-x86")
print("int8:", int8.quantised, {name: f"{db:.1f} dB" for name, db in int8.sqnr_db.items()})

golden = {"input": np.concatenate(images[:4])}
items = []
for name, precision, target in (("fp32", "fp32", "generic"), ("int8", "int8", "ort-x86")):
    with ort.open(folder / f"{name}.onnx") as session:
        items.append(bundle.Item(folder / f"{name}.onnx", "onnx", precision, target, replay(session, golden)))
bundle.write(folder / "bundle", spec, items, golden_inputs=golden)
print("bundle:", bundle.verify(folder / "bundle").verdict)
