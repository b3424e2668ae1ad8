"""The loss against the number of tokens before, in a picture.

plot_positions({"a": evaluate(..., by_position=True).by_position}, "positions.png")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.errors import UsageError
from cs336lm.experiments.figures import drawing_into, line_style, picture_format

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cs336lm.evaluation.by_position import PositionLosses


def plot_positions(
    measured: Mapping[str, PositionLosses], out: str | Path, *, title: str | None = None
) -> None:
    """Draws the loss against the number of tokens before, of runs by their names, into ``out``.

    Faint points are single positions; the line is the mean of each bin, which stands in the bin's
    middle and doubles in width from one to the next, and the band around it two standard errors.

    Raises ``UsageError`` if the extension of ``out`` is no format, or nothing was measured.
    """
    picture_format(out)
    if not measured:
        raise UsageError("there is no run to plot")
    from matplotlib.figure import Figure

    with drawing_into(out) as save:
        figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
        axes = figure.subplots()
        for index, (name, losses) in enumerate(measured.items()):
            _draw_positions(axes, name, losses, line_style(index))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("tokens of context")
        axes.set_ylabel("loss (nats per token)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=9)
        if title:
            axes.set_title(title)
        save(figure)


def _draw_positions(axes: Axes, name: str, losses: PositionLosses, style: dict[str, Any]) -> None:
    each = losses.as_json()
    axes.plot(
        [one["position"] for one in each],
        [one["loss"] for one in each],
        linestyle="none",
        marker=".",
        markersize=2,
        alpha=0.3,
        color=style["color"],
    )
    bins = losses.bins()
    middles = [(one.first * one.last) ** 0.5 for one in bins]
    means = [one.loss for one in bins]
    axes.plot(middles, means, marker="o", markersize=4, linewidth=1.6, label=name, **style)
    wide = [2 * (one.standard_error or 0.0) for one in bins]
    low = [mean - width for mean, width in zip(means, wide, strict=True)]
    high = [mean + width for mean, width in zip(means, wide, strict=True)]
    axes.fill_between(middles, low, high, alpha=0.2, color=style["color"], linewidth=0)
