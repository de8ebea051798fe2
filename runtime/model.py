"""The Model of a loaded bundle: the part of Edgesmith that an application on the device imports.

from edgesmith.runtime import load
with load("bundles/mobilenetv2") as model:
    for guess in model("photo.png").top(5):
        print(guess.label, guess.probability)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .answer import Answer
from .backends._base import is_finite
from .batch_axes import answers, as_feeds, axes, count_samples, run
from .bundle.bundle import Bundle, settled
from .bundle.rollback import admitted
from .common.closeable import Closeable
from .errors import CANNOT, DataError, NotAvailable, RunError
from .images.preprocess import apply, as_array, as_image, from_pixels
from .selection import autotune_cache
from .selection.candidates import Candidate, admissible, open_artefact, open_file, usable
from .targets import is_simulated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .backends._base import Session
    from .bundle.signing import Keys

    Batch = NDArray[Any] | Mapping[str, NDArray[Any]]
    Sizes = Sequence[tuple[int, int] | None]

__all__ = ["Answer", "Model", "load"]
PROVED_IMAGES = 2


class Model(Closeable):
    """A bundle that has been loaded on a backend; use it as a context manager, or call `close`."""

    allow_nonfinite = False  # outputs that hold NaN or Inf are given as they are

    def __init__(self, bundle: Bundle, session: Session, chosen: Candidate, notes: tuple[str, ...] = ()) -> None:
        self.bundle, self.session, self.chosen, self.notes = bundle, session, chosen, notes
        self.spec = bundle.spec

    def __repr__(self) -> str:
        state = ", closed" if self.session.closed else ""
        return f"<Model: {self.spec.name} ({self.spec.task}), {self.chosen}{state}>"

    @functools.cached_property
    def batch_axes(self) -> dict[str, int | None]:
        """The batch axis of each output, None if it has none; see `batch_axes.axes`."""
        return axes(self.session, self.spec)

    def __call__(self, images: Any, *, channels: str = "RGB") -> Any:
        """Run the model on one image or several, or on arrays as the network takes them.

        Args:
            images: One image (a path, a Pillow image, uint8 (H, W, 3), (3, H, W) or (H, W)), a list of these, a uint8
                batch (N, H, W, 3); or samples ready to be fed: a float array in the network's layout (of any dtype for
                a model that takes no images), a dict of arrays (N, ...) by input name. Torch tensors are arrays too.
            channels: Order of the colours in uint8 arrays: "RGB", or "BGR" for OpenCV's frames.

        Returns:
            An Answer for one image, a list of Answers for a list or for N samples.

        Raises:
            DataError: An image or array cannot be used, or images are given to a model that takes none.
            RunError: The backend failed; an output holds NaN or Inf; or an output has no batch axis, and the model
                takes several images at once.
        """
        if isinstance(images, Mapping):
            return self.answers({name: as_array(value) for name, value in images.items()})
        images = as_array(images)
        if isinstance(images, np.ndarray) and (images.dtype.kind == "f" or not self.spec.takes_images):
            if channels != "RGB":
                expected = "uint8 images; a float batch is the network's own input, in its own order"
                raise DataError(f"channels={channels!r} does not fit a float batch", expected=expected)
            return self.answers(images)
        if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4):
            self.spec.require_images()
            pixels = [as_image(image, channels) for image in images]
            sizes = [(image.shape[0], image.shape[1]) for image in pixels]
            return self.answers(from_pixels(pixels, self.spec), finite=True, sizes=sizes) if pixels else []
        return self([images], channels=channels)[0]

    def preprocess(self, images: Any, channels: str = "RGB") -> NDArray[Any]:
        """Return images as the network's input, the batch first.

        Raises:
            DataError: An image cannot be used, or the model takes no images.
        """
        self.spec.require_images()
        return apply(images, self.spec, channels)

    def run(self, batch: Batch, *, finite: bool = False) -> dict[str, NDArray[Any]]:
        """Compute the outputs of a batch, by name, without postprocessing.

        Args:
            batch: The samples as the network takes them: an array (NCHW, of the dtype in the spec), or a dict of arrays
                by input name where there are several. A model with a fixed batch runs it in slices, the last one padded
                with copies of its last sample; outputs are joined along their batch axis.
            finite: Skip the search for NaN and Inf in the batch because the caller knows that there are none.

        Raises:
            DataError: Wrong shape or dtype, a size outside its range, or NaN or Inf in it.
            RunError: The backend failed, the model is closed, an output holds NaN or Inf, or an output without a batch
                axis would have to be joined.
        """
        first, *others = self.session.inputs
        size = first.shape[0]
        alone = (
            not others and not self.spec.ranges and isinstance(batch, np.ndarray) and batch.shape[:1] not in ((), (0,))
        )
        if alone and (size is None or batch.shape == first.shape):  # type: ignore[union-attr]  # an array
            return self._checked(self.session.run({first.name: batch}, finite=finite))  # type: ignore[dict-item]
        feeds = as_feeds(batch, self.spec)
        if count_samples(self.session, feeds) == size or size is None:
            return self._checked(self.session.run(feeds, finite=finite))
        return self._checked(run(self.session, feeds, self.batch_axes, finite=finite))

    def _checked(self, outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, value in outputs.items() if not self.allow_nonfinite else ():
            if not is_finite(value):
                raise RunError(
                    f"output {name!r} of {self.chosen.artefact.name} holds NaN or Inf", expected="finite numbers",
                    do="`edgesmith verify` the bundle; load(…, allow_nonfinite=True) returns them unchanged",
                )  # fmt: skip
        return outputs

    def why(self) -> str:
        """Return what runs on which backend, what was measured, and which candidates were skipped and why; lines."""
        lines = [f"chosen: {self.chosen}", *self.notes]
        for name, axis in self.batch_axes.items():
            if axis != 0:
                lines.append(f"output {name!r}: {'no batch axis' if axis is None else f'the batch is axis {axis}'}")
        return "\n".join(lines)

    def close(self) -> None:
        """Release the backend's memory; a second call does nothing."""
        self.session.close()

    def answers(self, batch: Batch, *, finite: bool = False, sizes: Sizes = ()) -> list[Answer]:
        """Return one Answer for each sample of a batch, which is as for `run`.

        With `sizes`, (height, width) of each image, places are given in pixels of the image, else of the input.
        If an output has no batch axis, each image is run alone and that output is returned unchanged.

        Raises:
            DataError, RunError: As `__call__`.
        """
        parts = answers(self.session, as_feeds(batch, self.spec), self.batch_axes, finite=finite)
        places = zip(parts, sizes or [None] * len(parts), strict=True)
        return [Answer(self._checked(part), self.spec.task, self.spec.context(size)) for part, size in places]


def load(
    bundle: str | Path | Bundle, device: str = "auto", precision: str = "auto", threads: int | None = None, *,
    rebuild: bool = False, trusted_key: Keys | None = None, name: str | None = None, min_version: int = 0,
    allow_rollback: bool = False, allow_nonfinite: bool = False,
) -> Model:  # fmt: skip
    """Load the best artefact of a bundle that works on this device, in the order of `selection/candidates.py`.

    With device "auto" the artefacts that run on the GPU, or else on the CPU, are measured once and the result is
    cached; see `selection/autotune.py`.

    Args:
        bundle: A bundle's folder or .zip, or an opened bundle.
        device: "auto", "cpu", "gpu", or a backend's name ("ort", "trt").
        precision: "auto", "fp32", "fp16", "int8".
        threads: Threads of CPU backends; with None the backend chooses.
        rebuild: If there is a GPU and no engine in the bundle runs on it, build one from the bundle's ONNX file; this
            takes minutes the first time, and the engine is cached.
        trusted_key: Public keys, one of which must have signed the bundle; None means those of $EDGESMITH_TRUSTED_KEYS.
        name: The network that it must be, of several that one key signs; None allows any.
        min_version: Lowest version that its signature may have.
        allow_rollback: Load a version of a signed network although this device ran a higher one.
        allow_nonfinite: Return outputs that hold NaN or Inf; otherwise they raise RunError.

    Raises:
        UsageError: The bundle does not exist, or there is no such device, precision or key.
        BundleError: The bundle is damaged, was tampered with, or is not signed as required.
        NotAvailable: No artefact of the bundle runs here; the message has the reason for each.
    """

    def loaded(contents: Bundle) -> Model:
        with admitted(contents, trusted_key, name, min_version, allow_rollback):
            return _loaded(contents, device, precision, threads, rebuild)

    model = loaded(bundle) if isinstance(bundle, Bundle) else settled(bundle, loaded)
    model.allow_nonfinite = allow_nonfinite
    return model


def _loaded(bundle: Bundle, device: str, precision: str, threads: int | None, rebuild: bool) -> Model:
    """Load the best artefact of an opened bundle; see `load`."""
    order, notes = admissible(bundle, device, precision)
    on_gpu, on_cpu = ([candidate for candidate in order if candidate.device == kind] for kind in ("gpu", "cpu"))
    begun: Session | None = None
    if device == "auto":
        on_gpu, _, begun = _measured(bundle, on_gpu, 1, notes)
    if model := _first(bundle, on_gpu, threads, notes, begun):
        return model
    if rebuild and (model := _rebuilt(bundle, order, notes)):
        return model
    if device == "auto":
        on_cpu, threads, begun = _measured(bundle, on_cpu, threads, notes)
    if model := _first(bundle, on_cpu, threads, notes, begun):
        return model
    raise NotAvailable(
        f"no artefact in {bundle.source} runs here", got=" | ".join(notes)[:1500] or f"no artefact for {device}",
        do="see `edgesmith doctor`",
    )  # fmt: skip


def _first(
    bundle: Bundle, order: list[Candidate], threads: int | None, notes: list[str], begun: Session | None = None
) -> Model | None:
    """Open the first candidate that can be opened, and note why earlier ones cannot; `begun` is the first, if open."""
    for backend in dict.fromkeys(candidate.backend for candidate in order):
        ready, reason = usable(backend)
        if not ready:
            count = sum(candidate.backend == backend for candidate in order)
            notes.append(f"skipped: {count} for {backend}, which cannot be used here: {reason}")
    if begun:
        return Model(bundle, begun, order[0], tuple(notes))
    for candidate in (one for one in order if usable(one.backend)[0]):
        try:
            session = open_artefact(bundle, candidate.artefact, candidate.backend, threads=threads)
        except CANNOT as error:
            notes.append(f"skipped: {candidate}: {error}")
            continue
        return Model(bundle, session, candidate, tuple(notes))
    return None


def _rebuilt(bundle: Bundle, order: list[Candidate], notes: list[str]) -> Model | None:
    """Rebuild the best engine for this machine, and open it."""
    from .bundle import requirements

    for candidate in (one for one in order if one.artefact.role == "engine" and usable(one.backend)[0]):
        try:
            path = requirements.rebuild_engine(bundle, candidate.artefact)
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
    """Move the fastest candidate on this machine to the front, and note the measured latencies.

    Returns:
        The order, the thread count of the first candidate, and its session if it was opened for the measurement.
    """
    able = [one for one in order if usable(one.backend)[0] and not is_simulated(one.artefact.target, one.backend)]
    if len(able) < 2:
        return order, threads, None
    name, session = autotune_cache.key(bundle, able, threads), None
    choice = autotune_cache.remembered(name, threads)
    if choice is None:
        from .selection import autotune

        other_answers: list[str] = []
        proved = functools.partial(_proved, bundle, other_answers)
        winner = autotune.measure(able, proved, threads, functools.partial(autotune.trial_feeds, bundle))
        if winner is None:
            return order, threads, None
        choice, session = autotune_cache.Choice.of(winner, sorted(set(other_answers))), winner.session
        autotune_cache.remember(name, choice)
    chosen = (choice.artefact, choice.backend)
    notes += [f"measured here: {1e3 * seconds:.2f} ms {what}" for what, seconds in choice.seconds.items()]
    notes += [f"not taken: {what}" for what in choice.refused]
    return sorted(order, key=lambda one: (one.artefact.name, one.backend) != chosen), choice.threads, session


def _proved(bundle: Bundle, other_answers: list[str], candidate: Candidate, threads: int | None) -> Session:
    """Open a candidate, and refuse it if its outputs are not the golden ones; `other_answers` gets the reason."""
    from .verify import replayed

    session = open_artefact(bundle, candidate.artefact, candidate.backend, threads=threads)
    result = replayed(bundle, candidate.artefact, candidate.backend, session, images=PROVED_IMAGES)
    if result.status in ("failed", "differs"):
        session.close()
        problem = f"{candidate} gives other outputs here than where it was exported"
        other_answers.append(f"{problem}; error {result.error}, at most {result.tolerance:g}")
        raise RunError(problem, got=f"error {result.error}")
    return session
