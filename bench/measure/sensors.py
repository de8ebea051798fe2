"""The machine's sensors: energy, power, temperature, clocks, throttling.

Read from files of the kernel, and from NVML if `pynvml` is installed and there is an NVIDIA GPU:

    energy_j         /sys/class/powercap/intel-rapl:N/energy_uj  (RAPL, Intel and AMD; often only for root)
    power_w          /sys/class/hwmon/*/name = ina3221: in*_input mV times curr*_input mA  (Jetson)
    temperature_c    /sys/class/thermal/thermal_zone*/temp, hwmon k10temp and coretemp, in thousandths
    clock_hz         /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq in kHz, else /proc/cpuinfo
    throttled_count  /sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count

Sources: Linux kernel documentation, power/powercap, hwmon/ina3221, hwmon/sysfs-interface, thermal/sysfs-api; NVML API.
A file that is absent or not readable is not a sensor.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import clock

EVERY_S = 0.05
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VIN_SYS")  # INA3221 rails that hold all the others


@dataclass(frozen=True)
class Sensor:
    """One quantity of one component; `wraps` is the value at which a counter wraps to zero, 0 if it never does."""

    name: str
    quantity: str
    read: Callable[[], float | None] = field(compare=False)
    wraps: float = 0.0


@dataclass
class Trace:
    """The readings of the sensors: for each, (seconds since the start, value)."""

    samples: dict[Sensor, list[tuple[float, float]]]

    def of(self, quantity: str) -> list[tuple[Sensor, list[tuple[float, float]]]]:
        """Return the series of one quantity that have a value."""
        return [(sensor, series) for sensor, series in self.samples.items() if sensor.quantity == quantity and series]

    def values(self, quantity: str) -> list[float]:
        """Return every value of one quantity, of all its sensors."""
        return [value for _, series in self.of(quantity) for _, value in series]

    def rise(self, quantity: str) -> float | None:
        """Return the total increase of the counters of a quantity; None if there is none."""
        series = self.of(quantity)
        return sum(_rise(sensor, values) for sensor, values in series) if series else None

    def power_w(self) -> float | None:
        """Return the mean power from energy counters, otherwise from power readings; None if there are neither."""
        counters = [item for item in self.of("energy_j") if len(item[1]) > 1]
        if counters:
            return sum(_rise(sensor, series) / (series[-1][0] - series[0][0]) for sensor, series in counters)
        meters = [series for _, series in self.of("power_w")]
        return sum(float(np.mean([value for _, value in series])) for series in meters) if meters else None


def _rise(sensor: Sensor, series: Sequence[tuple[float, float]]) -> float:
    steps = np.diff([value for _, value in series])
    return float(np.where(steps < 0, steps + sensor.wraps, steps).sum())


@contextlib.contextmanager
def watch(sensors: Sequence[Sensor], every_s: float = EVERY_S) -> Iterator[Trace]:
    """Read the sensors at the start, periodically in a separate thread, and at the end."""
    trace, stop, began = Trace({sensor: [] for sensor in sensors}), threading.Event(), clock.now_ns()

    def look() -> None:
        for sensor, series in trace.samples.items():
            if (value := sensor.read()) is not None:
                series.append(((clock.now_ns() - began) * 1e-9, value))

    def keep_looking() -> None:
        while not stop.wait(every_s):
            look()

    look()
    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield trace
    finally:
        stop.set()
        thread.join()
        look()


def find_sensors(root: Path = Path("/"), *, cards: bool = True) -> list[Sensor]:
    """List the sensors that can be read now.

    Args:
        root: Folder that contains /sys and /proc.
        cards: Also query NVML.
    """
    sensors = [*_rapl(root), *_ina3221(root), *_temperatures(root), *_clocks(root), *_throttling(root)]
    if cards:
        sensors += _nvml()
    return [sensor for sensor in sensors if sensor.read() is not None]


def _number(path: Path, scale: float = 1.0) -> Callable[[], float | None]:
    def read() -> float | None:
        try:
            return float(path.read_text()) * scale
        except (OSError, ValueError):
            return None

    return read


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _rapl(root: Path) -> Iterator[Sensor]:
    """Package domains only: their core and memory subdomains would be counted twice."""
    for domain in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        if (name := _text(domain / "name")).startswith("package"):
            wraps = _number(domain / "max_energy_range_uj", 1e-6)() or 0.0
            yield Sensor(name, "energy_j", _number(domain / "energy_uj", 1e-6), wraps)


def _ina3221(root: Path) -> Iterator[Sensor]:
    rails: dict[str, Sensor] = {}
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _text(chip / "name") == "ina3221":
            for label in sorted(chip.glob("in*_label")):
                number = label.name[2:].removesuffix("_label")
                volts, amperes = (_number(chip / f"{kind}{number}_input", 1e-3) for kind in ("in", "curr"))
                rails[_text(label)] = Sensor(_text(label), "power_w", _product(volts, amperes))
    whole = [sensor for name, sensor in rails.items() if name.startswith(WHOLE_BOARD)]
    yield from whole or [sensor for name, sensor in rails.items() if name and not name.startswith("sum of")]


def _product(one: Callable[[], float | None], other: Callable[[], float | None]) -> Callable[[], float | None]:
    def read() -> float | None:
        first, second = one(), other()
        return None if first is None or second is None else first * second

    return read


def _temperatures(root: Path) -> Iterator[Sensor]:
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        yield Sensor(_text(zone / "type") or zone.name, "temperature_c", _number(zone / "temp", 1e-3))
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if (name := _text(chip / "name")) in ("k10temp", "coretemp"):
            yield Sensor(name, "temperature_c", _number(chip / "temp1_input", 1e-3))


def _clocks(root: Path) -> Iterator[Sensor]:
    files = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    for file in files:
        yield Sensor(file.parts[-3], "clock_hz", _number(file, 1e3))
    if not files:
        yield Sensor("cpu", "clock_hz", lambda: _cpuinfo_clock(root / "proc/cpuinfo"))


def _cpuinfo_clock(path: Path) -> float | None:
    rates = [line.partition(":")[2] for line in _text(path).splitlines() if line.startswith("cpu MHz")]
    return max(float(rate) for rate in rates) * 1e6 if rates else None


def _throttling(root: Path) -> Iterator[Sensor]:
    for file in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")):
        yield Sensor(file.parts[-3], "throttled_count", _number(file))


def _nvml() -> list[Sensor]:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no package, no driver or no card: all mean that NVML reports nothing here
        return []
    return [sensor for index, handle in enumerate(handles) for sensor in _card(pynvml, index, handle)]


def card_bytes(pid: int) -> int | None:
    """Return the memory of a process on all GPUs, in bytes; None if NVML does not report it."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        every = [one for handle in handles for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except Exception:  # no package, no driver or no card, as above
        return None
    return process_bytes([(one.pid, one.usedGpuMemory) for one in every], pid)


def process_bytes(processes: Sequence[tuple[int, int | None]], pid: int) -> int | None:
    """Sum the bytes of one process over pairs (process, bytes or None); None where the driver reports no bytes."""
    own = [size for process, size in processes if process == pid and size is not None]
    return sum(own) if own else None


def _card(nvml: Any, index: int, handle: Any) -> list[Sensor]:
    reads: dict[str, Callable[[], float]] = {
        "energy_j": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3,
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "clock_hz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 1e6,
    }
    return [Sensor(f"gpu{index}", quantity, _guarded(read)) for quantity, read in reads.items()]


def _guarded(read: Callable[[], float]) -> Callable[[], float | None]:
    def guarded() -> float | None:
        try:
            return float(read())
        except Exception:  # NVML's own errors: not supported on this card
            return None

    return guarded
