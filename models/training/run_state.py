"""The state of a training run in one file, for bit-exact resumption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.common.files import atomic_file
from ...runtime.errors import ModelError, UsageError

if TYPE_CHECKING:
    from .run import TrainingRun

VERSION = 2


def nothing_to_resume(path: Path | None) -> UsageError:
    """Return the error for a run that cannot be resumed because it does not exist."""
    return UsageError("there is no run to resume", got=str(path), do="train without --resume")


@dataclass(frozen=True)
class RunState:
    """Writes the state to `path` after each epoch (None: nowhere) and restores it when `resume` is set.

    `facts` are what the run depends on, by name: a run of other facts is not resumed.
    """

    path: Path | None
    resume: bool
    facts: Mapping[str, str]

    def save(self, run: TrainingRun) -> None:
        """Write atomically everything that the next epoch depends on."""
        if self.path is None:
            return
        import torch

        state: dict[str, Any] = {
            "version": VERSION,
            "facts": dict(self.facts),
            "module": run.module.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict(),
            "generator": run.generator.get_state(),
            "global_generator": torch.get_rng_state(),
            "average": run.average,
            "best": run.best,
            "progress": [run.best_loss, run.since_best, run.epoch],
            "history": run.history,
        }
        with atomic_file(self.path) as temporary:
            torch.save(state, temporary)

    def restore(self, run: TrainingRun) -> None:
        """Restore the state from the file if resumption is requested.

        Raises:
            UsageError: There is no run to resume, or it has another recipe, seed, start or other images.
            ModelError: The file is damaged or of another network.
        """
        if not self.resume:
            return
        if self.path is None or not self.path.is_file():
            raise nothing_to_resume(self.path)
        state = self._read()
        try:
            other = [name for name, value in self.facts.items() if state["facts"].get(name) != value]
            if other:
                raise UsageError(
                    f"{self.path} is a run with another {' and '.join(other)}",
                    got=", ".join(f"{name} {self.facts[name][:40]}" for name in other),
                    expected=", ".join(f"{name} {str(state['facts'].get(name))[:40]}" for name in other),
                    do="use its options, or choose another --out",
                )
            self._apply(run, state)
        except (RuntimeError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(
                f"{self.path} is not a run of this network", got=str(error)[:200], do="train without --resume"
            ) from error

    def _read(self) -> dict[str, Any]:
        import torch

        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
            if state["version"] != VERSION:
                raise ValueError(f"version {state['version']}")
        except Exception as error:  # the unpickler raises whatever a damaged file leads it to
            raise ModelError(
                f"{self.path} is not a training state", got=str(error)[:200], do="train without --resume"
            ) from error
        checked: dict[str, Any] = state
        return checked

    @staticmethod
    def _apply(run: TrainingRun, state: dict[str, Any]) -> None:
        import torch

        run.module.load_state_dict(state["module"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.scheduler.load_state_dict(state["scheduler"])
        run.generator.set_state(state["generator"])
        torch.set_rng_state(state["global_generator"])
        run.average, run.best = state["average"], state["best"]
        run.best_loss, run.since_best, run.epoch = state["progress"]
        run.history = list(state["history"])
