"""The smallest network of each family all the way: export, passes, INT8, ONNX Runtime, and an FP16 engine of some."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch

from edgesmith.export import parity, to_onnx
from edgesmith.models import catalog, weights
from edgesmith.optimize import optimizer, quantize
from edgesmith.optimize.fp16 import convert
from edgesmith.runtime import datasets
from edgesmith.runtime.backends import ort
from edgesmith.runtime.engines import build
from edgesmith.runtime.errors import CheckFailed
from edgesmith.runtime.verify import relative_error

torch.set_num_threads(1)

SMALLEST = {
    "alexnet": "zfnet", "other_tasks": "tdnn", "convnext": "convnext_tiny", "densenet": "densenet121",
    "efficientnet": "efficientnet_b0", "efficientnet_lite": "efficientnet_lite0",
    "edgenext": "edgenext_xx_small", "ghostnet": "ghostnet_050", "googlenet": "googlenet_noaux",
    "inception_v3": "inception_v3", "inception_v4": "inception_v4", "lenet": "lenet5", "mnasnet": "mnasnet0_5",
    "mobilenet_v1": "mobilenetv1_0.25",
    "mobilenet_v2": "mobilenetv2_0.35", "mobilenet_v3": "mobilenetv3_small",
    "mobilenet_v4": "mobilenetv4_conv_small", "mobileone": "mobileone_s0",
    "nasnet": "nasnet_mobile", "nin": "nin_bn", "regnet": "regnet_y_400mf", "repvgg": "repvgg_a0",
    "resnet": "resnet18", "resnet_cifar": "resnet20_cifar", "resnet_v2": "resnet50_v2",
    "segmentation": "unet_small", "senet": "se_resnet50", "shufflenet_v1": "shufflenetv1_g3_0.25",
    "deeplab": "deeplabv3_mobilenetv3", "fcos": "fcos_resnet18", "retinanet": "retinanet_resnet18",
    "ssd": "ssd300_vgg16", "yolox": "yolox_nano", "espcn": "espcn_x2", "crnn": "crnn", "db": "db_resnet18",
    "ssdlite": "ssdlite_mobilenetv2", "lraspp": "lraspp_mobilenetv3",
    "shufflenet_v2": "shufflenetv2_x0_5", "squeezenet": "squeezenet1_1", "vgg": "vgg11_bn", "vit": "vit_b_16",
}  # fmt: skip
MORE = ("conv3d", "autoencoder", "localiser", "dilated_context")
# Too large for CI; `make zoo-table` takes them all the way, and the meta device their figures.
LARGE = {
    "efficientnet_lite0",
    "zfnet",
    "vgg11_bn",
    "vit_b_16",
    "inception_v3",
    "inception_v4",
    "convnext_tiny",
    "nasnet_mobile",
    "se_resnet50",
    "resnet50_v2",
    "fcos_resnet18",
    "retinanet_resnet18",
    "ssd300_vgg16",
}
NAMES = [name for name in (*SMALLEST.values(), *MORE) if name not in LARGE]
ENGINES = {"mobilenetv1_0.25", "unet_small", "lenet5"}


def test_every_family_is_there():
    assert set(SMALLEST) == {catalog.find_network(name).family for name in catalog.network_names()}
    assert all(catalog.find_network(name).family == family for family, name in SMALLEST.items())


def small(name):
    """Return the spec of a network on small inputs, and inputs: digits where it takes images."""
    entry = catalog.find_network(name)
    if len(entry.input_shape) != 3:
        spec = catalog.network_spec(name)
        return spec, np.random.default_rng(0).standard_normal((32, *spec.input_shape)).astype(np.float32)
    spec = catalog.network_spec(name, "digits" if entry.row.get("task", "classify") == "classify" else "random")
    side = min(spec.input_shape[1], 64 if "inception" not in name else 96)
    shape, crop = (spec.input_shape[0], side, side), dataclasses.replace(spec.preprocess, crop=(side, side), resize=0)
    spec = dataclasses.replace(spec, input_shape=shape, preprocess=crop)
    images = datasets.load("digits", "calibration", calibration=32)
    return spec, np.concatenate(list(images.batches(spec)))


# tests/export/test_tasks.py takes the first four from the command to the bundle; the others are half a minute each.
REPEATS = {"tdnn", "conv3d", "autoencoder", "localiser"} | {
    "edgenext_xx_small", "ghostnet_050", "mobilenetv4_conv_small", "mobileone_s0", "repvgg_a0",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.nightly if name in REPEATS else pytest.mark.slow) for name in NAMES],
)
def test_a_network_goes_all_the_way(name, tmp_path):
    spec, images = small(name)
    module = catalog.build_network(name, spec.num_classes)
    spec = weights.load_into(module, spec, "random")
    weights.warm_up_batchnorm(module, spec.input_shape)
    raw, fp32, int8 = (tmp_path / f"{stem}.onnx" for stem in ("raw", "fp32", "int8"))
    batches = [images[at : at + 1] for at in range(len(images))]
    to_onnx.export(module, spec, raw)
    parity.check(module, raw, spec)
    report = optimizer.optimize(raw, fp32, samples=batches[:1])
    assert report.check.verdict == "equal"
    assert report.after.nodes <= report.before.nodes
    plain = quantize.QuantSettings(equalize=None, refine=False, noise=0.0)
    quantize.quantize(fp32, int8, batches, target="ort-x86", allow_random=True, settings=plain)
    found = {path: answer(path, images[:1]) for path in (raw, fp32, int8)}
    assert relative_error(found[fp32], found[raw]) < 1e-4
    assert relative_error(found[int8], found[raw]) < 0.5
    if name in ENGINES and importlib.util.find_spec("tensorrt_rtx_bindings"):
        convert.to_fp16(fp32, tmp_path / "fp16.onnx", batches[:2])
        assert build.build_engine(tmp_path / "fp16.onnx", tmp_path / "e", sm="8.6", precision="fp16").sm == "8.6"


def answer(path, images):
    with ort.open(path, threads=1) as session:
        return next(iter(session.run({session.inputs[0].name: images}).values()))


def test_another_network_s_file_does_not_pass(tmp_path):
    spec, images = small("lenet5")
    module = catalog.build_network("lenet5", spec.num_classes)
    weights.load_into(module, spec, "random")
    raw = to_onnx.export(module, spec, tmp_path / "raw.onnx")
    with torch.no_grad():
        module.classifier[-1].weight.mul_(1.01)
    with pytest.raises(CheckFailed, match="differs from the PyTorch module"):
        parity.check(module, raw, spec)
    assert relative_error(-answer(raw, images[:1]), answer(raw, images[:1])) > 0.5
