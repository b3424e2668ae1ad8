"""Tables for a terminal and for Markdown, laid out by rich."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

_WIDE = 100_000  # a cell is never wrapped: tables go into files and pipes


@dataclass(frozen=True)
class Table:
    """Rows of text below a row of headings; all columns but the first ``texts`` are numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1

    def as_text(self) -> str:
        """For a terminal."""
        return self._drawn(markdown=False)

    def as_markdown(self) -> str:
        """For a document."""
        return self._drawn(markdown=True)

    def _drawn(self, *, markdown: bool) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        style = box.MARKDOWN if markdown else box.SIMPLE_HEAD
        table = RichTable(box=style, pad_edge=markdown, show_edge=markdown)
        for index, heading in enumerate(self.headings):
            is_text = index < self.texts
            table.add_column(Text(heading), justify="left" if is_text else "right", no_wrap=True)
        for row in self.rows:
            cells = [cell.replace("|", "\\|") if markdown else cell for cell in row]
            table.add_row(*(Text(cell) for cell in cells))
        out = io.StringIO()
        Console(file=out, width=_WIDE, color_system=None).print(table)
        lines = (line.rstrip() for line in out.getvalue().splitlines())
        return "\n".join(line for line in lines if line) + "\n"


def number(value: float | None, digits: int = 4) -> str:
    """A figure with ``digits`` after the point; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def parameters(count: int | None) -> str:
    """A count of parameters, in full."""
    return "-" if count is None else f"{count:,}"


def duration(seconds: float) -> str:
    """A time as people say it: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"
