"""The kernel list of a build: read off a line as TensorRT writes it, and turned into what the convolutions got."""

import json

import pytest

from edgesmith.runtime.engines.kernels import Kernel, KernelTensor, attest, nodes_of, parse_inspector, parse_log

LINE = (
    "Name: stem_U21_myl0_1, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,3,32,32], Strides: [3072,1],"
    " StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major }], Constants: [ { Name: w, Dimensions:"
    " [16,3,3,3], Strides: [27,1,9,3], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) }], Outputs: [ { Name: o,"
    " Dimensions: [1,16,32,32], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (NHWC) }], TacticName: __x,"
    " StreamId: 0, Metadata: [ONNX Layer: stem]\x1f[ONNX Layer: layer[0]/relu]"
)


def kernel(name, kind, dtype, nodes, out="fp32"):
    return Kernel(name, kind, (KernelTensor("i", (1,), dtype),), (), (KernelTensor("o", (1,), out),), tuple(nodes))


def generated(name, weights, *nodes, shape=(96, 4, 1, 1)):
    """A generated kernel as an EfficientNet's squeeze-and-excite unit gets it: float in and out."""
    constants = (
        KernelTensor("scale", (1, 96, 1, 1), "fp32"),
        KernelTensor("w", shape, weights),
        KernelTensor("bias", (1, 96), "fp16"),
    )
    return Kernel(
        name, "kgen", (KernelTensor("i", (1, 4, 1, 1), "fp32"),), constants, (KernelTensor("o", (1,), "fp16"),), nodes
    )


def test_a_line_is_read():
    (found,) = parse_log(f"Layers:\n{LINE}\n\nI/O Tensors:\n Name: x, IOMode: Input, LayerType: no\n")
    assert (found.name, found.kind, found.precision) == ("stem_U21_myl0_1", "correlation", "int8")
    assert found.inputs[0] == KernelTensor("a", (1, 3, 32, 32), "int8")
    assert found.constants[0].dims == (16, 3, 3, 3)
    assert found.outputs[0].dtype == "fp32"
    assert found.nodes == ("stem", "layer[0]/relu")
    assert Kernel.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("text", "names"),
    {
        "none": ("", ()),
        "one": ("[ONNX Layer: a]", ("a",)),
        "brackets in the name": ("[ONNX Layer: a[1]]\x1e[ONNX Layer: b]", ("a[1]", "b")),
        "a word appended": ("[ONNX Layer: a]__gemm_from_conv1x1\x1f[ONNX Layer: b]", ("a", "b")),
        "a trailing blank": ("[ONNX Layer: a] ", ("a",)),
    }.values(),
)
def test_names_are_split(text, names):
    assert nodes_of(text) == names


ATTESTED = {
    "int8": ([kernel("conv_U1", "correlation", "int8", ["conv"])], "int8"),
    "the convolution, not its epilogue": (
        [kernel("q", "kgen", "fp32", ["conv"], "int8"), kernel("conv_U1", "correlation", "int8", ["conv"])], "int8"),
    "named before mentioned": (
        [kernel("other", "correlation", "int8", ["conv"]), kernel("conv_U1", "correlation", "fp16", ["conv"])], "fp16"),
    "fused into a pointwise kernel": ([kernel("k", "kgen", "fp16", ["conv"])], "fp16"),
    "rounded and convolved in one kernel": ([generated("__myl_SiluMinMaxRounCastCorrMul", "int8", "conv")], "int8"),
    "its kernel before that of its bias": (
        [kernel("__myl_MoveSigmMul", "kgen", "fp16", ["conv"]),
         generated("__myl_SiluMinMaxRounCastCorrMul", "int8", "conv")], "int8"),
    "integers turned into floats before": ([generated("__myl_RounCastCastMulCorr", "int8", "conv")], "fp32"),
    "rounded, with float weights": ([generated("__myl_MinMaxRounCastCorrMul", "fp32", "conv")], "fp32"),
    "INT8 only in a scale": ([generated("__myl_RounCastCorr", "int8", "conv", shape=(1, 96, 1, 1))], "fp32"),
    "gone": ([kernel("k", "kgen", "fp16", ["x"])], "folded"),
}  # fmt: skip


@pytest.mark.parametrize("case", ATTESTED)
def test_what_a_convolution_got(case):
    kernels, expected = ATTESTED[case]
    assert attest(kernels, {"conv": "int8"}).got == {"conv": expected}


def test_missed_names_only_the_ones_that_differ():
    kernels = [kernel("a_U", "correlation", "int8", ["a"]), kernel("b_U", "correlation", "fp32", ["b"])]
    facts = attest(kernels, {"a": "int8", "b": "int8"})
    assert facts.missed == {"b": "fp32"}
    assert facts.sentence("int8") == "requested INT8: 1 of 2 convolutions INT8, 2 kernels"
    assert attest(kernels, {"a": "float", "b": "float"}).missed == {"a": "int8"}


def test_requantisations_are_the_kernels_that_only_write_int8():
    kernels = [kernel("q", "kgen", "fp32", [], "int8"), kernel("c", "correlation", "int8", [], "int8")]
    assert attest(kernels, {}).requantisations == 1


def test_what_only_orders_streams_is_no_kernel():
    kernels = [
        kernel("c", "correlation", "int8", ["c"]),
        *(Kernel(name, name, (), (), ()) for name in ("signal", "wait")),
    ]
    facts = attest(kernels, {"c": "int8"})
    assert (facts.kernels, facts.synchronisations, facts.kinds) == (1, 2, {"correlation": 1})


def test_the_inspectors_json_is_read():
    text = """{"Layers": [{"Name": "stem + relu", "LayerType": "CaskConvolution", "ParameterType": "Convolution",
      "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8],
                  "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
      "Outputs": [{"Name": "y", "Dimensions": [1, 4, 8, 8], "Format/Datatype": "Row major linear FP32"}]}],
      "Bindings": []}"""
    (found,) = parse_inspector(text)
    assert (found.kind, found.precision, found.nodes) == ("convolution", "int8", ("stem", "relu"))
    assert attest([found], {"stem": "int8"}).missed == {}
