"""What each target wants its explicit Q/DQ graph to look like; the rules stand in its row (`runtime/targets/`).

Sources: TensorRT developer guide (explicit quantization, Q/DQ placement); ONNX Runtime's QDQ fusion rules; own
measurements in docs/quantisation.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...runtime import targets

ANCHORS = frozenset({"Conv", "Gemm", "MatMul"})
# The same where the target's row says so (`Target.transposed`), and weighted operators that no target has in INT8.
TRANSPOSED = "ConvTranspose"
WEIGHTED = ANCHORS | {TRANSPOSED, "LSTM", "GRU", "RNN", "DeformConv", "Einsum"}
# Operators that only move values: the output has the input's scale.
MOVES = frozenset(
    {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "MaxPool", "DepthToSpace",
     "SpaceToDepth", "Identity", "Dropout", "Relu", "Clip", "Resize"}
)  # fmt: skip
# Those that put values elsewhere and change none.
SHIFTS = (MOVES | {"Concat"}) - {"Relu", "Clip", "MaxPool", "Resize"}


@dataclass(frozen=True)
class Target:
    """One target's form of Q/DQ.

    Attributes:
        name: The target's name.
        activation_dtype: The kind of the activations' integers (`quant_params.KINDS`).
        avoid_int16_saturation: Weights are kept small enough for CPUs that add pairs of products in 16 bits
            (`int16_saturation`).
        integer_bias: Biases are INT32 with a DequantizeLinear (ONNX Runtime's); otherwise they stay float.
        quantize_outputs: The results of INT8 operators are quantised too, so that the region between two convolutions
            is INT8 throughout; otherwise only the inputs of the weighted operators and of residual additions are.
        int8_ops: Operators besides convolutions that compute in INT8 when all that they read is INT8; a row that does
            not name them has INTEGER where outputs are quantised, else none.
        fold_relu: A Relu or Clip becomes the range of the quantiser that follows.
        least_scale: No scale is smaller. TensorRT's graphs are cast to FP16, whose smallest normal number is 6.1e-5: a
            scale that became 0 there would be refused.
        zero_points_in_biases: While the graph is made a tensor may have a zero point; at the end it is moved into
            biases (`zero_points_to_biases`).
        explicit_padding: It is moved too where that takes a Pad or an Add before the quantiser.
        pad_channels: Channels are padded to the numbers that ONNX Runtime's kernels on x86 are quick at.
        transposed: ConvTranspose without groups computes in INT8 too, with one scale for its weights.
        free_channel_scales: Channel scales beside float operators cost no time that could be measured here, so they are
            always inserted; otherwise only where a network needs them (`explicit_scales`).
    """

    name: str
    activation_dtype: str
    integer_bias: bool
    quantize_outputs: bool
    int8_ops: frozenset[str]
    fold_relu: bool
    avoid_int16_saturation: bool = False
    least_scale: float = 0.0
    free_channel_scales: bool = False
    pad_channels: bool = False
    explicit_padding: bool = False
    zero_points_in_biases: bool = False
    transposed: bool = False

    def least_high(self, kind: str) -> float:
        """Return where a grid of this kind must end at the lowest, so that its scale is not too small."""
        return self.least_scale * (127 if kind == "symmetric" else 255)


INTEGER = MOVES | {"Add", "Concat", "AveragePool", "GlobalAveragePool"}


def quantized_targets() -> list[str]:
    """List the targets that have an INT8 form, sorted."""
    return targets.names(lambda row: row.qdq is not None)


def is_tensorrt(name: str) -> bool:
    """Say whether a target is one of TensorRT's."""
    row = targets.find(name)
    return row is not None and bool(row.engine)


def find_target(name: str) -> Target:
    """Return the form of a target, of the rules in its row (`runtime/targets/`).

    Raises:
        UsageError: No such target, or it has no INT8 form.
    """
    row = targets.find(name)
    if row is None or row.qdq is None:
        raise targets.unknown("quantisation target", name, quantized_targets())
    operators = INTEGER if row.qdq["quantize_outputs"] else frozenset()
    return Target(name, **{"int8_ops": operators, **row.qdq})
