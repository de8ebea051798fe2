"""The network of the zoo that is most similar to a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import catalog

if TYPE_CHECKING:
    import torch


_CANDIDATES, _MUCH = 3, 0.8


def nearest_network(state: Mapping[str, torch.Tensor]) -> str:
    """Return the network whose keys and shapes are most similar to a checkpoint's, if they are similar enough.

    Candidates are the nearest networks by number of parameters, both as given and with 1000 classes.
    """
    import torch

    count = sum(value.numel() for key, value in state.items() if ".running_" not in key)
    last = [value.shape for value in state.values() if value.dim() == 2][-1:] or [torch.Size((1000, 0))]
    usual = count + (1000 - last[0][0]) * (last[0][1] + 1)
    entries = [catalog.find_network(name) for name in catalog.network_names()]
    near = {
        entry.name: entry
        for wanted in (count, usual)
        for entry in sorted(entries, key=lambda entry: abs((entry.figures.params or 0) - wanted))[:_CANDIDATES]
    }
    alike = {}
    for entry in near.values():
        with torch.device("meta"):
            own = catalog.build_network(entry.name, entry.classes).state_dict()
        # A key of another shape counts half: other input channels or classes do not change the network.
        same = sum((1.0 if own[key].shape == value.shape else 0.5) for key, value in state.items() if key in own)
        alike[entry.name] = same / max(len(own), len(state))
    best = max(alike, key=lambda name: alike[name])
    return f"it looks like {best}" if alike[best] >= _MUCH else ""
