"""The picture of a sweep: the final loss against each swept value, and where training breaks.

One panel a swept field. A line is one combination of the other fields: means over seeds, with bars
from the least to the greatest loss. Trials that diverged are crosses at the top; where values that
diverged lie above all that did not, the space between is shaded: the edge of stability is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.errors import UsageError
from cs336lm.experiments.comparison import Group
from cs336lm.experiments.figures import COLOURS, drawing_into
from cs336lm.experiments.space import described, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LINES = len(COLOURS)  # with more, the lines of a panel lose their legend and their colours
_CROSSES_AT = 0.96  # of the height of a panel
_LOG_FROM = 8.0  # greatest value over least from which a logarithmic axis shows more


def plot_sweep(groups: Sequence[Group], out: str | Path) -> None:
    """Writes the picture to ``out`` (.png, .svg or .pdf), atomically."""
    with drawing_into(out) as save:
        save(sweep_figure(groups))


def sweep_figure(groups: Sequence[Group]) -> Figure:
    """The picture. Raises ``UsageError`` if no field takes two values."""
    fields = swept_fields(groups)
    if not fields:
        raise UsageError("there is nothing to draw: no field takes two values")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(fields), 4.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
    for axes, field in zip(panels, fields, strict=True):
        _draw_panel(axes, field, groups, fields)
    panels[0].set_ylabel("final validation loss (nats per token)")
    return figure


def swept_fields(groups: Sequence[Group]) -> list[str]:
    """The fields that take more than one value, in their order.

    A field whose values follow another's, one to one, is left out; none where groups change
    different fields, as ablations do.
    """
    if len({tuple(group.overrides) for group in groups}) != 1:
        return []
    found: dict[str, list[str]] = {}
    for name in groups[0].overrides:
        values = [repr(group.overrides[name]) for group in groups]
        if len(set(values)) > 1 and not any(_follow(values, other) for other in found.values()):
            found[name] = values
    return list(found)


def _follow(values: list[str], others: list[str]) -> bool:
    pairs = set(zip(values, others, strict=True))
    return len(pairs) == len(set(values)) == len(set(others))


def edge_of_stability(groups: Sequence[Group], field: str) -> tuple[float, float] | None:
    """The greatest value that no seed diverged at and the least above it, where all did.

    None where values that diverged and values that did not are not apart.
    """
    numeric = [g for g in groups if _is_number(g.overrides.get(field))]
    broken = [g.overrides[field] for g in numeric if g.diverged == len(g.records)]
    stable = [g.overrides[field] for g in numeric if not g.diverged]
    if not broken or not stable or max(stable) >= min(broken):
        return None
    return max(stable), min(broken)


def _draw_panel(axes: Axes, field: str, groups: Sequence[Group], fields: Sequence[str]) -> None:
    lines: dict[str, list[Group]] = {}
    for group in groups:
        others = {name: group.overrides[name] for name in fields if name != field}
        lines.setdefault(described(others), []).append(group)
    places = _places(field, groups)
    many = len(lines) > _MOST_LINES
    for index, (label, line) in enumerate(lines.items()):
        colour = "#0072B2" if many else COLOURS[index]
        line = sorted(line, key=lambda group: places[repr(group.overrides[field])])
        points = [
            (places[repr(group.overrides[field])], mean, group.losses)
            for group in line
            if (mean := group.mean) is not None
        ]
        below = [mean - min(losses) for _, mean, losses in points]
        above = [max(losses) - mean for _, mean, losses in points]
        axes.errorbar(
            [x for x, _, _ in points],
            [mean for _, mean, _ in points],
            yerr=[below, above],
            color=colour,
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.4 if not many else 0.0,
            label=label or None,
        )
        broken = [places[repr(g.overrides[field])] for g in line if g.diverged]
        axes.plot(
            broken,
            [_CROSSES_AT] * len(broken),
            "x",
            color=colour,
            markersize=8,
            markeredgewidth=2,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
    _shade_edge(axes, field, groups, places)
    _scale(axes, field, groups, places)
    if len(lines) > 1 and not many:
        axes.legend(frameon=False, fontsize=8)


def _shade_edge(axes: Axes, field: str, groups: Sequence[Group], places: dict[str, float]) -> None:
    edge = edge_of_stability(groups, field)
    if edge is None:
        return
    left, right = (places[repr(value)] for value in edge)
    axes.axvspan(left, right, color="#D55E00", alpha=0.12, linewidth=0)
    axes.annotate(
        "edge of stability",
        xy=((left * right) ** 0.5 if left > 0 else (left + right) / 2, 0.5),
        xycoords=("data", "axes fraction"),
        rotation=90,
        ha="center",
        va="center",
        fontsize=8,
        color="#A04000",
    )


def _places(field: str, groups: Sequence[Group]) -> dict[str, float]:
    """Where each value stands on the axis: itself, if all are numbers, else 0, 1, 2 ..."""
    values = {repr(g.overrides[field]): g.overrides[field] for g in groups if field in g.overrides}
    if all(_is_number(value) for value in values.values()):
        return {key: float(value) for key, value in values.items()}
    return {key: float(index) for index, key in enumerate(values)}


def _scale(axes: Axes, field: str, groups: Sequence[Group], places: dict[str, float]) -> None:
    axes.set_xlabel(field)
    values = [g.overrides[field] for g in groups if field in g.overrides]
    if not all(_is_number(value) for value in values):
        named = {places[repr(value)]: shown(value) for value in values}
        axes.set_xticks(list(named), labels=list(named.values()))
        return
    if min(values) > 0 and max(values) / min(values) >= _LOG_FROM:
        axes.set_xscale("log")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
