"""The page of `make bench-photos` and README's table: each figure from its row, nothing hidden, marks respected."""

import sys
from pathlib import Path

import pytest

from edgesmith.optimize.quantize.class_likeness import ClassLikeness
from edgesmith.optimize.quantize.report import Quality

sys.path.append(str(Path(__file__).parents[1] / "support"))

from photos import table
from photos.__main__ import ORT, OTHERS, OURS, judged
from photos.networks import NETWORKS


def row(label, sqnr, likeness=None, failed=""):
    kept = {"sqnr_db": sqnr, "classes": likeness and likeness.to_dict(), "bytes": 1_500_000}
    return {"label": label, "failed": failed, "cpu_seconds": 7.5, "peak_mb": 321, **({} if failed else kept)}


ROWS = [
    row("edgesmith ort-x86", 24.04, ClassLikeness(150, 147, 100, 100, 149, 1.5)),
    row("edgesmith trt", 21.0, ClassLikeness(150, 140, 100, 98, 150, 3.0)),
    row("onnxruntime minmax", 16.5, ClassLikeness(150, 132, 100, 99, 149, 15.0)),
    row("onnxruntime symmetric", 22.6, ClassLikeness(150, 129, 100, 90, 148, 15.0)),
    row("nncf-default", 0.0, failed="no | memory"),
]
RESULT = {"name": "mobilenetv2", "rows": {one["label"]: one for one in ROWS},
          "speed": {"edgesmith ort-x86": {"ort": {"median": 1.734}, "openvino": {"median": 1.9}}}}  # fmt: skip


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_each_figure_is_that_of_its_row():
    page = table.markdown([RESULT])
    assert lines(page, "| edgesmith ort-x86 |") == [
        "| edgesmith ort-x86 | 24.0 | 98.0 | 100.0 | 99.3 | 3, 3 | 0.01 | 7.5 | 321 | 1.50 | 1.73 | 1.90 |"
    ]
    (failed,) = lines(page, "| nncf-default |")
    assert "failed: no / memory" in failed
    assert "Has run: mobilenetv2 (5 quantisers). Not yet: efficientnet_lite0, " in page


def test_ours_stands_beside_the_best_peer_of_its_kind_also_where_it_loses():
    summary = table.summary([RESULT])
    assert summary[2:-2] == [
        "| mobilenetv2 | `ort-x86` | 24.0, 16.5 (ort minmax) | 98.0, 88.0 (ort minmax) "
        "| 100.0, 99.0 (ort minmax) | 1.50 |",
        "| mobilenetv2 | `trt` | 21.0, 22.6 (ort symmetric) | 93.3, 86.0 (ort symmetric) "
        "| 98.0, 90.0 (ort symmetric) | 1.50 |",
    ]  # fmt: skip


def test_a_tool_that_did_not_run_everywhere_is_named():
    assert table.summary([RESULT])[-1] == (
        "Other quantisers with rows on each of these networks: onnxruntime; missing on some or all: "
        "modelopt, nncf, quark."
    )
    other = {"name": "MTCNN ONet", "rows": {"quark": row("quark", 20.0)}, "speed": {}}
    assert (
        "networks: none; missing on some or all: modelopt, nncf, onnxruntime, quark."
        in table.summary([RESULT, other])[-1]
    )


@pytest.mark.parametrize("text", ["no marks", f"{table.END} {table.BEGIN * 2}"])
def test_a_readme_without_the_marks_is_left_alone(text, tmp_path):
    (tmp_path / "README.md").write_text(text)
    assert table.with_readme(tmp_path / "README.md", [RESULT]) == text


def test_the_readme_has_the_marks_and_gets_the_table_between_them():
    readme = Path(__file__).parents[2] / "README.md"
    text = table.with_readme(readme, [RESULT])
    assert "| mobilenetv2 | `ort-x86` | 24.0, 16.5" in text
    assert text.split(table.BEGIN)[0] == readme.read_text().split(table.BEGIN)[0]
    assert text.split(table.END)[1] == readme.read_text().split(table.END)[1]
    assert table.with_readme(readme, []) == readme.read_text()


def test_a_row_keeps_the_worst_output_and_the_classes_asked_for():
    likeness = {"boxes": ClassLikeness(4, 1), "face": ClassLikeness(4, 3)}
    quality = Quality({"face": 12.345, "boxes": 30.0}, likeness, 4, "boxes")
    assert judged(quality, "face") == {"sqnr_db": 12.35, "classes": likeness["face"].to_dict()}
    assert judged(quality, "")["classes"] is None


def test_tools_and_networks_have_names_for_files():
    names = [label.replace(" ", "-") for label in (*OURS, *ORT, *OTHERS)]
    assert len(set(names)) == len(names)
    assert all(one.licence for one in NETWORKS.values())
