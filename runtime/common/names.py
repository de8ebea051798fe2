"""Rules for names (of networks and artefacts, which become file names; of labels and tensors), and lists of names."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

LONGEST_NAME, LONGEST_TEXT, DEEPEST = 128, 1024, 8
RULE = (
    f"at most {LONGEST_NAME} letters, digits and . _ - , that begin with a letter, digit or _; no Windows device name"
)
TEXT_RULE = f"printable text of at most {LONGEST_TEXT} characters, no control character or end of line"
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._,-]{{0,{LONGEST_NAME - 1}}}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# control characters, surrogates, ends of lines, and what turns the direction of the text around it
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_name(value: Any) -> bool:
    """Return whether a value can be the name of a network, an artefact, a file or a folder on every system."""
    return (
        isinstance(value, str)
        and _NAME.fullmatch(value) is not None
        and not value.endswith(".")
        and _RESERVED.fullmatch(value) is None
    )


def is_path(value: Any) -> bool:
    """Return whether a value is a relative path of at most DEEPEST names, separated by /."""
    parts = value.split("/") if isinstance(value, str) else []
    return 0 < len(parts) <= DEEPEST and all(map(is_name, parts))


def is_text(value: Any) -> bool:
    """Return whether a value can be the name of a label or tensor: any printable text; it is never part of a path."""
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and all(map(is_printable, value))


def is_printable(char: str) -> bool:
    """Return whether a character is neither a control character nor an end of line, and turns no text around it."""
    return unicodedata.category(char) not in _UNPRINTABLE and char not in _TURNING


def split_words(text: str) -> list[str]:
    """Return the words of a comma-separated list, without spaces; may be empty."""
    return [word for word in text.replace(" ", "").split(",") if word]
