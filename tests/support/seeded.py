"""Weights and images that are the same everywhere: by arithmetic on indices, not by a generator."""

import hashlib

import torch


def noise(shape, number: int) -> torch.Tensor:
    """Return float64 values that look uniform in [-0.5, 0.5)."""
    count = int(torch.tensor(shape).prod()) if len(shape) else 1
    index = torch.arange(count, dtype=torch.float64)
    values = torch.sin(index * 12.9898 + number * 78.233) * 43758.5453
    return (values - values.floor() - 0.5).reshape(tuple(shape))


def fill(module: torch.nn.Module) -> None:
    """Give a module seeded weights with which activations keep their size; the order of its keys does not matter."""
    for number, (key, value) in enumerate(sorted(module.state_dict().items())):
        if not value.is_floating_point():
            continue
        drawn = noise(value.shape, number)
        if value.dim() > 1:
            drawn = drawn * (24 / max(1, value[0].numel())) ** 0.5
        elif key.endswith(("running_var", "weight")):
            drawn = drawn * 0.5 + 1
        else:
            drawn = drawn * 0.2
        value.copy_(drawn)


def image(shape) -> torch.Tensor:
    """Return a seeded float32 input (1, C, H, W) with values in [-1, 1)."""
    return (noise((1, *shape), 7) * 2).float()


def keys_digest(state) -> str:
    """Return the SHA-256 of the key names and shapes of a state dict, without regard to their order."""
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
