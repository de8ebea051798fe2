"""The fastest configuration within a budget: which layers stay in float, and what that costs.

Each layer is quantised alone to see how much noise it makes. Noise of different layers is nearly uncorrelated, so it
adds up: layers go back to float in the order of noise taken away for each second it costs, and bisection over that
order finds how many are needed. Every configuration that is tried is really converted and really measured; at most
about log2(layers) + 3 of them are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ....runtime.common.progress import progress
from ....runtime.errors import CheckFailed
from ....runtime.targets import is_here
from ...calibration.inputs import Batch, as_feeds
from ...calibration.ort_runs import session, with_outputs
from ...calibration.samples import AugmentedSamples, Samples
from ...calibration.sqnr import sqnr_db
from ..layer_queries import channel_axes
from ..report import QuantSettings, compare
from .latency_model import Costs, latencies, model_costs
from .points_judge import PointsJudge

if TYPE_CHECKING:
    import onnx

    from ...calibration.axis_roles import AxisRoles
    from ..pipeline import Converted
    from ..targets import Target

SENSITIVITY_IMAGES = 16
NAMED = 5


@dataclass(frozen=True)
class Budget:
    """What must be kept: the least SQNR of the worst output in dB, or the most points that may be lost.

    `judge` says what the points are of: of top-1 by default, where a changed answer counts as a lost one.
    """

    least_db: float | None = None
    points: float | None = None
    judge: PointsJudge = field(default_factory=PointsJudge)

    def __str__(self) -> str:
        return f"{self.least_db:g} dB" if self.least_db is not None else f"{self.points:g} points"


@dataclass(frozen=True)
class Configuration:
    """One configuration: layers in float, seconds by the cost model, SQNR, points lost, and whether it is good enough.

    `best` marks those that no other beats in both seconds and SQNR (the Pareto front).
    """

    floats: tuple[str, ...]
    seconds: float
    sqnr_db: float
    points: float
    meets: bool
    best: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        finite = self.sqnr_db if np.isfinite(self.sqnr_db) else None
        return asdict(self) | {"layers_in_float": len(self.floats), "sqnr_db": finite}


@dataclass(frozen=True)
class Search:
    """What was tried, which one was chosen and why; `made` is None where the float network was."""

    made: Converted | None
    tried: tuple[Configuration, ...]
    chosen: Configuration
    reason: str
    sensitivity_db: dict[str, float]
    measured: bool


def sensitivity(
    model: onnx.ModelProto, form: Target, samples: Samples, images_count: int = SENSITIVITY_IMAGES
) -> dict[str, float]:
    """Return for each layer the SQNR of the first output, in dB, when that layer alone is quantised; worst first.

    Args:
        model: The float graph; ranges are plain minima and maxima.
        form: The target's form.
        samples: Calibration images.
        images_count: On how many the noise is measured, with sensor noise on half of them.
    """
    from ...calibration.statistics_cache import collected
    from ...graph.proto_graph import ProtoGraph
    from ...graph.protobuf import copied
    from ..judged_tensors import judged_tensors
    from ..pipeline import grids_of
    from ..placement import place
    from ..qdq.insert import insert_qdq
    from ..qdq.zero_points_to_biases import tensors_with_zero_point

    seen = AugmentedSamples(samples, QuantSettings().noise, QuantSettings().cover)
    images = seen.picked(images_count)
    judged = next(iter(judged_tensors(model).values()))[0]
    reference = _values(model, judged, images)
    whole = place(ProtoGraph(copied(model)), form)
    stats = collected(model, sorted(whole.quantized_reads), seen, channels=channel_axes(whole.layers))
    names = {node.name for node in whole.layers}
    noise_db, plain = {}, QuantSettings(method="min-max")
    with progress("layers", len(names)) as advance:
        for name in sorted(names):
            net = ProtoGraph(copied(model))
            plan = place(net, form, frozenset(names - {name}))
            plan.kinds = tensors_with_zero_point(net, plan, stats, form)
            grids = grids_of(plan, form, {tensor: stats[tensor] for tensor in plan.quantized_reads}, plain)
            insert_qdq(net, plan, grids, form, {})
            noise_db[name] = sqnr_db(reference, _values(net.model, judged, images))
            advance(1)
    return dict(sorted(noise_db.items(), key=lambda item: item[1]))


def _values(model: onnx.ModelProto, name: str, batches: Iterable[Batch]) -> np.ndarray:
    """Return a tensor for all batches, behind each other; as one row where the sizes differ."""
    runner = session(with_outputs(model, [name]))
    values = [runner.run([name], as_feeds(model, batch))[0] for batch in batches]
    alike = len({value.shape[1:] for value in values}) == 1 and values[0].ndim > 0
    return np.concatenate(values if alike else [value.reshape(-1) for value in values])


class _Searcher:
    """Converts and measures configurations, each once."""

    def __init__(
        self,
        model: onnx.ModelProto,
        form: Target,
        samples: Samples,
        settings: QuantSettings,
        budget: Budget,
        roles: AxisRoles | None = None,
    ) -> None:
        self.roles = roles
        self.model, self.form, self.samples, self.settings, self.budget = model, form, samples, settings, budget
        self.made: dict[int, Converted] = {}
        self.tried: dict[int, Configuration] = {}

    def order(self) -> None:
        """Rank the layers by noise taken away for each second, after converting everything to INT8."""
        self.costs: Costs = model_costs(self.model, self.form.name)
        self.names: list[str] = []
        whole = self._convert(0)
        if is_here(self.form.name):
            layout, first = self.samples.layout, next(iter(self.samples))
            image = first if self.samples.size is not None else layout.part(first, 0, 1)
            self.costs = self.costs.anchored(*latencies([self.model, whole.model], image))
        self.db = sensitivity(self.model, self.form, self.samples)
        left = self.settings.keep | self.settings.noisy
        ranked = [name for name in self.db if name not in left and name in self.costs.float_s]
        noise = {name: 10 ** (-self.db[name] / 10) for name in ranked}
        price = {name: max(self.costs.float_s[name] - self.costs.int8_s[name], 1e-9) for name in ranked}
        self.names = sorted(ranked, key=lambda name: -noise[name] / price[name])

    def _convert(self, count: int) -> Converted:
        from ..pipeline import convert

        if count not in self.made:
            keep = self.settings.keep | frozenset(self.names[:count])
            self.made[count] = convert(
                self.model, self.form, self.samples, replace(self.settings, keep=keep), self.roles
            )
        return self.made[count]

    def judge(self, count: int) -> Configuration:
        """Return how good the configuration with the first `count` layers in float is."""
        if count not in self.tried:
            quantized = self._convert(count)
            quality = compare(self.model, quantized.model, self.samples)
            worst = min(quality[0].values())
            lost = points_lost(self.model, quantized.model, self.samples, self.budget.judge)
            meets = (
                worst >= self.budget.least_db if self.budget.least_db is not None else lost <= (self.budget.points or 0)
            )
            floats = tuple(self.names[:count])
            self.tried[count] = Configuration(floats, self.costs.total(floats), worst, lost, meets)
        return self.tried[count]

    def fewest(self) -> int | None:
        """Return the fewest layers in float with which the budget is met; None where even all but one do not do."""
        low, high = 0, max(len(self.names) - 1, 0)
        if self.judge(0).meets:
            return 0
        if not self.judge(high).meets:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.judge(middle).meets else (middle, high)
        return high


def points_lost(before: onnx.ModelProto, after: onnx.ModelProto, samples: Samples, judge: PointsJudge) -> float:
    """Return how many points of the judge's metric were lost; never below 0."""
    one, two = (
        {output.name: _values(model, output.name, samples) for output in model.graph.output}
        for model in (before, after)
    )
    return judge.lost(one, two)


def within_budget(
    model: onnx.ModelProto,
    form: Target,
    samples: Samples,
    settings: QuantSettings,
    budget: Budget,
    roles: AxisRoles | None = None,
) -> Search:
    """Find the fastest configuration that meets a budget.

    Args:
        model: The float graph.
        form: The target's form.
        samples: Calibration images.
        settings: As for `quantize`; what it keeps in float stays so.
        budget: What must be kept, on the calibration images.
        roles: Which axis of each tensor is the batch, as far as it is known.

    Returns:
        The search: never less accurate than all INT8, never slower than all float by the cost model.

    Raises:
        CheckFailed: Nothing meets the budget; the message names the closest.
    """
    searcher = _Searcher(model, form, samples, settings, budget, roles)
    searcher.order()
    count = searcher.fewest()
    if count is None:
        raise _nothing(searcher, budget)
    costs, chosen = searcher.costs, searcher.tried[count]
    whole, everything = costs.total(()), costs.total(costs.float_s)
    kind = "measured here" if costs.measured else "by the cost model"
    configurations = _with_front(
        [*searcher.tried.values(), Configuration(tuple(costs.float_s), everything, np.inf, 0.0, meets=True)]
    )
    if chosen.seconds >= everything:
        slower = 100 * (chosen.seconds / everything - 1)
        reason = f"INT8 is {slower:.0f} % slower than {costs.float_name} ({kind}): {costs.float_name} chosen"
        return Search(None, configurations, configurations[-1], reason, searcher.db, costs.measured)
    gain = f"{everything / chosen.seconds:.2f} times as fast as {costs.float_name}, all INT8 {everything / whole:.2f}"
    reason = f"{count} of {len(searcher.names)} layers in float meet {budget}: {gain} ({kind})"
    return Search(searcher.made[count], configurations, chosen, reason, searcher.db, costs.measured)


def _with_front(configurations: list[Configuration]) -> tuple[Configuration, ...]:
    """Mark those that no other one beats in both seconds and SQNR."""
    beaten: Callable[[Configuration], bool] = lambda one: any(  # noqa: E731
        two.seconds <= one.seconds and two.sqnr_db >= one.sqnr_db and two is not one for two in configurations
    )
    return tuple(replace(one, best=not beaten(one)) for one in configurations)


def _nothing(searcher: _Searcher, budget: Budget) -> CheckFailed:
    best = max(searcher.tried.values(), key=lambda one: one.sqnr_db)
    ask = f"{int(best.sqnr_db)} dB" if budget.least_db is not None else f"{best.points:.1f} points"
    return CheckFailed(
        f"no configuration reaches {budget}",
        got=f"at best {best.sqnr_db:.1f} dB, {best.points:.1f} points lost, "
        f"with {len(best.floats)} of {len(searcher.names)} layers in float{_named(best.floats, searcher.names)}",
        expected=str(budget),
        do=f"ask for {ask}, or use FP16",
    )


def _named(floats: tuple[str, ...], names: list[str]) -> str:
    """Name the layers in float, or those that are not, whichever are fewer."""
    if not floats:
        return ""
    rest = [name for name in names if name not in floats]
    shown, lead = (rest, "all but ") if len(rest) < len(floats) else (list(floats), "")
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return f" ({lead}{', '.join(shown[:NAMED])}{more})"
