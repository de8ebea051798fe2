"""The bubble chart: what is drawn, where, and that the two kinds of file show the same."""

import json
import re

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesmith.cli import main
from edgesmith.models import accuracy_chart, catalog
from edgesmith.models.accuracy_chart import Bubble, pareto_bubbles
from edgesmith.runtime.errors import DataError, UsageError

ALL = [catalog.find_network(name) for name in catalog.network_names()]


@pytest.fixture(scope="module")
def painted():
    pytest.importorskip("matplotlib")
    figure = accuracy_chart._paint(accuracy_chart.collect_bubbles(ALL), "multiply-adds of one image, G")
    yield figure.axes[0]
    accuracy_chart.pyplot().close(figure)


def test_every_network_with_three_figures_is_a_bubble_at_its_place(painted):
    bubbles = accuracy_chart.collect_bubbles(ALL)
    assert len(bubbles) > 60
    drawn = {
        (round(float(x), 9), float(y)): float(size)
        for family in painted.collections
        if len(family.get_offsets())
        for (x, y), size in zip(family.get_offsets(), family.get_sizes(), strict=True)
    }
    assert {(round(one.x, 9), one.top1): accuracy_chart.area(one) for one in bubbles}.items() <= drawn.items()
    by_family = {family.get_gid(): family.get_facecolor()[0].tolist() for family in painted.collections}
    assert by_family["resnet"] != by_family["vgg"]


def test_parameters_that_the_paper_does_not_print_are_counted():
    entry = catalog.find_network("shufflenetv1_g3_0.25")
    assert entry.figures.params is None
    (found,) = accuracy_chart.collect_bubbles([entry])
    with torch.device("meta"):
        counted = sum(parameter.numel() for parameter in catalog.build_network(entry.name).parameters())
    assert found.params_m == counted / 1e6 > 0.2


def test_a_bubble_s_area_follows_the_parameters():
    first, second = (accuracy_chart.area(Bubble("a", "f", 1.0, 70.0, size)) for size in (1.0, 100.0))
    assert (second - accuracy_chart.SMALLEST_AREA) / (first - accuracy_chart.SMALLEST_AREA) == pytest.approx(100)


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


def test_no_name_covers_another(painted):
    boxes = [text.get_window_extent() for text in painted.texts]
    assert len(boxes) > 50
    assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])


def test_both_files_are_written_and_nothing_else(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("zoo.svg", "zoo.png"):
        done = CliRunner().invoke(main, ["models", "resnet", "--plot", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert re.search(r"\d+ networks drawn in ", done.stderr)
    with Image.open(tmp_path / "zoo.png") as picture:
        assert picture.size == tuple(round(160 * inches) for inches in accuracy_chart.INCHES)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zoo.png", "zoo.svg"]


def bench_result(model, seconds):
    return {"subject": {"model": model}, "readings": {"latency": {"values": {"p50_s": seconds}}}}


def test_measured_latency_takes_the_place_of_operations(tmp_path):
    pytest.importorskip("matplotlib")
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
    assert (done.exit_code, "--results works only with --plot" in done.stderr) == (2, True)
