"""The bubble chart: what is drawn, where, and that the two kinds of file show the same."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesmith.cli import main
from edgesmith.models import accuracy_chart, catalog
from edgesmith.models.accuracy_chart import Bubble, Chart, pareto_bubbles
from edgesmith.runtime.errors import DataError, UsageError

ALL = [catalog.find_network(name) for name in catalog.network_names()]


def shapes(path, kind):
    return [item for item in ET.parse(path).getroot() if item.tag.endswith(kind)]


def test_every_network_with_three_figures_is_a_circle_at_its_place(tmp_path):
    path = tmp_path / "zoo.svg"
    drawn = accuracy_chart.draw_chart(ALL, path)
    found = {item[0].text.split(":")[0]: item for item in shapes(path, "circle") if item[0].text}
    assert len(found) == drawn > 60
    small, large = found["mobilenetv3_small"], found["vgg16"]
    assert float(small.get("cx")) < float(large.get("cx"))
    assert float(small.get("cy")) > float(large.get("cy"))
    assert float(small.get("r")) < float(large.get("r"))
    assert found["resnet18"].get("fill") == found["resnet152"].get("fill") != large.get("fill")


def test_parameters_that_the_paper_does_not_print_are_counted():
    entry = catalog.find_network("shufflenetv1_g3_0.25")
    assert entry.figures.params is None
    (found,) = accuracy_chart.collect_bubbles([entry])
    with torch.device("meta"):
        counted = sum(parameter.numel() for parameter in catalog.build_network(entry.name).parameters())
    assert found.params_m == counted / 1e6 > 0.2


def test_a_bubble_s_area_follows_the_parameters():
    made = [Bubble(name, "f", 1.0, 70.0, size) for name, size in (("a", 1.0), ("b", 100.0))]
    chart = Chart(made, "x")
    first, second = (chart.radius(bubble) - accuracy_chart.SMALLEST_RADIUS for bubble in made)
    assert (second / first) ** 2 == pytest.approx(100)


points = st.tuples(st.integers(1, 9), st.integers(50, 59))


@given(st.lists(points, min_size=1, max_size=12))
@settings(deadline=None, max_examples=100)
def test_on_a_curve_are_those_that_no_other_beats(pairs):
    made = [Bubble(str(index), "f", x, y, 1.0) for index, (x, y) in enumerate(pairs)]
    found = {(bubble.x, bubble.top1) for bubble in pareto_bubbles(made)}
    beaten = {
        (b.x, b.top1) for b in made for o in made if o.x <= b.x and o.top1 >= b.top1 and (o.x, o.top1) != (b.x, b.top1)
    }
    assert found == {(b.x, b.top1) for b in made} - beaten


def test_no_name_covers_another():
    chart = Chart(accuracy_chart.collect_bubbles(ALL), "multiply-adds, G")
    boxes = [(x, y - 10, x + accuracy_chart.text_width(name, 10), y + 2) for x, y, name in chart.names()]
    assert len(boxes) > 50
    assert not any(accuracy_chart._overlap(one, other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert accuracy_chart._overlap((0, 0, 2, 2), (1, 1, 3, 3))


def test_both_files_are_written_and_nothing_else(tmp_path):
    for name in ("zoo.svg", "zoo.png"):
        done = CliRunner().invoke(main, ["models", "resnet", "--plot", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert re.search(r"\d+ networks drawn in ", done.stderr)
    with Image.open(tmp_path / "zoo.png") as picture:
        assert picture.size == (2 * accuracy_chart.WIDTH, 2 * accuracy_chart.HEIGHT)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zoo.png", "zoo.svg"]


def bench_result(model, seconds):
    return {"subject": {"model": model}, "readings": {"latency": {"values": {"p50_s": seconds}}}}


def test_measured_latency_takes_the_place_of_operations(tmp_path):
    made = tmp_path / "results"
    made.mkdir()
    (made / "a.json").write_text(json.dumps({"results": [bench_result("ResNet-18", 0.02), bench_result("vgg16", 0.3)]}))
    (made / "b.json").write_text(json.dumps({"network": "resnet18", "ort_p50_ms": 15.0}))
    (made / "c.json").write_text(json.dumps({"network": "alexnet", "failed": "export"}))
    assert accuracy_chart.read_latencies([made]) == {"resnet18": 15.0, "vgg16": 300.0}
    path = tmp_path / "zoo.svg"
    done = CliRunner().invoke(main, ["models", "--plot", str(path), "--results", str(made)])
    assert (done.exit_code, "2 networks drawn" in done.stderr) == (0, True)
    assert "measured latency of one image, ms" in path.read_text()
    assert "resnet18: 69.76 %, 15 ms, 11.69 M parameters" in path.read_text()


BAD = {
    "no JSON": ("hello", "holds no measured latencies; got JSONDecodeError"),
    "a list": ("[1]", "holds no measured latencies"),
    "something else": ("{}", "holds no measured latencies; got KeyError: 'results'"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_are_refused(case, tmp_path):
    text, message = BAD[case]
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        accuracy_chart.read_latencies([path])


def test_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="nothing to draw; got no network with accuracy, parameters and MACs"):
        accuracy_chart.draw_chart([catalog.find_network("lenet5")], tmp_path / "x.svg")
    with pytest.raises(UsageError, match="expected .svg or .png"):
        accuracy_chart.draw_chart(ALL, tmp_path / "x.pdf")
    with pytest.raises(UsageError, match="no such file"):
        accuracy_chart.read_latencies([tmp_path / "no.json"])
    done = CliRunner().invoke(main, ["models", "--results", str(tmp_path)])
    assert (done.exit_code, "--results is for --plot" in done.stderr) == (2, True)
