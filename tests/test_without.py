"""With nothing but what the package always needs, a command works, or says what to install and ends with 3."""

import shutil
import subprocess
import sys

import pytest
from PIL import Image

from support.bundles import colour_bundle, colour_net, picture
from support.patience import PATIENCE_S

OPTIONAL = ("torch", "onnxscript", "safetensors", "onnx", "onnx_graphsurgeon", "onnxruntime", "ml_dtypes", "openvino",
            "cryptography", "tensorrt", "tensorrt_rtx_bindings", "cuda", "cv2", "distributed", "matplotlib",
            "pyarrow", "cyclonedx")  # fmt: skip
RUN = f"""import sys
for name in {OPTIONAL}:
    sys.modules[name] = None  # what `import` then raises is what it raises where nothing is installed
import edgesmith.cli
edgesmith.cli.main(sys.argv[1:])
"""
NEEDS = {
    "describe lenet5": "export", "describe net.onnx": "optimize", "train lenet5": "export", "export lenet5": "export",
    "export lenet5 --weights random": "export", "optimize net.onnx -o o.onnx": "optimize",
    "quantize net.onnx -o q.onnx --data digits --target ort-x86": "optimize",
    "quantize net.onnx -o q.onnx --data digits --target fp16": "optimize", "build net.onnx -o n.engine": "optimize",
    "run b p.png": "ort", "run b p.png --device openvino": "openvino", "run b --source p.mp4": "ort",
    "verify b": "ort", "keygen k": "sign", "sign b --key p.png": "sign", "verify b --key p.png": "sign",
    "bench net.onnx --out r.json": "ort", "bench b --out r.json": "ort", "gate net.onnx --baseline net.onnx": "ort",
    "sweep lenet5 --out s": "export", "sweep b --out s": "ort", "models --plot m.svg": "figures",
}  # fmt: skip
WORK = ("models", "doctor", "pack b --zip b.zip")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without")
    colour_bundle(folder / "made" / "b")
    shutil.move(folder / "made" / "b", folder / "b")
    colour_net(folder / "net.onnx")
    Image.fromarray(picture("red")).save(folder / "p.png")
    return folder


def command(line, place):
    words = [sys.executable, "-c", RUN, *line.split()]
    return subprocess.run(words, capture_output=True, text=True, cwd=place, timeout=PATIENCE_S)


@pytest.mark.parametrize("line", NEEDS)
def test_what_a_command_needs_is_named(line, place):
    done = command(line, place)
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert "unexpected" not in said
    assert "not installed" in said
    assert f"pip install 'edgesmith[{NEEDS[line]}]'" in " ".join(said.split())


@pytest.mark.parametrize("line", WORK)
def test_what_needs_nothing_works(line, place):
    done = command(line, place)
    assert done.returncode == 0, done.stderr
