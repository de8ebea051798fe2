"""Sensors on trees of files as the kernel's documentation lays them out; what energy and conditions make of them."""

import itertools

import pytest

from edgesmith.bench.measure import sensors
from edgesmith.bench.measure.sensors import Sensor, Trace
from edgesmith.bench.metrics import energy, thermal

TREES = {
    "RAPL": (
        {
            "sys/class/powercap/intel-rapl:0/name": "package-0",
            "sys/class/powercap/intel-rapl:0/energy_uj": "2500000",
            "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "4000000",
            "sys/class/powercap/intel-rapl:0:0/name": "core",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": "100",
        },
        [("package-0", "energy_j", 2.5)],
    ),
    "a Jetson with a rail for the board": (
        {
            "sys/class/hwmon/hwmon1/name": "ina3221",
            "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
            "sys/class/hwmon/hwmon1/in1_input": "5000",
            "sys/class/hwmon/hwmon1/curr1_input": "1200",
            "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
            "sys/class/hwmon/hwmon1/in2_input": "5000",
            "sys/class/hwmon/hwmon1/curr2_input": "300",
        },
        [("VDD_IN", "power_w", 6.0)],
    ),
    "a Jetson with rails that add up": (
        {
            f"sys/class/hwmon/hwmon1/{name}": text
            for name, text in {
                "name": "ina3221", "in1_label": "VDD_GPU_SOC", "in1_input": "20000", "curr1_input": "100",
                "in2_label": "VDD_CPU_CV", "in2_input": "20000", "curr2_input": "50",
                "in7_label": "sum of shunt voltages", "in7_input": "3",
            }.items()
        },
        [("VDD_GPU_SOC", "power_w", 2.0), ("VDD_CPU_CV", "power_w", 1.0)],
    ),
    "temperature, clocks and throttling": (
        {
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "45500",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7",
        },
        [("cpu-thermal", "temperature_c", 45.5), ("cpu0", "clock_hz", 1.5e9), ("cpu0", "throttled_count", 7.0)],
    ),
    "a clock only in cpuinfo": (
        {"proc/cpuinfo": "cpu MHz\t\t: 2450.000\ncpu MHz\t\t: 1500.5\n"},
        [("cpu", "clock_hz", 2.45e9)],
    ),
    "a meter that tells nonsense": ({"sys/class/thermal/thermal_zone0/temp": "?"}, []),
    "nothing": ({}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", TREES)
def test_what_is_found(case, tmp_path):
    files, expected = TREES[case]
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = sensors.find_sensors(tmp_path, cards=False)
    assert [(one.name, one.quantity, pytest.approx(one.read())) for one in found] == expected


def test_this_machine_is_asked_without_an_error():
    for sensor in sensors.find_sensors():
        assert sensor.read() is not None


def trace(quantity, values, every=1.0, wraps=0.0):
    sensor = Sensor("meter", quantity, lambda: 0.0, wraps)
    return Trace({sensor: [(every * index, float(value)) for index, value in enumerate(values)]})


def test_power_from_a_counter_that_starts_again():
    assert trace("energy_j", [1, 3, 0.5, 2.5], wraps=4.0).power_w() == pytest.approx((2 + 1.5 + 2) / 3)


def test_power_from_readings_and_from_nothing():
    assert trace("power_w", [4, 6, 8]).power_w() == pytest.approx(6)
    assert Trace({}).power_w() is None


def test_watching_reads_at_both_ends():
    counter = itertools.count()
    sensor = Sensor("count", "energy_j", lambda: float(next(counter)))
    with sensors.watch([sensor], every_s=60) as seen:
        pass
    assert [value for _, value in seen.samples[sensor]] == [0.0, 1.0]


def test_energy_is_power_times_time():
    told = energy._reading(idle_w=2.0, work_w=5.0, image_s=0.004)
    assert told.values == {"image_energy_j": pytest.approx(0.02), "power_w": 5.0, "idle_power_w": 2.0}
    assert not told.notes
    assert "too coarse" in energy._reading(idle_w=5.0, work_w=5.0, image_s=0.004).notes[0]
    assert energy._reading(idle_w=None, work_w=5.0, image_s=0.004).missing


def test_conditions_follow_the_fastest_core_and_name_throttling():
    cores = [Sensor(f"cpu{index}", "clock_hz", lambda: 0.0) for index in range(2)]
    throttled = Sensor("cpu0", "throttled_count", lambda: 0.0)
    told = thermal._reading(Trace({
        cores[0]: [(0, 3e9), (1, 1e9)], cores[1]: [(0, 1e9), (1, 2e9)], throttled: [(0, 4.0), (1, 6.0)],
    }))  # fmt: skip
    assert told.values == {"clock_hz": 2.5e9, "least_clock_hz": 2e9, "throttled_count": 2.0}
    assert len(told.notes) == 2
    assert thermal._reading(Trace({})).missing


def test_memory_on_cards_is_that_of_the_process_alone():
    listed = [(7, 100), (8, 50), (7, 20), (7, None)]
    assert sensors.process_bytes(listed, 7) == 120
    assert sensors.process_bytes([(7, None)], 7) is None
    assert sensors.process_bytes(listed, 9) is None


def test_without_a_card_there_is_no_memory_on_it():
    if any(one.name.startswith("gpu") for one in sensors.find_sensors()):
        pytest.skip("there is a card here")
    assert sensors.card_bytes(1) is None
