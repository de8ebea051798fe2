"""Small bundles for tests: a three-class colour classifier as ONNX, made by hand so that its answer is known."""

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from edgesmith.optimize.graph import spec_metadata
from edgesmith.runtime import bundle
from edgesmith.runtime.backends import ort
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.verify import replay

SIDE = 16
LABELS = ("red", "green", "blue")
SPEC = ModelSpec(
    "colours",
    input_shape=(3, SIDE, SIDE),
    num_classes=3,
    preprocess=Preprocess(crop=(SIDE, SIDE), resize=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    labels=LABELS,
)


def colour_net(path: Path, batch: "int | str" = "N", gain: float = 4.0) -> Path:
    """Write a network whose logits are `gain` times the mean of each channel: the brightest channel wins."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        colours (float[{batch}, 3, {SIDE}, {SIDE}] input) => (float[{batch}, 3] output)
        <float gain = {{{gain}}}> {{
            pooled = GlobalAveragePool(input)
            flat = Flatten(pooled)
            output = Mul(flat, gain)
        }}""")
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def golden_inputs(count: int = 4) -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(0).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)}


def colour_bundle(folder: Path, *, batch: "int | str" = "N") -> bundle.Bundle:
    """Write a bundle of the colour network in FP32, and a second artefact that claims to be INT8 for ORT on x86."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    items = []
    for precision, target in (("fp32", "generic"), ("int8", "ort-x86")):
        path = colour_net(folder.parent / f"colours-{precision}.onnx", batch)
        with ort.open(path, threads=1) as session:
            outputs = replay(session, golden_inputs())
        items.append(bundle.Item(path, precision=precision, target=target, golden=outputs))
    return bundle.write(
        folder, SPEC, items, golden_inputs=golden_inputs(), provenance={"weights": "by hand"}, licence="Apache-2.0"
    )


def picture(colour: str, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    """Return a noisy picture, uint8 (height, width, 3), in which one channel is brightest."""
    image = np.random.default_rng(1).integers(0, 90, (*size, 3)).astype(np.uint8)
    image[..., LABELS.index(colour)] += 120
    return image


def shaded(colour: str, number: int) -> np.ndarray:
    """A picture like a photo: neighbouring pixels alike, one channel brightest."""
    rows, columns = np.mgrid[:40, :30]
    waves = 40 * np.sin(rows / (4 + number) + number) + 30 * np.cos(columns / (3 + number))
    image = np.repeat((80 + waves)[..., None], 3, axis=2)
    image[..., LABELS.index(colour)] += 90
    return image.astype(np.uint8)


def colour_project(folder: Path) -> Path:
    """Write what a user has: `net.onnx`, with a convolution and its spec, and the folder `images` by class."""
    model = onnx.load(colour_net(folder / "net.onnx", batch=1))
    weight = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32)[..., None, None], "w")
    model.graph.initializer.append(weight)
    model.graph.node.insert(0, onnx.helper.make_node("Conv", ["input", "w"], ["mixed"], name="mix"))
    model.graph.node[1].input[0] = "mixed"
    spec_metadata.write(model, SPEC)
    onnx.save(model, folder / "net.onnx")
    for colour in LABELS:
        (folder / "images" / colour).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(shaded(colour, number)).save(folder / "images" / colour / f"{number}.png")
    return folder / "net.onnx"
