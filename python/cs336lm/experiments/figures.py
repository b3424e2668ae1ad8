"""What all pictures share: their style, their colours, how they are written.

The colours are those of Okabe and Ito (2008), which people with any kind of colour vision can tell
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.errors import UsageError
from cs336lm.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
_DASHES = ("solid", "dashed", "dotted", "dashdot")  # a style per round through the colours
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "cs336lm",
}
# With a fixed salt and no date, the same figures give the same bytes.
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def picture_format(out: str | Path) -> str:
    """The format that the extension of ``out`` says; raises ``UsageError`` if it says none."""
    form = Path(out).suffix.lower().removeprefix(".")
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise UsageError(f"{out} must end in one of {known}: the extension is the format")
    return form


def as_svg(draw: Callable[[], Figure]) -> str:
    """A figure as an SVG element for a page: transparent, its lettering in the page's own colour.

    Black, the colour of lettering and frames, becomes ``currentColor``: the figure is readable on
    a light page and on a dark one.
    """
    import io

    import matplotlib

    style = {**_STYLE, "svg.fonttype": "none", "savefig.transparent": True}
    with matplotlib.rc_context(style):
        figure, out = draw(), io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    element = text[text.index("<svg") :]
    for black in ("#000000", "black"):
        element = element.replace(f": {black}", ": currentColor").replace(
            f'"{black}"', '"currentColor"'
        )
    return element


def line_style(index: int) -> dict[str, Any]:
    """Colour and line style of a run: the styles change when the colours are used up."""
    rounds, colour = divmod(index, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": _DASHES[rounds % len(_DASHES)]}


@contextmanager
def drawing_into(out: str | Path) -> Iterator[Callable[[Figure], None]]:
    """A function that writes a figure into ``out``, atomically; figures made inside have our style.

    Raises ``UsageError`` if the extension is no format.
    """
    form = picture_format(out)
    import matplotlib

    with matplotlib.rc_context(_STYLE), atomic_write(out) as file:
        yield lambda figure: figure.savefig(file, format=form, metadata=_UNDATED.get(form))
