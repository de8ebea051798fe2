"""Asking for the GPU: each way to none is NotAvailable with its reason."""

import sys

import pytest

from edgesmith.runtime.engines import gpu
from edgesmith.runtime.errors import NotAvailable, RunError


def here():
    try:
        return gpu.device_sm()
    except NotAvailable:
        return ""


@pytest.mark.skipif(bool(here()), reason="a GPU is here")
@pytest.mark.parametrize("with_cuda_python", [True, False])
def test_no_gpu_is_said_with_the_reason(with_cuda_python, monkeypatch):
    if not with_cuda_python:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
        monkeypatch.setitem(sys.modules, "cuda.cudart", None)
    with pytest.raises(NotAvailable, match="no NVIDIA GPU can be used here; got .+; do: "):
        gpu.device_sm()
    assert gpu.device_name() == ""


@pytest.mark.skipif(not here(), reason="needs an NVIDIA GPU")
def test_both_ways_name_the_same_gpu():
    assert gpu._driver_sm(0) == gpu.device_sm()
    assert gpu.device_name()


def failing():
    return (2,)


def working():
    return 0, 7


def test_a_status_is_an_error():
    with pytest.raises(RunError, match="failing failed; got 2"):
        gpu.call(failing)
    assert gpu.call(working) == 7
