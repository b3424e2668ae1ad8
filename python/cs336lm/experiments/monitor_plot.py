"""What the monitor saw inside a model, over the steps of a run, in one picture.

    plot_monitor(read_monitor("runs/a"), "inside.png")

A panel a figure, a line a layer, coloured by depth; the last panels are of the whole model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cs336lm.errors import UsageError
from cs336lm.experiments.figures import drawing_into, line_style, picture_format
from cs336lm.training.trackers.jsonl import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BY_LAYER = {
    "residual_rms": "residual stream (RMS)",
    "attention_rms": "attention output (RMS)",
    "ffn_rms": "feed-forward output (RMS)",
    "attention_entropy": "attention entropy (nats)",
    "dead_units": "share of dead units",
    "weight_rms": "weights (RMS)",
    "gradient_rms": "gradients (RMS)",
    "update_ratio": "update / weight",
}
"""Lists of metrics.jsonl's ``monitor``, and what their panels are called."""

_LINEAR = {"attention_entropy", "dead_units"}
_LOG_FROM = 3.0  # largest size over smallest from which a linear axis would show little
_MOST_POINTS = 100  # of a line: more would fill the page, not the eye
_DARKEST, _LIGHTEST = 0.2, 0.8  # of the colour map: what is seen on white and on black


@dataclass(frozen=True)
class Monitored:
    """The monitored steps of a run, and what was seen after each."""

    steps: list[int]
    figures: list[dict[str, Any]]

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return max((len(seen.get("residual_rms", ())) for seen in self.figures), default=0)


def monitored_in(records: Iterable[Mapping[str, Any]]) -> Monitored | None:
    """What the records of a metrics.jsonl hold; None if nothing was monitored."""
    found = [record for record in records if isinstance(record.get("monitor"), dict)]
    if not found:
        return None
    return Monitored([int(r["step"]) for r in found], [r["monitor"] for r in found])


def read_monitor(run_dir: str | Path) -> Monitored:
    """The same of a run directory. Raises ``ValueError`` if nothing was monitored in it."""
    seen = monitored_in(read_metrics(Path(run_dir) / "metrics.jsonl"))
    if seen is None:
        raise ValueError(f"{run_dir} has no monitored steps: train.monitor_every says how often")
    return seen


def plot_monitor(seen: Monitored, out: str | Path, *, title: str | None = None) -> None:
    """Draws what was seen into ``out``, a PNG, SVG or PDF by its extension, atomically.

    Raises ``UsageError`` if the extension is none of these, or no step was monitored.
    """
    picture_format(out)
    if not seen.steps:
        raise UsageError("there is no monitored step to plot")
    with drawing_into(out) as save:
        save(monitor_figure(seen, title=title))


def monitor_figure(seen: Monitored, *, title: str | None = None) -> Figure:
    """Ten panels, two in a row; a legend of the first and the last layer at the bottom."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7.2, 11.0), dpi=150, layout="constrained")
    panels = figure.subplots(5, 2, sharex=True).ravel()
    depth = max(1, seen.layers - 1)
    span = _LIGHTEST - _DARKEST
    colours = [
        colormaps["viridis"](_DARKEST + span * layer / depth) for layer in range(seen.layers)
    ]
    for axes, (name, label) in zip(panels, BY_LAYER.items(), strict=False):
        for layer, colour in enumerate(colours):
            values = [_at(figures.get(name), layer) for figures in seen.figures]
            _draw_line(axes, seen.steps, values, color=colour)
        _finish(axes, label, is_linear=name in _LINEAR)
    _draw_roles(panels[8], seen)
    for index, name in enumerate(("logit_max", "logsumexp")):
        values = [figures.get(name) for figures in seen.figures]
        _draw_line(panels[9], seen.steps, values, label=name, **line_style(index))
    _finish(panels[9], "logits: largest, log sum exp", is_linear=True)
    for axes in panels[8:]:
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend(frameon=False, fontsize=7)
    ends = {0: "first layer", seen.layers - 1: "last layer"} if seen.layers > 1 else {}
    figure.legend(
        handles=[Line2D([], [], color=colours[at], label=label) for at, label in ends.items()],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    if title:
        figure.suptitle(title)
    return figure


def _draw_roles(axes: Axes, seen: Monitored) -> None:
    """The update ratio of each role, over the whole model."""
    roles = dict.fromkeys(role for figures in seen.figures for role in figures.get("roles", ()))
    for index, role in enumerate(roles):
        values = [
            figures.get("roles", {}).get(role, {}).get("update_ratio") for figures in seen.figures
        ]
        _draw_line(axes, seen.steps, values, label=role, **line_style(index))
    _finish(axes, "update / weight, by role", is_linear=False)


def _draw_line(
    axes: Axes, steps: Sequence[int], values: Sequence[float | None], **style: Any
) -> None:
    """Leaves gaps where there is no number; draws no more points than can be seen."""
    every = -(-len(steps) // _MOST_POINTS)
    shown = [*range(len(steps) - 1, -1, -every)][::-1]  # the last is among them
    heights = [float("nan") if values[at] is None else values[at] for at in shown]
    marker = "o" if len(shown) == 1 else None
    axes.plot(
        [steps[at] for at in shown], heights, linewidth=1.1, marker=marker, markersize=3, **style
    )


def _finish(axes: Axes, label: str, *, is_linear: bool) -> None:
    """The panel's title and its axis: logarithmic where sizes differ several times over."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_title(label, fontsize=9)
    axes.tick_params(labelsize=7)
    heights = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    sizes = np.concatenate([each[each > 0] for each in heights]) if heights else np.zeros(0)
    if not is_linear and len(sizes) and sizes.max() > _LOG_FROM * sizes.min():
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _at(values: Any, layer: int) -> float | None:
    return values[layer] if isinstance(values, list) and layer < len(values) else None
