"""Which layers cost the most accuracy, and the fewest of them to leave in float so that a budget is met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...runtime.errors import CheckFailed
from .observe import session, sqnr_db
from .report import Settings, compare
from .samples import Perturbed, Samples

if TYPE_CHECKING:
    import onnx

    from .forms import Form
    from .recipe import Converted

SENSITIVITY_IMAGES = 16
# How many of the most sensitive layers are left in float, one try after the other.
TRIES = (0, 1, 2, 4, 8, 16)


def sensitivity(model: onnx.ModelProto, form: Form, samples: Samples) -> dict[str, float]:
    """Return for each layer the SQNR of the first output, in dB, when that layer alone is quantised; worst first.

    Args:
        model: The float graph; ranges are plain minima and maxima.
        form: The target's form.
        samples: Calibration images; the noise is measured on the first 16, with sensor noise on half of them.
    """
    from .emit import emit
    from .net import Net, copied
    from .observe import collect
    from .placement import place
    from .recipe import grids_of

    seen = Perturbed(samples, Settings().noise)
    images = [batch for _, batch in zip(range(SENSITIVITY_IMAGES // 4), seen, strict=False)]
    reference = _outputs(model, images)
    whole = place(Net(copied(model)), form)
    stats = collect(model, sorted(whole.readers), seen)
    names = {node.name for node in whole.anchors}
    found = {}
    for name in sorted(names):
        net = Net(copied(model))
        plan = place(net, form, frozenset(names - {name}))
        emit(net, plan, grids_of(plan, form, {tensor: stats[tensor] for tensor in plan.readers}), form, {})
        found[name] = sqnr_db(reference, _outputs(net.model, images))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _outputs(model: onnx.ModelProto, images: list[np.ndarray]) -> np.ndarray:
    opened = session(model)
    given = opened.get_inputs()[0].name
    return np.concatenate([opened.run(None, {given: batch})[0] for batch in images])


def within_budget(
    model: onnx.ModelProto, form: Form, samples: Samples, settings: Settings, least_db: float
) -> tuple[Converted, dict[int, float]]:
    """Convert with as few layers in float as meet a budget.

    Args:
        model: The float graph.
        form: The target's form.
        samples: Calibration images.
        settings: As for `quantize`; what it keeps in float stays so.
        least_db: The SQNR that the worst output must reach on the calibration images, in dB.

    Returns:
        The first configuration that meets the budget, and layers left in float -> SQNR of every one that was tried.

    Raises:
        CheckFailed: None does; the message names the closest.
    """
    from dataclasses import replace

    from .recipe import convert

    tried: dict[int, float] = {}
    order: list[str] = []
    for count in TRIES:
        if count and not order:
            order = [name for name in sensitivity(model, form, samples) if name not in settings.keep]
        if count >= len(order) > 0:
            break
        made = convert(model, form, samples, replace(settings, keep=settings.keep | frozenset(order[:count])))
        tried[count] = min(compare(model, made.model, samples)[0].values())
        if tried[count] >= least_db:
            return made, tried
    best = max(tried, key=lambda count: tried[count])
    raise CheckFailed(
        f"no configuration reaches {least_db:g} dB",
        got=f"at best {tried[best]:.1f} dB with {best} of {len(order)} layers in float",
        expected=f"{least_db:g} dB",
        do=f"ask for {int(tried[best])} dB, or use FP16",
    )
