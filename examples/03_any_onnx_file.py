"""Rewrite anybody's ONNX file and say what was done: python examples/03_any_onnx_file.py IN.onnx OUT.onnx."""

import sys

from edgesmith.optimize import optimizer

report = optimizer.optimize(sys.argv[1], sys.argv[2], target="ort-x86")
print(f"{report.before.nodes} -> {report.after.nodes} nodes; compared with its source: {report.check.verdict}")
for entry in report.passes:
    for node, how in entry.rewrites:
        print(f"  {entry.name}: {node} {how}")
    for node, why in entry.refusals:
        print(f"  {entry.name} left {node} alone: {why}")
