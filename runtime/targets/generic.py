"""Any ONNX runtime: graph passes that help everywhere, and no INT8 form."""

from ._row import TargetRow

ROW = TargetRow("any ONNX runtime", precisions=("fp32", "fp16", "bf16"))
