"""Scenes of coloured squares with their boxes, and a detector for them whose weights are set by hand.

It answers as YOLO v8 does, (1, 4 + classes, N), with the metadata of Ultralytics' exporter. A class is a colour and a
size; a score is how much brighter a square of that colour and size is than the ring around it.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

NAMES = ("red", "green", "blue")
SIDES = (8, 12, 16)  # of a square of each class, in pixels of the input
SIDE, KERNEL, RING = 48, 24, 4
Object = tuple[int, float, float, float, float]  # class, x1, y1, x2, y2


def scene(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> tuple[np.ndarray, list[Object]]:
    """Return an image, uint8 (H, W, 3), and its objects: class, x1, y1, x2, y2; some are faint, and there is noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 12, (*size, 3))
    objects: list[Object] = []
    for _ in range(int(rng.integers(1, 5))):
        label = int(rng.integers(3))
        x, y = (int(rng.integers(0, length - SIDES[label])) for length in size[::-1])
        box = (x, y, x + SIDES[label], y + SIDES[label])
        if all(box[2] + 3 < other[1] or box[0] - 3 > other[3] or box[3] + 3 < other[2] or box[1] - 3 > other[4]
               for other in objects):  # fmt: skip
            image[y : y + SIDES[label], x : x + SIDES[label], label] += rng.uniform(50, 200)
            objects.append((label, *box))
    return np.clip(image, 0, 255).astype(np.uint8), objects


def write_yolo_folder(folder: Path, train: int = 32, val: int = 12, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """Write scenes as a YOLO folder."""
    for split, seeds in (("train", range(train)), ("val", range(1000, 1000 + val))):
        for inner in ("images", "labels"):
            (folder / inner / split).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            image, objects = scene(seed, size)
            Image.fromarray(image).save(folder / "images" / split / f"{seed}.png")
            height, width = size
            lines = [f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} "
                     f"{(y2 - y1) / height}" for label, x1, y1, x2, y2 in objects]  # fmt: skip
            (folder / "labels" / split / f"{seed}.txt").write_text("\n".join(lines))
    names = "\n".join(f"  {at}: {name}" for at, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}\n")
    return folder


def kernels() -> np.ndarray:
    """Return the weights (classes, 1, KERNEL, KERNEL): the mean of a square of the colour less that of its ring."""
    weights = np.zeros((3, 1, KERNEL, KERNEL), np.float32)
    for label, side in enumerate(SIDES):
        low, high = (KERNEL - side) // 2, (KERNEL + side) // 2
        ring = np.zeros((KERNEL, KERNEL), bool)
        ring[low - RING : high + RING, low - RING : high + RING] = True
        ring[low:high, low:high] = False
        weights[label, 0, low:high, low:high] = 1 / side**2
        weights[label, 0][ring] = -1 / ring.sum()
    return weights


def write_detector(path: Path, metadata: bool = True) -> Path:
    """Write the detector as an ONNX file; a cell that is not the best within three pixels loses its score."""
    centres = (np.arange(SIDE) + 0.5).astype(np.float32) + 0.5
    x, y = np.meshgrid(centres, centres)
    constants = {
        "w": kernels(), "gain": np.array(6.0, np.float32), "shift": np.array(2.0, np.float32),
        "flat": np.array([1, 3, SIDE**2]), "sharp": np.array(60.0, np.float32),
        "grid": np.stack([x.ravel(), y.ravel()])[None], "sides": np.array([SIDES, SIDES], np.float32)[None],
    }  # fmt: skip
    pads = [KERNEL // 2 - 1, KERNEL // 2 - 1, KERNEL // 2, KERNEL // 2]
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["map"], pads=pads, group=3),
        helper.make_node("MaxPool", ["map"], ["best"], kernel_shape=[7, 7], pads=[3] * 4),
        helper.make_node("Sub", ["best", "map"], ["gap"]),
        helper.make_node("Mul", ["gap", "sharp"], ["loss"]),
        helper.make_node("Mul", ["map", "gain"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["shifted"]),
        helper.make_node("Sub", ["shifted", "loss"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["chances"]),
        helper.make_node("Reshape", ["chances", "flat"], ["scores"]),
        helper.make_node("Mul", ["map", "sharp"], ["sharper"]),
        helper.make_node("Reshape", ["sharper", "flat"], ["rows"]),
        helper.make_node("Softmax", ["rows"], ["shares"], axis=1),
        helper.make_node("MatMul", ["sides", "shares"], ["sizes"]),
        helper.make_node("Concat", ["grid", "sizes", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "detector", [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, SIDE**2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    words = {"description": "Ultralytics YOLO model", "task": "detect", "stride": "32", "imgsz": f"[{SIDE}, {SIDE}]",
             "names": str(dict(enumerate(NAMES)))}  # fmt: skip
    for key, value in words.items() if metadata else ():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path
