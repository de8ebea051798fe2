"""FP16 and BF16: their ranges, the opsets that know them, and the operators that stay in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

KEEP_FLOAT = frozenset(
    {"CumSum", "NonMaxSuppression", "RoiAlign", "TopK", "Upsample", "Celu", "If", "Loop", "Scan", "RandomNormal",
     "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "LayerNormalization"}
)  # fmt: skip


@dataclass(frozen=True)
class HalfFormat:
    """One 16-bit kind of number.

    Attributes:
        name: In messages and in the names of tensors.
        type: Its number in ONNX's TensorProto.
        word: Its name in ONNX's operator schemas.
        largest: The largest finite number.
        smallest: The smallest normal one: below it a bit is lost with each halving, so that a tensor whose largest
            value is there keeps its digits only in FP32.
        bottom: That, in words.
        opset: The first opset whose convolutions have it.
        refused: Operators that TensorRT does not read in it.
    """

    name: str
    type: int
    word: str
    largest: float
    smallest: float
    bottom: str
    opset: int = 0
    refused: frozenset[str] = frozenset()

    def dtype(self) -> np.dtype[Any]:
        """Return NumPy's type; BF16's is of a package that onnx brings."""
        if self.name == "FP16":
            return np.dtype(np.float16)
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype


NEAR_OPSET = 18  # between this opset and 22 no operator of a network like these changed its meaning
FP16 = HalfFormat("FP16", 10, "tensor(float16)", 65504.0, 2.0**-14, "FP16's 6.1e-5")


BF16 = HalfFormat(
    "BF16", 16, "tensor(bfloat16)", (2 - 2.0**-7) * 2.0**127, 2.0**-126, "BF16's 1.2e-38", 22, frozenset({"HardSwish"})
)


KINDS = {"fp16": FP16, "bf16": BF16}
