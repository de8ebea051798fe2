"""The doctor on machines that are not this one, told by the files such a machine has."""

import pytest

from edgesmith.cli import _doctor
from edgesmith.cli._doctor import Component

ORIN = {
    "/proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "/var/lib/nvpmodel/status": "pmode:0002\n",
}
SAVING = {"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n"}


@pytest.fixture
def machine(monkeypatch):
    def pretend(files):
        monkeypatch.setattr(_doctor, "read_text", lambda path: files.get(str(path), ""))

    return pretend


def test_a_jetson_is_known_by_its_files(machine):
    machine(ORIN)
    found = {one.what: one for one in _doctor._jetson()}
    assert found["jetson"].found == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found["jetpack"].found == "JetPack 6 (L4T 36.4.3)"
    assert found["power mode"].found == "pmode:0002"
    assert "jetson_clocks" in found["gpu clock"].mend


def test_a_jetson_of_an_unknown_release_is_said_to_be_unknown(machine):
    machine({**ORIN, "/etc/nv_tegra_release": "something else"})
    assert {one.what: one.state for one in _doctor._jetson()}["jetpack"] == "unknown"
    machine({})
    assert _doctor._jetson() == []


def test_a_governor_that_saves_power_is_named_with_its_remedy(machine):
    machine(SAVING)
    assert _doctor._clocks() == [
        Component(
            "cpu clock", "ok", "governor powersave", "sudo cpupower frequency-set -g performance, while you measure"
        )
    ]
    machine({next(iter(SAVING)): "performance"})
    assert _doctor._clocks()[0].mend == ""


def test_a_processor_without_int8_instructions_gets_a_warning(monkeypatch):
    monkeypatch.setattr(_doctor, "cpu", lambda: ("Old CPU", frozenset({"avx2"})))
    assert "compare INT8 with FP32" in _doctor._cpu().mend
    monkeypatch.setattr(_doctor, "cpu", lambda: ("New CPU", frozenset({"avx2", "avx512_vnni"})))
    assert _doctor._cpu().mend == ""


def test_a_backend_that_breaks_is_a_finding_and_no_crash(monkeypatch):
    def broken(name):
        raise OSError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(_doctor, "usable", broken)
    assert {one.state for one in _doctor._backends()} == {"broken"}


def test_every_look_gives_findings_of_known_states():
    found = _doctor.examine()
    assert {one.state for one in found} <= {"ok", "missing", "broken", "unknown"}
    assert len({one.what for one in found}) == len(found)
    assert all(one.mend for one in found if one.state in ("missing", "broken"))
