"""Seeded choices: one of some things, an extreme number, an odd text."""

HUGE = (0, -1, 1, 2**20, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))
TEXTS = ("", "x" * 70_000, "\0", "../../etc/passwd", "/etc/passwd", "é\n\r", "input", "a/b:0", "Conv")


def some(rng, items):
    items = list(items)
    return items[rng.integers(len(items))] if items else None


def number(rng):
    return int(HUGE[rng.integers(len(HUGE))])


def text(rng):
    return TEXTS[rng.integers(len(TEXTS))]
