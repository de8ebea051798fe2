"""Other measurements in one process: concurrent streams, end-to-end time from an image file, GPU time."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.answer import Answer
from ...runtime.common.files import scratch
from ...runtime.common.packages import need
from ...runtime.errors import NotAvailable, UsageError
from ...runtime.images.preprocess import apply, read_image
from ...runtime.tasks import find
from . import clock
from .workload import Workload

if TYPE_CHECKING:
    from ...runtime.backends._base import Session

PHOTO = (480, 640)  # height and width of the image file that is answered


def streams(call: clock.Call, count: int, seconds: float) -> dict[str, Any]:
    """Call from `count` threads for `seconds`; return the number of calls, and the seconds until the last one ended.

    An exception in a thread is raised here after all threads have stopped.
    """
    done, failures, barrier = [0] * count, list[BaseException](), threading.Barrier(count + 1)
    ends = [0]

    def stream(index: int) -> None:
        barrier.wait()
        try:
            while clock.now_ns() < ends[0]:
                call()
                done[index] += 1
        except BaseException as error:
            failures.append(error)
            ends[0] = 0

    threads = [threading.Thread(target=stream, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    began = clock.now_ns()
    ends[0] = began + round(seconds * 1e9)
    barrier.wait()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return {"calls": sum(done), "seconds": (clock.now_ns() - began) * 1e-9}


def end_to_end(workload: Workload, count: int) -> dict[str, Any]:
    """Process a seeded 640x480 JPEG `count` times; return the seconds of each stage of each run.

    Stages of an engine are timed by the GPU's clock; `launch_s` is the rest of the call.

    Raises:
        UsageError: The subject is a file without a bundle, so its preprocessing is unknown.
        DataError: The network takes no images.
    """
    session, spec = workload.session, workload.spec
    if session is None or spec is None:
        raise UsageError("a file without a bundle does not describe its images", do="measure a bundle")
    spec.require_images()
    stages: dict[str, list[float]] = {}
    size, name = session.inputs[0].shape[0] or 1, session.inputs[0].name
    with scratch("bench") as folder:
        path = _photo(folder / "photo.jpg")
        for _ in range(count):
            moments = [clock.now_ns()]
            image = read_image(path)
            moments.append(clock.now_ns())
            batch = apply([image] * size, spec)
            moments.append(clock.now_ns())
            outputs = session.run({name: batch}, finite=True)
            moments.append(clock.now_ns())
            if find(spec.task).batch_first:
                first = {name: value[0] for name, value in outputs.items()}
                Answer(first, spec.task, spec.context(PHOTO)).show(5)
            moments.append(clock.now_ns())
            decode, preprocess, compute, postprocess = (float(spent) * 1e-9 for spent in np.diff(moments))
            spent = {"decode_s": decode, "preprocess_s": preprocess, **_on_device(session, {name: batch}, compute)}
            for stage, seconds in {**spent, "postprocess_s": postprocess}.items():
                stages.setdefault(stage, []).append(seconds)
    return stages


def device_time(workload: Workload, count: int) -> dict[str, list[float]]:
    """Return the seconds of `count` calls on random input by the GPU's clock, for each stage.

    Raises:
        NotAvailable: The backend has no GPU clock.
    """
    session = workload.session
    if session is None or not hasattr(session, "timed"):
        raise NotAvailable("only engines can be timed by the GPU's clock")
    splits = [asdict(session.timed(workload.feeds)) for _ in range(count)]
    return {stage: [split[stage] for split in splits] for stage in splits[0]}


def _on_device(session: Session, feeds: dict[str, Any], wall_s: float) -> dict[str, float]:
    """Split a call's seconds into stages if the device has a clock; otherwise all of it is compute time."""
    if not hasattr(session, "timed"):
        return {"compute_s": wall_s}
    split = asdict(session.timed(feeds))
    return {**split, "launch_s": max(0.0, wall_s - sum(split.values()))}


def _photo(path: Path) -> Path:
    """Write a smooth seeded image as JPEG; pure noise would take longer to decode than a photograph."""
    image = need("PIL.Image")
    coarse = np.random.default_rng(0).integers(0, 256, (PHOTO[0] // 16, PHOTO[1] // 16, 3), dtype=np.uint8)
    image.fromarray(coarse).resize((PHOTO[1], PHOTO[0])).save(path, quality=90)
    return path
