"""Small networks with several inputs, whose right answers are known in numpy, and bundles of them."""

import numpy as np
import onnx

from edgesmith.runtime import bundle
from edgesmith.runtime.backends import ort
from edgesmith.runtime.spec import InputSpec, ModelSpec, Preprocess
from edgesmith.runtime.verify import replay

RNG = np.random.default_rng(0)
COUNT = 6
IMAGES = RNG.random((COUNT, 1, 4, 6)).astype("f4")


def scaled(image, scale):
    """Boxes divided by a scale factor, as PP-YOLOE has it; batch first."""
    return {"boxes": image.mean((1, 3))[:, :2] / scale}


def pair(a, b):
    """How alike two images are: (N,)."""
    return {"alike": (a * b).sum((1, 2, 3))}


def sequence(image, gain):
    """(time 6, batch, class 4), as recognisers have it."""
    return {"logits": (image[:, 0] * gain[:, :, None]).transpose(2, 0, 1)}


def some(image, level):
    """The pixels above a level in all images together: no batch axis."""
    return {"places": np.argwhere(image > level.reshape(-1, 1, 1, 1))}


def looked_up(image, at):
    """A row of a table with three rows by an index, added to the mean."""
    return {"output": image.mean((1, 2, 3))[:, None] + np.arange(6, dtype="f4").reshape(3, 2)[at[:, 0]]}


ONE = "float[{n},1,4,6]"
# answer in numpy, the inputs with their arrays, the graph, the outputs
NETS = {
    "scaled": (scaled, {"image": IMAGES, "scale": RNG.random((COUNT, 2)).astype("f4") + 1},
               "mean = ReduceMean<axes=[1,3],keepdims=0>(image) two = Slice(mean, zero, end, one)"
               "boxes = Div(two, scale)", "float[{n},2] boxes"),
    "pair": (pair, {"a": IMAGES, "b": IMAGES[::-1].copy()},
             "both = Mul(a, b) alike = ReduceSum<keepdims=0>(both, rest)", "float[{n}] alike"),
    "sequence": (sequence, {"image": IMAGES, "gain": RNG.random((COUNT, 4)).astype("f4")},
                 "sq = Squeeze(image, one) wide = Unsqueeze(gain, two_axis) more = Mul(sq, wide)"
                 "logits = Transpose<perm=[2,0,1]>(more)", "float[6,{n},4] logits"),
    "some": (some, {"image": IMAGES, "level": np.linspace(0.5, 0.9, COUNT).astype("f4")[:, None]},
             "tall = Unsqueeze(level, last) more = Greater(image, tall) at = NonZero(more) places = Transpose(at)",
             "int64[n,4] places"),
    "looked_up": (looked_up, {"image": IMAGES, "at": RNG.integers(0, 3, (COUNT, 1))},
                  "flat = ReduceMean<axes=[1,2,3],keepdims=0>(image) mean = Unsqueeze(flat, one) sq = Squeeze(at, one)"
                  "row = Gather(table, sq) output = Add(mean, row)", "float[{n},2] output"),
}  # fmt: skip
CONSTS = (
    "int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {2}, int64[3] rest = {1,2,3}, int64[1] two_axis = {2},"
    "int64[2] last = {2,3}, float[3,2] table = {0,1,2,3,4,5}"
)


def write_net(path, kind, batch):
    """Write one of NETS; `batch` is a number or the name of a free one."""
    _, arrays, text, outputs = NETS[kind]
    types = {"f": "float", "i": "int64"}
    inputs = ", ".join(
        f"{types[array.dtype.kind]}[{','.join(map(str, (batch, *array.shape[1:])))}] {name}"
        for name, array in arrays.items()
    )
    head = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs.replace("{n}", str(batch))})'
    model = onnx.parser.parse_model(f"{head} <{CONSTS}> {{ {text} }}")
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def spec_of(kind, task="features"):
    """Return the spec of one of NETS."""
    function, arrays, *_ = NETS[kind]
    first, *others = (InputSpec(name, array.shape[1:], array.dtype.name) for name, array in arrays.items())
    return ModelSpec(
        kind, first.shape, 2, task=task, input_name=first.name, output_names=tuple(function(**arrays)),
        preprocess=Preprocess((4, 6), 0, mean=(0.5,), std=(0.5,), channels="GRAY"), other_inputs=tuple(others),
    )  # fmt: skip


def head(kind, count):
    """Return the first samples of a network's inputs."""
    return {name: array[:count] for name, array in NETS[kind][1].items()}


def write_bundle(folder, kind, batch, task="features", forms=(("fp32", "generic"),)):
    """Write a bundle of one of NETS, with golden outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    feeds, items = head(kind, batch if isinstance(batch, int) else 2), []
    for precision, target in forms:
        path = write_net(folder / f"{kind}-{precision}.onnx", kind, batch)
        with ort.open(path, threads=1) as session:
            items.append(bundle.Item(path, precision=precision, target=target, golden=replay(session, feeds)))
    return bundle.write(folder / "b", spec_of(kind, task), items, golden_inputs=feeds)
