"""Load a bundle and ask it: the part of Edgesmith that an application on the device imports.

from edgesmith.runtime import load
with load("bundles/mobilenetv2") as model:
    for guess in model("photo.png").top(5):
        print(guess.label, guess.probability)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import signing, tune
from .bundle import Bundle, read
from .choose import Candidate, candidates, open_artefact, open_file, retired, usable
from .closing import Closing
from .errors import CANNOT, DataError, NotAvailable, RunError
from .postprocess import Box, Guess, box, class_map, softmax, top_k
from .preprocess import apply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .backends._base import Session
    from .signing import Keys


PROVED_IMAGES = 2


@dataclass(frozen=True)
class Answer:
    """What the network said about one image: its outputs by name, without the batch dimension.

    `task` is the spec's: "classify" has `top`, "segment" `class_map`, "localise" `box`.
    """

    outputs: Mapping[str, NDArray[Any]]
    labels: tuple[str, ...] = ()
    task: str = "classify"

    @property
    def logits(self) -> NDArray[Any]:
        """The first output, (classes,) for a classifier."""
        return next(iter(self.outputs.values()))

    @functools.cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the logits, float32."""
        return softmax(self.logits, axis=0)

    def top(self, k: int = 5) -> tuple[Guess, ...]:
        """Return the `k` best classes, best first.

        Raises:
            DataError: The network does not classify.
        """
        if self.logits.ndim != 1 or self.task != "classify":
            raise DataError("this network does not classify", got=self._what())
        return top_k(self.logits, k, self.labels)

    def class_map(self) -> NDArray[np.int64]:
        """Return the best class of each pixel, int64 (H, W).

        Raises:
            DataError: The network does not segment: its output is no map of class scores (classes, H, W).
        """
        if self.logits.ndim != 3 or self.task != "segment":
            raise DataError("this network does not segment", got=self._what())
        return class_map(self.logits)

    def box(self) -> Box:
        """Return the rectangle around the object, as shares of the image.

        Raises:
            DataError: The network does not localise.
        """
        if self.logits.shape != (4,) or self.task != "localise":
            raise DataError("this network does not localise", got=self._what())
        return box(self.logits)

    def _what(self) -> str:
        return f"task {self.task}, an output of shape {self.logits.shape}"


class Model(Closing):
    """A bundle that has been loaded on a backend; use it as a context manager, or call `close`."""

    def __init__(self, bundle: Bundle, session: Session, chosen: Candidate, notes: tuple[str, ...] = ()) -> None:
        self.bundle, self.session, self.chosen, self.notes = bundle, session, chosen, notes
        self.spec = bundle.spec
        self._batch = session.inputs[0].shape[0]

    def __call__(self, images: Any) -> Any:
        """Answer what is on one image or several.

        Args:
            images: One image (a path, a Pillow image, uint8 (H, W, 3) or (H, W)), a list of these, or a preprocessed
                batch as a float array in NCHW.

        Returns:
            An Answer for one image, a list of Answers for a list or a batch.

        Raises:
            DataError: An image cannot be used.
            RunError: The backend failed.
        """
        if isinstance(images, (list, tuple)):
            return self.answers(apply(images, self.spec), finite=True) if images else []
        if isinstance(images, np.ndarray) and images.dtype.kind == "f":
            return self.answers(images, finite=False)
        return self.answers(apply([images], self.spec), finite=True)[0]

    def run(self, batch: NDArray[Any], *, finite: bool = False) -> dict[str, NDArray[Any]]:
        """Compute the outputs of a preprocessed batch, by name.

        Args:
            batch: NCHW, of the dtype in the spec (float32). A model with a fixed batch runs it in slices, the last one
                filled up with copies of its last image.
            finite: Skip the search for NaN and Inf, where the caller knows that there are none.

        Raises:
            DataError: Wrong shape or dtype, or NaN or Inf in it.
            RunError: The backend failed, or the model is closed.
        """
        if not isinstance(batch, np.ndarray) or not batch.ndim:
            raise DataError("this is no batch", got=type(batch).__name__, expected="an array in NCHW")
        size, name = self._batch, self.session.inputs[0].name
        if size is None or len(batch) == size or batch.ndim != 1 + len(self.spec.input_shape):
            return self.session.run({name: batch}, finite=finite)
        count = len(batch)
        if not count:
            raise DataError("the batch is empty", expected="one image or more")
        filled = np.concatenate([batch, *[batch[-1:]] * (-count % size)]) if count % size else batch
        parts = [self.session.run({name: filled[at : at + size]}, finite=finite) for at in range(0, count, size)]
        return {key: np.concatenate([part[key] for part in parts])[:count] for key in parts[0]}

    def why(self) -> str:
        """Return what runs on which backend, what was measured, and why those before it were passed over; lines."""
        return "\n".join([f"chosen: {self.chosen}", *self.notes])

    def close(self) -> None:
        """Give the backend's memory back; a second call does nothing."""
        self.session.close()

    def answers(self, batch: NDArray[Any], *, finite: bool = False) -> list[Answer]:
        """Return one Answer for each image of a preprocessed batch; see `run`."""
        outputs = self.run(batch, finite=finite)
        return [
            Answer({name: value[at] for name, value in outputs.items()}, self.spec.labels, self.spec.task)
            for at in range(len(batch))
        ]


def load(
    bundle: str | Path | Bundle,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    *,
    rebuild: bool = False,
    trusted_key: Keys | None = None,
) -> Model:
    """Load the best artefact of a bundle that works on this device; see `choose` for the order.

    With device "auto" what runs on the GPU, or where nothing does, on the CPU, is measured once and remembered; see
    `tune`.

    Args:
        bundle: A bundle's folder or .zip, or one that was read already.
        device: "auto", "cpu", "gpu", or a backend's name ("ort", "trt").
        precision: "auto", "fp32", "fp16", "int8".
        threads: For CPU backends; None leaves the choice to them.
        rebuild: Where a GPU is and no engine in the bundle fits it, build one from the bundle's ONNX file; it takes
            minutes the first time and is kept in the cache.
        trusted_key: Public keys, one of which must have signed the bundle; None takes those of $EDGESMITH_TRUSTED_KEYS.

    Raises:
        UsageError: Nothing is there, or no such device, precision or key.
        BundleError: The bundle is damaged, was tampered with, or is not signed as asked.
        NotAvailable: Nothing in the bundle runs here; the message has the reason for each artefact.
    """
    opened = bundle if isinstance(bundle, Bundle) else read(bundle, trusted_key=trusted_key)
    if opened is bundle:
        signing.check(opened, trusted_key)
    order = candidates(opened, device, precision)
    notes = [f"passed over: {artefact.name}: {why}" for artefact in opened.artefacts if (why := retired(artefact))]
    on_gpu, on_cpu = ([candidate for candidate in order if candidate.device == kind] for kind in ("gpu", "cpu"))
    begun: Session | None = None
    if device == "auto":
        on_gpu, _, begun = _measured(opened, on_gpu, 1, notes)
    if model := _first(opened, on_gpu, threads, notes, begun):
        return model
    if rebuild and (model := _rebuilt(opened, order, notes)):
        return model
    if device == "auto":
        on_cpu, threads, begun = _measured(opened, on_cpu, threads, notes)
    if model := _first(opened, on_cpu, threads, notes, begun):
        return model
    raise NotAvailable(
        f"nothing in {opened.source} runs here", got=" | ".join(notes)[:1500] or f"no artefact for {device}",
        do="see `edgesmith doctor`",
    )  # fmt: skip


def _first(
    bundle: Bundle, order: list[Candidate], threads: int | None, notes: list[str], begun: Session | None = None
) -> Model | None:
    """Open the first candidate that can be opened, and note why those before it cannot; `begun` is the first, open."""
    for backend in dict.fromkeys(candidate.backend for candidate in order):
        ready, reason = usable(backend)
        if not ready:
            count = sum(candidate.backend == backend for candidate in order)
            notes.append(f"passed over: {count} for {backend}, which cannot be used here: {reason}")
    if begun:
        return Model(bundle, begun, order[0], tuple(notes))
    for candidate in (one for one in order if usable(one.backend)[0]):
        try:
            session = open_artefact(bundle, candidate.artefact, candidate.backend, threads=threads)
        except CANNOT as error:
            notes.append(f"passed over: {candidate}: {error}")
            continue
        return Model(bundle, session, candidate, tuple(notes))
    return None


def _rebuilt(bundle: Bundle, order: list[Candidate], notes: list[str]) -> Model | None:
    """Build the best engine anew for this machine, and open it."""
    from . import contract

    for candidate in (one for one in order if one.artefact.role == "engine" and usable(one.backend)[0]):
        try:
            path = contract.rebuild(bundle, candidate.artefact)
            session = open_file(path, candidate.backend)
        except CANNOT as error:
            notes.append(f"not rebuilt: {candidate}: {error}")
            continue
        notes.append(f"rebuilt here: {path}")
        return Model(bundle, session, candidate, tuple(notes))
    return None


def _measured(
    bundle: Bundle, order: list[Candidate], threads: int | None, notes: list[str]
) -> tuple[list[Candidate], int | None, Session | None]:
    """Put the candidate that is fastest here in front, and note what was measured.

    Returns:
        The order, the threads of its first, and that one's session where it was opened to be measured.
    """
    able = [candidate for candidate in order if usable(candidate.backend)[0] and not _emulated(candidate)]
    if len(able) < 2:
        return order, threads, None
    name, session = tune.key(bundle, able, threads), None
    choice = tune.remembered(name)
    if choice is None:
        from . import trial

        winner = trial.measure(able, lambda one, count: _proved(bundle, one, count), threads)
        if winner is None:
            return order, threads, None
        choice, session = tune.Choice.of(winner), winner.session
        tune.remember(name, choice)
    chosen = (choice.artefact, choice.backend)
    notes += [f"measured here: {1e3 * seconds:.2f} ms {what}" for what, seconds in choice.seconds.items()]
    return sorted(order, key=lambda one: (one.artefact.name, one.backend) != chosen), choice.threads, session


def _proved(bundle: Bundle, candidate: Candidate, threads: int | None) -> Session:
    """Open a candidate, and refuse it if it does not compute here what the artefact computed where it was made."""
    from .verify import replayed

    session = open_artefact(bundle, candidate.artefact, candidate.backend, threads=threads)
    result = replayed(bundle, candidate.artefact, candidate.backend, session, images=PROVED_IMAGES)
    if result.status in ("failed", "differs"):
        session.close()
        raise RunError(f"{candidate} does not compute here what it did where it was made", got=f"error {result.error}")
    return session


def _emulated(candidate: Candidate) -> bool:
    """ONNX Runtime computes TensorRT's form operator by operator: right, and slow."""
    return candidate.backend == "ort" and candidate.artefact.target == "trt"
