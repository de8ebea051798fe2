"""Weak or strong typing, decided by what the module has: precision flags, and network creation flags."""

from types import SimpleNamespace

import pytest

from edgesmith.runtime.engines import _network, flavour
from edgesmith.runtime.errors import NotAvailable

# The enums of each line of TensorRT, as its Python documentation lists them: (builder flags, creation flags).
LINES = {
    "8.5": (["FP16", "INT8"], {"EXPLICIT_BATCH": 0}),
    "10": (["FP16", "INT8", "BF16"], {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}),
    "11": ([], {"STRONGLY_TYPED": 1}),
    "rtx": ([], {"STRONGLY_TYPED": 0}),
}
# (line, precision) -> (precision flags or None for strong typing, creation bits)
CHOSEN = {
    ("8.5", "fp32"): ([], 1), ("8.5", "fp16"): (["FP16"], 1), ("8.5", "int8"): (["INT8", "FP16"], 1),
    ("10", "int8"): (["INT8", "FP16"], 1), ("10", "bf16"): (["BF16"], 1),
    ("11", "bf16"): (None, 2), ("11", "fp16"): (None, 2), ("11", "int8"): (None, 2),
    ("rtx", "int8"): (None, 1),
}  # fmt: skip


def module_of(line):
    names, creation = LINES[line]
    return SimpleNamespace(
        BuilderFlag=SimpleNamespace(**dict.fromkeys(names, 0)),
        NetworkDefinitionCreationFlag=SimpleNamespace(**creation),
    )


def test_bf16_is_refused_where_there_is_none():
    with pytest.raises(NotAvailable, match="this TensorRT has no BF16; .*build FP16 instead"):
        _network._weak_flags(flavour.probe_features(module_of("8.5")), "bf16")


@pytest.mark.parametrize(("line", "precision"), CHOSEN)
def test_the_typing_follows_the_features(line, precision):
    module = module_of(line)
    features = flavour.probe_features(module)
    weak = _network._weak_flags(features, precision)
    assert (weak, _network._creation_flags(module, features, weak)) == CHOSEN[line, precision]
