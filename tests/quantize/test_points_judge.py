"""A budget in points is of the task's own metric: mAP where boxes are known, objects found again where they are not."""

import numpy as np
import pytest

from edgesmith.optimize.quantize.mixed_precision.points_judge import PointsJudge
from edgesmith.runtime import tasks
from edgesmith.runtime.datasets.truths import Instances
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.images.settings import Preprocess
from edgesmith.runtime.tasks import DecodeContext

CONTEXT = DecodeContext((), "", 2, {"head": "end-to-end"}, Preprocess((32, 32), 0))
TRUTHS = [Instances((32, 32), np.array([[2.0, 2, 12, 12], [16, 16, 30, 30]]), np.array([0, 1]), np.zeros(2, bool),
                    np.array([100.0, 196]))] * 4  # fmt: skip


def rows(shift=0.0, objects=2):
    table = np.zeros((4, 5, 6))
    table[:, :2] = [[2, 2, 12, 12, 0.9, 0], [16, 16, 30, 30, 0.8, 1]]
    table[:, :2, :4] += shift
    table[:, objects:] = 0
    return {"o": table}


# Moved by one pixel the IoUs are 81/119 and 169/223: 4 and 6 of COCO's ten thresholds are met.
CASES = {
    "nothing": (rows(), 0.0, 0.0), "moved a little": (rows(1.0), 50.0, 0.0), "moved far": (rows(9.0), 100.0, 100.0),
    "one is lost": (rows(objects=1), 50.0, 50.0), "all are lost": (rows(objects=0), 100.0, 100.0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_points_are_of_the_task_s_metric(case):
    after, of_map, changed = CASES[case]
    detect = tasks.find("detect")
    assert PointsJudge(detect, CONTEXT, TRUTHS).lost(rows(), after) == pytest.approx(of_map, abs=0.1)
    assert PointsJudge(detect, CONTEXT).lost(rows(), after) == pytest.approx(changed)
    assert PointsJudge(detect, CONTEXT, TRUTHS).lost(after, rows()) == 0


def test_outputs_without_a_row_for_each_sample_cannot_be_judged():
    judge = PointsJudge(tasks.find("detect"), CONTEXT)
    with pytest.raises(DataError, match="one row of each output for each sample"):
        judge.lost({"a": np.zeros((4, 5, 6)), "b": np.zeros(9)}, {"a": np.zeros((4, 5, 6)), "b": np.zeros(9)})
