"""Text from elsewhere (names, paths, messages of libraries) in what Edgesmith writes: one function for each format."""

from __future__ import annotations

import re

from .names import is_printable

_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COMMAND = re.compile(r"(?m)^([^\S\n]*:)(?=:)|(##)(?=\[)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def for_terminal(text: str) -> str:
    """Return text whose control characters are visible, and that no CI system takes for a command of its own.

    Ends of lines and tabs stay. GitHub reads `::error::…` at the start of a line, and `##[error]…` anywhere.
    """
    visible = "".join(char if char in "\n\t" or is_printable(char) else ascii(char)[1:-1] for char in text)
    return _COMMAND.sub(lambda match: f"{match[0]} ", visible)


def for_json(text: str) -> str:
    """Return serialised JSON, equal in meaning, that no CI system takes for a command."""
    return text.replace("##[", "#\\u0023[")


def for_markdown(text: str) -> str:
    """Return text as part of one line or table cell of Markdown: it starts no cell, link, image, element or line."""
    return re.sub(r"[\\|<\[]", r"\\\g<0>", " ".join(for_terminal(text).split()))


def for_csv(text: str) -> str:
    """Return text as a CSV cell that a spreadsheet does not compute (OWASP: CSV injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def for_xml(text: str) -> str:
    """Return text without the characters that XML 1.0 does not have; the writer of the XML escapes the others."""
    return _NOT_IN_XML.sub("�", text)


def for_github(text: str, is_property: bool = False) -> str:
    """Return text as the message or a property of a workflow command, as actions/toolkit escapes it."""
    visible = _NOT_IN_XML.sub("�", text)
    for raw, coded in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), *(((":", "%3A"), (",", "%2C")) * is_property)):
        visible = visible.replace(raw, coded)
    return visible.replace("##[", "# #[")


def for_protobuf(text: str) -> str:
    """Return text as a string of protobuf's text format, with its quotes."""
    octal = re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\{ord(match[0]):03o}", re.sub(r'[\\"]', r"\\\g<0>", text))
    return f'"{octal}"'
