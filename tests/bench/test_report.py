"""The page's data against counting by hand, its safety, and the page itself in a real browser."""

import csv
import dataclasses
import io
import json
import re

import pytest
from click.testing import CliRunner

from edgesmith.bench.report import page, tables, view
from edgesmith.bench.result import Reading, Run, write_run
from edgesmith.bench.stats import wilson
from edgesmith.cli.compare import report_command
from support import browser
from support.results import NETS, result, run, with_layers

POINTS = {
    "one beats all": ([(1, 9), (2, 8), (3, 1)], [0]),
    "a stair": ([(3, 9), (1, 5), (2, 7)], [1, 2, 0]),
    "equal speed": ([(1, 5), (1, 6)], [1]),
    "equal accuracy": ([(2, 5), (1, 5)], [1]),
    "none": ([], []),
}


@pytest.mark.parametrize("case", POINTS)
def test_the_pareto_front(case):
    points, front = POINTS[case]
    assert view.pareto_front(points) == front


@pytest.mark.parametrize(
    ("name", "family"),
    [("mobilenetv2", "mobilenet"), ("mobilenet_v3_small", "mobilenet"), ("resnet50", "resnet"),
     ("shufflenet_v2_x0_5", "shufflenet"), ("vgg16", "vgg"), ("7", "7")],
)  # fmt: skip
def test_families(name, family):
    found = view.family(name)
    assert found == family or (family == "mobilenet" and found.startswith("mobilenet"))


def test_a_distribution_is_the_percentiles_of_the_samples():
    made = run()
    shown = view.page_data([made])["latency"][0]["points"]
    values = sorted(1e3 * value for group in made.results[0].readings["latency"].samples for value in group)
    assert shown[0] == [pytest.approx(values[0], rel=1e-4), 0.0]
    assert shown[-1] == [pytest.approx(values[-1], rel=1e-4), 100.0]


def test_names_tell_subjects_apart_by_what_differs():
    made = run(names=("resnet50",)).results[0]
    other = dataclasses.replace(made, subject=dataclasses.replace(made.subject, backend="openvino"))
    assert list(view.short_names([(0, made)]).values()) == ["resnet50 fp32"]
    assert list(view.short_names([(0, made), (0, other)]).values()) == ["resnet50 fp32 ort", "resnet50 fp32 openvino"]
    again = dataclasses.replace(made)
    assert list(view.short_names([(0, made), (1, again)]).values()) == [
        "resnet50 fp32 (run 1)",
        "resnet50 fp32 (run 2)",
    ]


def test_neighbouring_runs_are_compared():
    changes = view.page_data([run(), run(seed=50, level=1.2)])["changes"]
    assert {item["answer"] for item in changes} == {"slower"}
    assert len(changes) == len(NETS)


HOSTILE = '</script><img src=x onerror="document.title=1">&'


def test_a_hostile_name_stays_text():
    made = result(HOSTILE, "fp32", 0.01, 1e6, 70.0, 1)
    text = page.render([Run("now", HOSTILE, run().environment, (made,))], HOSTILE)
    assert "<img" not in text.replace(page._asset("echarts.common.min.js"), "")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert data["table"]["rows"][0][0] == HOSTILE


def test_the_page_needs_nothing_from_elsewhere_and_is_small():
    text = page.render([run()])
    assert len(text.encode()) < 3e6
    own = text.replace(page._asset("echarts.common.min.js"), "")
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", own)


def test_a_note_names_its_subjects_once_and_says_all_only_of_all():
    made = run(names=("resnet50", "mobilenetv2"))
    missing = {name: Reading(name, missing="no such thing") for name in ("layers", "roofline_share")}
    results = [dataclasses.replace(made.results[0], readings={**made.results[0].readings, **missing}), made.results[1]]
    (told,) = [text for text in tables.notes(dataclasses.replace(made, results=tuple(results))) if "no such" in text]
    assert told == "layers: no such thing (resnet50 fp32)"


def test_csv_and_markdown_hold_every_value():
    made = run()
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(made))))
    values = sum(len(reading.values) for item in made.results for reading in item.readings.values())
    assert len(rows) == values
    text = tables.runs_markdown(made)
    assert text.count("\n| ") == 2 + len(made.results)
    assert "accuracy: no labelled images were given (all" in text


def test_the_command_writes_what_it_is_asked_for(tmp_path):
    path = write_run(run(), tmp_path / "run.json")
    out = {name: tmp_path / f"report.{name}" for name in ("html", "csv", "md")}
    words = [str(path), "-o", str(out["html"]), "--csv", str(out["csv"]), "--markdown", str(out["md"])]
    done = CliRunner().invoke(report_command, words)
    assert done.exit_code == 0, done.output
    assert all(file.stat().st_size > 300 for file in out.values())


QUANTISED = {
    "layer_sqnr_db": {},
    "tensor_sqnr_db": {"/features/0/Conv_output_0": 41.5, "/features/1/Conv_output_0": 18.25, "output": None},
}


def test_memory_over_time_and_what_it_is_for():
    data = view.page_data([run(names=("resnet50",))])
    (line,) = data["timeline"]
    assert line["points"][0] == [120.0, 4.5]
    assert line["stages"][4] == "import"
    parts = {one["name"]: one["values"] for one in data["memory"]["series"]}
    assert parts == {"interpreter": [37.0], "import": [19.0], "weights": [14.0], "session": [6.0], "arena": [5.0],
                     "transient": [2.0]}  # fmt: skip


def test_the_noisiest_layer_comes_first_and_one_without_noise_is_left_out():
    data = view.page_data([run()], {"a": QUANTISED})["sensitivity"]
    assert [bar[1] for bar in data["records"][0]["bars"]] == [18.25, 41.5]
    assert {row[1] for row in data["rows"]} == {"tensor"}
    alone = {**QUANTISED, "layer_sqnr_db": {"conv": 30.0}}
    assert view.page_data([run()], {"a": alone})["sensitivity"]["records"][0]["kind"] == "layer alone"


NO_RECORD = {
    "no JSON": "x",
    "another file": '{"a": 1}',
    "a list": "[1]",
    "text for numbers": '{"layer_sqnr_db": {"a": "b"}}',
}


@pytest.mark.parametrize("case", NO_RECORD)
def test_what_is_no_record_of_a_quantisation_is_refused(case, tmp_path):
    results, costs = write_run(run(), tmp_path / "run.json"), tmp_path / "costs.json"
    costs.write_text(NO_RECORD[case])
    done = CliRunner().invoke(report_command, [str(results), "--quantised", str(costs), "-o", str(tmp_path / "r.html")])
    assert done.exit_code != 0
    assert str(costs) in done.stderr
    assert not (tmp_path / "r.html").exists()


needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    runs = [with_layers(), run(seed=50, level=1.2, when="2026-02-01T00:00:00+00:00")]
    path.write_text(page.render(runs, quantised={"net int8": QUANTISED}))
    with browser.open_page() as tab:
        yield tab, path.as_uri()


def column(tab, index):
    return tab.js(f"[...document.querySelectorAll('#table tbody tr')].map(r => r.cells[{index}].textContent)")


@needs_browser
def test_it_draws_every_figure_without_a_complaint(shown):
    tab, url = shown
    tab.goto(url)
    assert tab.errors == []
    drawn = """[...document.querySelectorAll('figure:not([hidden]) canvas')].map(c => {
        const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(pixels.filter((_, i) => i % 4 < 3)).size; })"""
    assert len(page.FIGURES) == len(tab.js(drawn))
    assert all(colours > 10 for colours in tab.js(drawn))
    assert tab.js("document.querySelectorAll('#changes tbody tr').length") == len(NETS)


@needs_browser
def test_sorting_by_mouse_and_keyboard(shown):
    tab, url = shown
    tab.goto(url)
    press = "document.querySelectorAll('#table th button')[4].focus()"
    tab.js(press)
    tab.press("Enter")
    up = [float(text.split()[0]) for text in column(tab, 4)]
    assert up == sorted(up)
    assert tab.js("document.querySelectorAll('#table th')[4].getAttribute('aria-sort')") == "ascending"
    tab.js("document.querySelectorAll('#table th button')[4].click()")
    assert [float(text.split()[0]) for text in column(tab, 4)] == sorted(up, reverse=True)
    assert "sort=p50+ms&down=1" in tab.js("location.hash")


@needs_browser
def test_filtering_and_deep_links(shown):
    tab, url = shown
    tab.goto(url)
    tab.js("document.getElementById('filter').focus()")
    tab.ask("Input.insertText", text="int8 run shuffle"[:4])
    assert set(column(tab, 1)) == {"shufflenetv2"}
    assert tab.js("document.getElementById('count').textContent") == "2 of 8 shown"
    tab.goto("about:blank", ready="true")
    tab.goto(url + "#filter=resnet&sort=p99+ms")
    assert set(column(tab, 1)) == {"resnet50"}
    assert tab.errors == []


@needs_browser
def test_operators_are_sorted_and_filtered_by_themselves(shown):
    tab, url = shown
    tab.goto("about:blank", ready="true")
    tab.goto(url + "#operators-filter=relu&operators-sort=%C2%B5s&operators-down=1")
    times = tab.js("[...document.querySelectorAll('#operators tbody tr')].map(r => parseFloat(r.cells[5].textContent))")
    kinds = tab.js("[...document.querySelectorAll('#operators tbody tr')].map(r => r.cells[2].textContent)")
    assert set(kinds) == {"Relu"}
    assert times == sorted(times, reverse=True)
    assert len(column(tab, 0)) == 8
    assert tab.errors == []


DOWNLOAD = """(async () => { let made; const url = URL.createObjectURL;
    URL.createObjectURL = (blob) => { made = blob; return url.call(URL, blob); };
    document.querySelector('[data-download=NAME]').click(); URL.createObjectURL = url; return await made.text(); })()"""


@needs_browser
@pytest.mark.parametrize("name", ["table", "operators", *page.FIGURES])
def test_the_data_behind_everything_can_be_taken_away(name, shown):
    tab, url = shown
    tab.goto(url)
    told = list(csv.reader(io.StringIO(tab.js(DOWNLOAD.replace("NAME", name)))))
    assert len(told) > 1
    assert {len(row) for row in told} == {len(told[0])}


@needs_browser
def test_hovering_says_what_a_point_is(shown):
    tab, url = shown
    tab.goto("about:blank", ready="true")
    tab.goto(url)
    tab.js("document.getElementById('tradeoff').scrollIntoView()")
    find = """(() => { const box = document.querySelector('#tradeoff .chart');
        const chart = echarts.getInstanceByDom(box), point = data.tradeoff.points[0];
        const edge = box.getBoundingClientRect();
        const at = chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [point.ms, point.top1]);
        chart.on('mouseover', (event) => { window.hovered = event.name; });
        return [at[0] + edge.left, at[1] + edge.top]; })()"""
    x, y = tab.js(find)
    tab.mouse("mouseMoved", x - 30, y)
    tab.mouse("mouseMoved", x, y)
    assert tab.js("window.hovered").split()[0] in NETS


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_fits_a_desk_and_a_phone(shown, width, scheme):
    tab, url = shown
    tab.size(width, 800, mobile=width < 500)
    tab.scheme(scheme)
    tab.goto("about:blank", ready="true")
    tab.goto(url)
    assert tab.js("document.documentElement.scrollWidth") <= width
    light = tab.js("getComputedStyle(document.body).backgroundColor").startswith("rgb(255")
    assert light == (scheme == "light")
    assert tab.errors == []
    tab.size(1280, 900)
    tab.scheme("light")


@needs_browser
def test_contrast_is_enough_in_both_schemes(shown):
    tab, url = shown
    tab.goto(url)
    ratio = """((ink, paper) => { const light = (text) => { const part = text.match(/[\\d.]+/g).slice(0, 3)
        .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]; };
        const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); })"""
    for scheme in ("light", "dark"):
        tab.scheme(scheme)
        for selector in ("body", ".about", "a", "#count"):
            colours = f"getComputedStyle(document.querySelector('{selector}')).color"
            paper = "getComputedStyle(document.querySelector('section')).backgroundColor"
            assert tab.js(f"{ratio}({colours}, {paper})") >= 4.5, (scheme, selector)
    tab.scheme("light")


@needs_browser
def test_the_browser_notices_a_broken_page(tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<script>document.documentElement.dataset.ready='1'; nowhere()</script>")
    with browser.open_page() as tab:
        tab.goto(broken.as_uri())
        tab.js("1")
        assert any("nowhere" in text for text in tab.errors)


def test_operators_are_summed_by_kind_and_listed():
    data = view.page_data([with_layers(names=("mobilenetv2", "resnet50"))])["layers"]
    assert [(one["name"], one["values"]) for one in data["series"]] == [("Conv", [4.0, 4.0]), ("Relu", [2.0, 2.0])]
    assert len(data["rows"]) == 6


def test_the_roofline_bends_where_both_ceilings_meet():
    data = view.page_data([with_layers(names=("mobilenetv2", "resnet50"))])["roofline"]
    assert data["points"][0]["y"] == pytest.approx(3e8 / 0.02 * 1e-9, rel=0.05)
    (roof,) = data["roofs"]
    assert roof["points"] == [
        [0.1, pytest.approx(0.8)],
        [pytest.approx(5.0), pytest.approx(40.0)],
        [1e4, pytest.approx(40)],
    ]


def test_figures_as_files(tmp_path):
    pytest.importorskip("matplotlib", reason="no matplotlib here: pip install 'edgesmith[figures]'")
    from edgesmith.bench.report import figures

    costs = {"net int8": QUANTISED}
    written = figures.draw_figures([with_layers()], tmp_path, costs)
    assert {path.name for path in written} == {f"{name}.{kind}" for name in page.FIGURES for kind in ("png", "svg")}
    assert all(path.stat().st_size > 5000 for path in written)
    again = figures.draw_figures([with_layers()], tmp_path / "again", costs)
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]


def test_parquet_holds_every_value(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="no pyarrow here: pip install 'edgesmith[figures]'")
    path = tables.write_parquet(tmp_path / "run.parquet", [run(), run(seed=9)])
    found = parquet.read_table(path).to_pylist()
    assert len(found) == 2 * len(tables.flat(run()))
    assert {row["machine"] for row in found} == {run().environment.machine()}


def with_accuracy(model, weights, seconds, **top1):
    """A result with measured accuracies, hits of 360 (test) and 1440 (hard) images."""
    counts = {"test": 360, "hard": 1440}
    values, intervals = {}, {}
    for split, hits in top1.items():
        prefix = "" if split == "test" else f"{split}_"
        values |= {f"{prefix}top1_ratio": hits / counts[split], f"{prefix}images_count": float(counts[split])}
        intervals[f"{prefix}top1_ratio"] = wilson(hits, counts[split])
    made = result(model, "fp32", seconds, 1e6, 71.0, seed=1)
    readings = {**made.readings, "accuracy": Reading("accuracy", values, intervals)} if values else made.readings
    return dataclasses.replace(made, readings=readings, subject=dataclasses.replace(made.subject, weights=weights))


CHARTS = {
    "measured on the hard split": ([("a", "digits", 0.01, {"test": 356, "hard": 1300})], "hard split", ["a"], 0),
    "measured on the test split": ([("a", "digits", 0.01, {"test": 356})], "test split", ["a"], 0),
    "what was not measured is left out, and not filled in": (
        [("a", "digits", 0.01, {"test": 356}), ("b", "digits", 0.02, {}), ("c", "imagenet", 0.02, {})],
        "test split", ["a"], 2,
    ),
    "a digits network has no published accuracy": ([("a", "digits", 0.01, {})], "", [], 1),
    "nor has a file of somebody's": ([("a", "mine.safetensors", 0.01, {})], "", [], 1),
    "published, where nothing is measured": (
        [("a", "imagenet", 0.01, {}), ("b", "random", 0.02, {})], "published ImageNet", ["a", "b"], 0,
    ),
    "random weights have no accuracy of their own": ([("a", "random", 0.01, {"test": 356})], "published", ["a"], 0),
}  # fmt: skip


@pytest.mark.parametrize("case", CHARTS)
def test_the_chart_shows_what_was_measured_or_says_why_it_cannot(case):
    subjects, source, drawn, left_out = CHARTS[case]
    results = [with_accuracy(name, weights, seconds, **top1) for name, weights, seconds, top1 in subjects]
    chart = view.page_data([dataclasses.replace(run(), results=tuple(results))])["tradeoff"]
    assert [point["name"].split()[0] for point in chart["points"]] == drawn
    assert chart["left_out"] == left_out
    assert (source in chart["accuracy"]) if drawn else chart["why"].startswith("no accuracy was measured")
    assert all(point["low"] <= point["top1"] <= point["high"] for point in chart["points"])


@pytest.mark.parametrize(("hits", "front"), [(1310, [0]), (1400, [0, 1])])
def test_the_front_stays_out_of_the_sampling_error(hits, front):
    """Ten of 1440 images more are within the error; a hundred are not."""
    results = (
        with_accuracy("quick", "digits", 0.01, hard=1300),
        with_accuracy("slow", "digits", 0.02, hard=hits),
    )
    assert view.page_data([dataclasses.replace(run(), results=results)])["tradeoff"]["front"] == front
