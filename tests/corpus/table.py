"""The corpus's table."""

from __future__ import annotations

from typing import Any


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of rows."""
    return "\n".join(f"{row['name']} {row.get('failed', '')} {row['stages']}" for row in rows) + "\n"
