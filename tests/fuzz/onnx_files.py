"""ONNX files: damaged bytes, and well-formed graphs of nonsense, through every command that reads one."""

import onnx

from edgesmith.cli.quantize import read_spec
from edgesmith.optimize import optimizer, quantize
from edgesmith.optimize.fp16 import convert
from edgesmith.optimize.graph import spec_metadata
from edgesmith.optimize.trt import preflight
from edgesmith.runtime.backends import ort
from edgesmith.runtime.common import isolation
from edgesmith.runtime.engines.build import build_engine
from fuzz import graphs
from fuzz.damage import damaged
from fuzz.harness import Case
from support.bundles import colour_net

LIMITS = isolation.Limits(15, 3 << 30)
CONTAINS = True


def material(folder):
    """Return valid models: several operators, several spellings of constants, subgraphs, weights beside the file."""
    colour_net(folder / "colours.onnx")
    return [*graphs.valid(), onnx.load(folder / "colours.onnx")]


def case(rng, material, folder):
    path, out = folder / "in.onnx", folder / "out.onnx"
    source = onnx.ModelProto()
    source.CopyFrom(material[rng.integers(len(material))])
    if rng.integers(3):
        label = graphs.spoiled(rng, source, folder)
        data = source.SerializeToString()
        if rng.integers(10) == 0:
            label, data = f"{label}, {damaged(rng, data)[0]}", damaged(rng, data)[1]
    else:
        label, data = damaged(rng, source.SerializeToString())
    path.write_bytes(data)
    at = int(rng.choice(len(USES), p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.09, 0.01]))
    use = USES[at]
    made = ("out.onnx", "out.onnx.data", "out.engine", "out.engine.json")
    return Case(f"{use.__name__}: {label}", lambda: use(path, out), made)


def optimised(path, out):
    optimizer.optimize(path, out)


def optimised_for_x86(path, out):
    optimizer.optimize(path, out, target="ort-x86", batch=1)


def unverified(path, out):
    optimizer.optimize(path, out, target="trt", verify=False, fold_inputs=True)


def halved(path, out):
    convert.to_fp16(path, out, images(path))


def quantised(path, out):
    quantize.quantize(path, out, images(path), target="ort-x86", allow_random=True, min_images=1)


def checked(path, out):
    preflight.check(path, "fp16", ["8.6"])
    spec_metadata.count_nodes(path)
    read_spec(path)


def computed(path, out):
    with ort.open(path, threads=1) as session:
        session.run(graphs.feeds(session))


def built(path, out):
    preflight.require(preflight.check(path, "fp32", ["8.6"]), path)
    build_engine(path, out.with_suffix(".engine"), sm="8.6", timeout_s=30)


def images(path):
    """Make inputs for the calibrating commands out of what the file says its input is."""
    from edgesmith.cli.quantize import _random

    return _random(path, 2)


USES = (optimised, optimised_for_x86, unverified, halved, quantised, checked, computed, built)
