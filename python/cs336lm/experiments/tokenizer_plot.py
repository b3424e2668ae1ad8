"""The picture of a comparison of tokenizers: bytes per token, a group of bars for each file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cs336lm.errors import UsageError
from cs336lm.experiments.figures import COLOURS, drawing_into, picture_format
from cs336lm.experiments.tokenizer_comparison import TokenizerComparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUP = 0.8  # the width of a group; groups are one apart
_HATCHES = ("", "//", "..", "xx")  # one for each round through the colours
_MOST_NUMBERED = 12  # bars; with more, figures above them would overlap


def plot_tokenizers(comparison: TokenizerComparison, out: str | Path) -> None:
    """Writes the picture to ``out`` (.png, .svg or .pdf), atomically.

    Raises ``UsageError`` if the extension is no format, or no text holds a token.
    """
    picture_format(out)
    if not any(text.tokens for one in comparison.tokenizers for text in one.texts):
        raise UsageError("there is nothing to draw: the texts are empty")
    with drawing_into(out) as save:
        save(_figure(comparison))


def _figure(comparison: TokenizerComparison) -> Figure:
    from matplotlib.figure import Figure

    tokenizers = comparison.tokenizers
    paths = [text.path for text in tokenizers[0].texts]
    bars = len(paths) * len(tokenizers)
    figure = Figure(figsize=(max(5.2, 2.0 + 0.55 * bars), 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    width = _GROUP / len(tokenizers)
    for index, one in enumerate(tokenizers):
        rounds, colour = divmod(index, len(COLOURS))
        shift = (index - (len(tokenizers) - 1) / 2) * width
        drawn = axes.bar(
            [place + shift for place in range(len(paths))],
            [text.bytes_per_token or 0.0 for text in one.texts],
            width,
            label=_short(one.name, [each.name for each in tokenizers]),
            color=COLOURS[colour],
            hatch=_HATCHES[rounds % len(_HATCHES)],
        )
        if bars <= _MOST_NUMBERED:
            axes.bar_label(drawn, fmt="%.2f", fontsize=8, padding=2)
    axes.set_xticks(range(len(paths)), [_short(path, paths) for path in paths])
    axes.grid(visible=False, axis="x")
    sample = f", {comparison.documents} documents of each" if comparison.documents else ""
    axes.set_ylabel(f"bytes per token{sample}")
    axes.margins(y=0.12)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _short(path: str, paths: list[str]) -> str:
    """The last part of a path, if no other ends in the same."""
    last = [os.path.basename(os.path.normpath(other)) for other in paths]
    name = os.path.basename(os.path.normpath(path))
    return name if last.count(name) == 1 else path
