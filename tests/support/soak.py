"""A long run: one live model, four threads, bundles exchanged under it; every answer checked, memory and times watched.

python tests/support/soak.py --frames 200000
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgesmith.runtime import bundle
from edgesmith.runtime.backends import ort
from edgesmith.runtime.common import files
from edgesmith.runtime.common.machine import read_text
from edgesmith.runtime.serving.reload import ReloadingModel
from edgesmith.runtime.verify import replay
from support.bundles import SPEC, colour_net, golden_inputs

GAINS = (4.0, 2.0)
PARTS = 10


@dataclass(frozen=True)
class Soaked:
    """What came out: frames, wrong answers, reloads; resident bytes and p99 seconds of each tenth of the run."""

    frames: int
    wrong: int
    errors: int
    reloads: int
    seconds: float
    rss_bytes: tuple[int, ...]
    p99_s: tuple[float, ...]
    threads_left: int
    files_left: int

    @property
    def growth(self) -> float:
        """Resident bytes in the last tenth over those after the first, less 1."""
        return self.rss_bytes[-1] / self.rss_bytes[0] - 1


def variants(folder: Path) -> list[tuple[Path, np.ndarray]]:
    """Write two bundles of one network with different weights; return them with their golden outputs."""
    made = []
    for number, gain in enumerate(GAINS):
        net = colour_net(folder / f"colours-{number}.onnx", gain=gain)
        with ort.open(net, threads=1) as session:
            outputs = replay(session, golden_inputs())
        target = folder / f"variant{number}"
        bundle.write(target, SPEC, [bundle.Item(net, golden=outputs)], golden_inputs=golden_inputs())
        made.append((target, outputs["output"]))
    return made


class Soak:
    """The threads' common state."""

    def __init__(self, live: ReloadingModel, expected: list[np.ndarray], frames: int) -> None:
        self.live, self.expected, self.frames = live, expected, frames
        self.inputs = golden_inputs()["input"]
        self.lock = threading.Lock()
        self.done = self.wrong = self.errors = 0
        self.times = np.full(frames, np.nan)  # filled now, so that memory does not grow with them
        self.rss: list[int] = []

    def work(self) -> None:
        """Ask until all frames are done: each answer must be that of one of the two variants, to the bit."""
        while (number := self._next()) is not None:
            start = time.perf_counter()
            try:
                answer = self.live(self.inputs[number % 4 : number % 4 + 1])[0].logits
            except Exception:
                self.errors += 1
                continue
            self.times[number] = time.perf_counter() - start
            if not any(np.array_equal(answer, expected[number % 4]) for expected in self.expected):
                self.wrong += 1

    def _next(self) -> int | None:
        with self.lock:
            number = self.done
            if number == self.frames:
                return None
            self.done += 1
            if (number + 1) % (self.frames // PARTS) == 0:
                self.rss.append(resident())
            return number


def resident() -> int:
    fields = dict(line.split(":", 1) for line in read_text("/proc/self/status").splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) * 1024


def soak(frames: int, threads: int = 4, every_s: float = 0.5) -> Soaked:
    """Run it, and exchange the bundle every `every_s` seconds."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        made, place, reloads = variants(folder), folder / "live", 0
        put(made[0][0], place)
        before = threading.active_count()
        start = time.perf_counter()
        with ReloadingModel(place, device="ort", threads=1) as live:
            state = Soak(live, [output for _, output in made], frames)
            workers = [threading.Thread(target=state.work) for _ in range(threads)]
            for worker in workers:
                worker.start()
            while any(worker.is_alive() for worker in workers):
                time.sleep(every_s)
                put(made[(reloads + 1) % 2][0], place)
                reloads += live.refresh()
            for worker in workers:
                worker.join()
        seconds = time.perf_counter() - start
        left = len(list(folder.iterdir())) - 5
        p99 = tuple(float(np.nanpercentile(part, 99)) for part in np.array_split(state.times, PARTS))
        return Soaked(state.done, state.wrong, state.errors, reloads, seconds, tuple(state.rss), p99,
                      threading.active_count() - before, left)  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(source: Path, place: Path) -> None:
    """Exchange the live bundle, in one step."""
    with files.atomic_folder(place) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=4)
    told = parser.parse_args()
    found = soak(told.frames, told.threads)
    sys.stdout.write(json.dumps({**asdict(found), "growth": found.growth}, indent=1) + "\n")
    return int(bool(found.wrong or found.errors) or found.growth > 0.02)


if __name__ == "__main__":
    sys.exit(main())
