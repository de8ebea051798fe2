"""`edgesmith advise`: select a network for a device by published accuracy and modelled latency."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import click

from ..bench.devices import catalogue, roofline
from ..bench.devices.catalogue import Device
from ..bench.devices.roofline import Estimate
from ..models import catalog
from ..models.catalog import Entry
from ..runtime.common.progress import note, progress
from ..runtime.engines.cost import BYTES
from ..runtime.errors import UsageError
from .console import command, emit, table


@dataclass(frozen=True)
class Advice:
    """One network on one device: its published top-1 in per cent on `dataset`, and its modelled latency."""

    network: str
    precision: str
    top1: float
    dataset: str
    params: int | None
    estimate: Estimate
    fits: bool
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; unknown values are null."""
        plain = asdict(self)
        plain["estimate"] = {key: None if value == float("inf") else value for key, value in plain["estimate"].items()}
        return plain


@command("advise")
@click.option("--device", required=True, help="A device of the catalogue: orin-nano-8gb, xavier-nx, t4, …")
@click.option("--power", help="Power mode (15W) or GPU clock (612MHz).  [default: the highest mode]")
@click.option("--dataset", default="imagenet", show_default=True, help="Data set of the published accuracy.")
@click.option("--min-top1", default=0.0, help="Minimum published top-1 of the FP32 network on that data set, per cent.")
@click.option("--max-ms", type=float, help="Maximum latency of one call, milliseconds.")
@click.option("--precision", type=click.Choice(roofline.PRECISIONS), default="fp16", show_default=True)
@click.option("--batch", default=1, show_default=True, help="Images per call.")
@click.option(
    "--all", "every", is_flag=True, help="Check every network; by default stop at the third that is fast enough."
)
def advise_command(
    device: str, power: str | None, dataset: str, min_top1: float, max_ms: float | None, precision: str, batch: int,
    every: bool, as_json: bool,
) -> int:  # fmt: skip
    """Pick a network for a device: the most accurate one that is fast enough, and why.

    Exit code 1 when none is.
    """
    if batch < 1 or (max_ms is not None and max_ms <= 0):
        raise UsageError("the limits are not valid", got=f"batch {batch}, {max_ms} ms", expected="more than 0")
    board = catalogue.find_device(device)
    board = catalogue.in_mode(board, power) if power else board
    ranking = rank_networks(board, precision, batch, min_top1, max_ms, dataset=dataset, enough=None if every else 3)
    emit(
        {"device": asdict(board), "networks": [one.to_dict() for one in ranking]},
        as_json,
        lambda: _draw(board, ranking),
    )
    for text in _caveats(board, precision):
        note(f"note: {text}")
    best = next((one for one in ranking if one.verdict in ("chosen", "likely")), None)
    if best is None:
        note(f"no network of the catalogue has {min_top1:g} % on {dataset} and {_limit(max_ms)} on the {board.device}")
        return 1
    note(_reason(best, board, min_top1, max_ms))
    return 0


def rank_networks(
    board: Device, precision: str, batch: int, min_top1: float, max_ms: float | None, *, dataset: str = "imagenet",
    enough: int | None = None,
) -> list[Advice]:  # fmt: skip
    """Return the networks that are accurate enough, the best choice first.

    Args:
        board: The device.
        precision: "fp32", "fp16" or "int8".
        batch: Images per call.
        min_top1: Minimum top-1 in per cent.
        max_ms: Maximum latency of a call in milliseconds; None for no limit.
        dataset: Only networks with published accuracy on this data set: others are not comparable.
        enough: Stop after this number of fast enough networks, in order of accuracy; None evaluates all.

    Raises:
        UsageError: No network has a published accuracy on that data set.
    """
    every = [catalog.find_network(name) for name in catalog.network_names()]
    known = sorted({entry.figures.dataset for entry in every if entry.figures.dataset})
    if dataset not in known:
        raise UsageError(f"no accuracy on {dataset!r} was published", expected=" or ".join(known), do="choose one")
    same = [entry for entry in every if entry.figures.dataset == dataset]
    entries = [entry for entry in same if _worth(entry, board, precision, min_top1, max_ms)]
    ranking: list[Advice] = []
    with progress("networks", len(entries)) as advance:
        for entry in sorted(entries, key=lambda one: -(one.figures.top1 or 0.0)):
            ranking.append(_judge(entry, board, precision, batch, max_ms))
            advance(1)
            if enough is not None and sum(one.verdict == "chosen" for one in ranking) >= enough:
                break
    order = {"chosen": 0, "likely": 1, "perhaps": 2, "too slow": 3, "too large": 4}
    return sorted(ranking, key=lambda one: (order[one.verdict], -one.top1, one.estimate.bound_s))


def _judge(entry: Entry, board: Device, precision: str, batch: int, max_ms: float | None) -> Advice:
    from ..models import complexity

    network = complexity.describe_network(entry.name)
    estimate = roofline.estimate_latency(network, board, precision, batch)
    room = roofline.fits_memory(network, board, precision, batch)
    figures = entry.figures
    verdict = _verdict(estimate, room, max_ms)
    return Advice(entry.name, precision, figures.top1 or 0.0, figures.dataset, figures.params, estimate, room, verdict)


def _worth(entry: Entry, board: Device, precision: str, min_top1: float, max_ms: float | None) -> bool:
    """Exclude networks without published or sufficient accuracy, or with too many operations for the time."""
    figures = entry.figures
    if figures.top1 is None or figures.macs is None or figures.top1 < min_top1:
        return False
    least = max(
        2 * figures.macs / board.gpu.peak(precision, dense=True),
        (figures.params or 0) * BYTES[precision] / (board.memory_gb_s * 1e9),
    )
    return max_ms is None or least <= max_ms * 1e-3


def _verdict(estimate: Estimate, room: bool, max_ms: float | None) -> str:
    if not room:
        return "too large"
    limit = float("inf") if max_ms is None else max_ms * 1e-3
    if estimate.bound_s > limit:
        return "too slow"
    if estimate.expected_s == float("inf"):
        return "perhaps" if max_ms else "likely"
    if estimate.high_s <= limit:
        return "chosen"
    return "likely" if estimate.expected_s <= limit else ("perhaps" if estimate.low_s <= limit else "too slow")


def _draw(board: Device, ranking: list[Advice]) -> None:
    rows = [
        [one.network, one.verdict, f"{one.top1:.2f}", _ms(one.estimate.expected_s),
         f"{_ms(one.estimate.low_s)} - {_ms(one.estimate.high_s)}", _ms(one.estimate.bound_s), one.estimate.kernels,
         one.estimate.limit]
        for one in ranking
    ]  # fmt: skip
    heads = [
        "network",
        "verdict",
        f"top-1 % {ranking[0].dataset}" if ranking else "top-1 %",
        "expected ms",
        "range ms (2 in 3)",
        "bound ms",
        "kernels",
        "limited by",
    ]
    table(
        ", ".join(filter(None, (board.device, board.mode, ranking[0].precision if ranking else ""))),
        heads,
        rows,
        left=2,
        spare=("kernels", "bound ms", "limited by"),
    )


def _ms(seconds: float) -> str:
    return "?" if seconds == float("inf") else f"{seconds * 1e3:.3g}"


def _limit(max_ms: float | None) -> str:
    return "any latency" if max_ms is None else f"at most {max_ms:g} ms"


def _reason(best: Advice, board: Device, min_top1: float, max_ms: float | None) -> str:
    sure = (
        "even at the slow end of the range" if best.verdict == "chosen" else "by the expected latency; it may be slower"
    )
    return (
        f"{best.network}: the most accurate with top-1 {best.top1:.2f} % on {best.dataset} (asked: {min_top1:g}) and "
        f"{_limit(max_ms)} on the {board.device}, {sure}; there it is limited by {best.estimate.limit}"
    )


def _caveats(board: Device, precision: str) -> list[str]:
    caveats = [
        "latency is modelled, not measured: 19 published latencies were each predicted from other "
        f"devices, two thirds within a factor of {roofline.SPREAD}, all within {roofline.WORST}; measure it",
        "the published latencies are of resnet50, mobilenetv2 and shufflenetv2; other networks are less certain",
        f"figures of the {board.device}: {board.confidence} ({board.source})",
    ]
    if board.mode:
        caveats.append(
            f"{board.mode}: peaks are scaled by clock and multiprocessors, launch times by clock; no latency was "
            "published for a lower mode, so this scaling was never compared with a measurement"
        )
    if not board.is_gpu:
        caveats.append("for a CPU only a lower bound of the latency is known: the model was fitted to GPUs only")
    if precision == "int8":
        caveats.append("top-1 is the published value of FP32; measure the top-1 of INT8 with `edgesmith bench`")
    if precision == "int8" and not board.int8_tops:
        caveats.append(f"the {board.device} has no fast INT8: the estimate uses its FP16 peak")
    return caveats
