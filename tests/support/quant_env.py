"""An environment for the peers of `make bench-quant`: their own packages, with our torch and runtimes beside them.

Peers are installed without their requirements, which would bring other versions of what is compared; what they import
of those stands in NEEDED. Every step has a time limit. A peer that cannot be installed or imported is named with the
reason, and tried again on the next call.
"""

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version

from beside_ours import python_beside_ours

from edgesmith.runtime.common.files import atomic_file

PEERS = {"nncf": "nncf==3.4.0", "modelopt": "nvidia-modelopt==0.47.0", "quark": "amd-quark==0.13"}
IMPORTS = {
    "nncf": "import sys; sys.modules['openvino_telemetry'] = None; import nncf, nncf.onnx.quantization",
    "modelopt": "from modelopt.onnx.quantization import quantize",
    "quark": "from quark.onnx import ModelQuantizer",
}
NEEDED = (
    "tqdm", "cppimport", "lief", "pulp", "omegaconf", "pydantic", "regex", "nvidia-ml-py", "natsort", "jsonschema",
    "openvino-telemetry", "psutil", "safetensors", "tabulate", "networkx<3.5", "scipy", "pydot", "jstyleson", "ninja",
    "pandas", "onnxslim", "zstandard", "joblib",
)  # fmt: skip
# Never installed again: what every quantiser here has to share.
OURS = ("numpy", "onnx", "onnxruntime", "openvino", "protobuf", "torch")
# Quark compiles its operators at the first import.
INSTALL_SECONDS, IMPORT_SECONDS = 600, 900


def variables(folder):
    """Return the variables that a peer runs with: what it compiles is kept beside it."""
    return {**os.environ, "TORCH_EXTENSIONS_DIR": str((folder / "extensions").resolve())}


def environment(folder):
    """Return the Python of the peers' environment, and of each peer that is not usable the reason."""
    state, python = folder / "peers.json", folder / "peers" / "bin" / "python"
    wanted = hashlib.sha256(json.dumps([PEERS, NEEDED, sys.version]).encode()).hexdigest()
    found = json.loads(state.read_text()) if state.exists() else {}
    if not python.exists() or found.get("key") != wanted:
        python_beside_ours(folder / "peers")
        found = {"key": wanted, "missing": dict.fromkeys(PEERS, "not yet installed")}
    if found["missing"]:
        for lock in (folder / "extensions").glob("*/lock"):
            lock.unlink()  # of a compilation that was killed: the next one would wait for it for ever
        found["missing"] = _installed(python, folder, found["missing"])
        with atomic_file(state) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
    return python, found["missing"]


def _installed(python, folder, missing):
    """Install peers; return those that then cannot be imported, with the reason."""
    constraints, given = folder / "ours.txt", variables(folder)
    constraints.write_text("".join(f"{name}=={version(name)}\n" for name in OURS))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", "30"]
    failed = _failure([*pip, "-c", constraints, *NEEDED], INSTALL_SECONDS, given)
    reasons = {}
    for name in missing:
        why = _failure([*pip, "--no-deps", PEERS[name]], INSTALL_SECONDS, given)
        why = why or _failure([python, "-c", IMPORTS[name]], IMPORT_SECONDS, given)
        if why:
            reasons[name] = f"{why} (before that: {failed})" if failed else why
            print(f"{name} cannot be measured: {reasons[name]}", flush=True)  # noqa: T201
    return reasons


def _failure(command, seconds, given):
    """Run a command; return why it failed, in one line, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=given)
    except subprocess.TimeoutExpired:
        return f"took longer than {seconds} s"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return (said or [f"ended with {done.returncode}"])[-1][:200] if done.returncode else ""
