"""Display of reports: one line as repr, a table in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape
from typing import Any

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


class Displayed(ABC):
    """A report with a headline and a table; dataclasses that inherit it set `repr=False`."""

    @abstractmethod
    def headline(self) -> str:
        """Return the result on one line."""

    @abstractmethod
    def table(self) -> Table:
        """Return the column headers and the rows."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.headline()}>"

    def _repr_html_(self) -> str:
        """Return the headline and the table as HTML, for a notebook."""
        heads, rows = self.table()
        cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
        head = "".join(f"<th>{escape(text)}</th>" for text in heads)
        body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in cells)
        return f"<p>{escape(self.headline())}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
