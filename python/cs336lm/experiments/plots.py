"""Learning curves: the losses in runs' metrics.jsonl against steps and against wall-clock time.

    plot_curves([read_curve("runs/a"), read_curve("runs/b")], "curves.png", floor=0.31)

Each run has one colour. The training loss of every logged step is a faint line with its running
mean drawn over it; validation losses are the line with markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cs336lm.errors import UsageError
from cs336lm.experiments.figures import drawing_into, line_style, picture_format
from cs336lm.training.trackers.jsonl import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scale = Literal["auto", "linear", "log"]
Axis = Literal["step", "tokens", "seconds"]

_LOG_FROM = 8.0  # highest loss over lowest from which a linear axis would show little


@dataclass(frozen=True)
class Points:
    """Losses in nats per token, with when they were measured."""

    steps: list[int]
    seconds: list[float]
    losses: list[float]
    tokens: list[int] = field(default_factory=list)

    def along(self, axis: Axis) -> list[float]:
        """Where the losses stand on an axis."""
        places: dict[Axis, Sequence[float]] = {
            "step": self.steps,
            "tokens": self.tokens,
            "seconds": self.seconds,
        }
        return [float(place) for place in places[axis]]


@dataclass(frozen=True)
class Curve:
    """What a run's metrics say about its losses; ``name`` is what the legend calls it."""

    name: str
    train: Points
    val: Points


def read_curve(path: str | Path, name: str | None = None) -> Curve:
    """The losses of a run directory, or of a metrics.jsonl itself, under the directory's name.

    Raises:
        OSError: there is no such file or directory.
        ValueError: it contains no losses, or is not a metrics file.
    """
    path = Path(path)
    file = path / "metrics.jsonl" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise ValueError(f"{path} is not a run directory: there is no metrics.jsonl in it")
    if not file.exists():
        raise FileNotFoundError(2, "there is no such run directory", str(path))
    records = read_metrics(file)
    curve = Curve(
        name=name or (path if path.is_dir() else path.parent).resolve().name,
        train=_points(records, "train_loss", file),
        val=_points(records, "val_loss", file),
    )
    if not curve.train.losses and not curve.val.losses:
        raise ValueError(f"{file} does not contain any losses yet")
    return curve


def _points(records: list[dict[str, Any]], key: str, file: Path) -> Points:
    """The records that have a number under ``key``; others have none, or null for NaN."""
    found = [record for record in records if record.get(key) is not None]
    try:
        return Points(
            steps=[int(record["step"]) for record in found],
            seconds=[float(record["seconds"]) for record in found],
            losses=[float(record[key]) for record in found],
            tokens=[int(record.get("tokens", 0)) for record in found],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a metrics file: {error!r}") from None


def plot_curves(
    curves: Sequence[Curve],
    out: str | Path,
    *,
    floor: float | None = None,
    title: str | None = None,
    scale: Scale = "auto",
) -> None:
    """Draws the curves into ``out``, a PNG, SVG or PDF by its extension, atomically.

    Args:
        curves: at least one.
        out: the picture; its directory must exist.
        floor: a loss in nats per token that cannot be beaten, drawn as a horizontal line.
        title: what stands above it all.
        scale: of the loss axis; ``auto`` is logarithmic if the highest loss is over eight times
            the lowest.

    Raises:
        UsageError: the extension is none of these, or there is no curve.
    """
    picture_format(out)
    if not curves:
        raise UsageError("there is no run to plot")
    with drawing_into(out) as save:
        save(_draw(_with_unique_names(curves), floor, title, scale))


def _with_unique_names(curves: Sequence[Curve]) -> list[Curve]:
    """The curves; where several have the same name, that name with a number."""
    names = [curve.name for curve in curves]
    return [
        Curve(f"{c.name} ({names[: i + 1].count(c.name)})", c.train, c.val)
        if names.count(c.name) > 1
        else c
        for i, c in enumerate(curves)
    ]


def _draw(curves: list[Curve], floor: float | None, title: str | None, scale: Scale) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), dpi=150, layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    _draw_panel(by_step, "step", curves, floor, scale)
    _draw_panel(by_time, "seconds", curves, floor, scale)
    by_step.set_ylabel("loss (nats per token)")
    if title:
        figure.suptitle(title)
    _add_legend(figure, curves)
    return figure


def curves_along(curves: Sequence[Curve], axis: Axis) -> Figure:
    """One panel: the losses against steps, tokens or time, with a legend below."""
    from matplotlib.figure import Figure

    named = _with_unique_names(curves)
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    _draw_panel(axes, axis, named, None, "auto")
    axes.set_ylabel("loss (nats per token)")
    _add_legend(figure, named, columns=2)
    return figure


def _draw_panel(
    axes: Axes, axis: Axis, curves: list[Curve], floor: float | None, scale: Scale
) -> None:
    unit, per_unit = _unit(axis, curves)
    for index, curve in enumerate(curves):
        for points, is_val in ((curve.train, False), (curve.val, True)):
            places = [place / per_unit for place in points.along(axis)]
            _draw_points(axes, places, points.losses, line_style(index), is_val=is_val)
    _label_axes(axes, unit, curves, floor, scale)


def _draw_points(
    axes: Axes, xs: list[float], losses: list[float], style: dict[str, Any], *, is_val: bool
) -> None:
    if is_val:
        axes.plot(xs, losses, marker="o", markersize=4, linewidth=1.6, zorder=3, **style)
    else:
        axes.plot(xs, losses, linewidth=0.6, alpha=0.3, **style)
        axes.plot(xs, smoothed(losses), linewidth=1.0, alpha=0.75, **style)


def smoothed(values: Sequence[float]) -> list[float]:
    """The running mean over a centred window of a twentieth of the values, narrower at the ends.

    Unlike an exponential mean it does not lag behind a falling curve.
    """
    reach = len(values) // 40
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = []
    for at in range(len(values)):
        side = min(reach, at, len(values) - 1 - at)
        means.append((sums[at + side + 1] - sums[at - side]) / (2 * side + 1))
    return means


def _unit(axis: Axis, curves: list[Curve]) -> tuple[str, float]:
    """What an axis is called, and how much of a record's figure is one of its units."""
    if axis == "step":
        return "step", 1.0
    if axis == "tokens":
        most = max((t for c in curves for t in (*c.train.tokens, *c.val.tokens)), default=0)
        scale = next(((n, u) for n, u in _TOKEN_UNITS if most >= 2 * n), (1.0, "tokens"))
        return scale[1], scale[0]
    unit, per_unit = _time_unit(curves)
    return f"wall-clock time ({unit})", per_unit


_TOKEN_UNITS = ((1e9, "billion tokens"), (1e6, "million tokens"), (1e3, "thousand tokens"))


def _time_unit(curves: list[Curve]) -> tuple[str, float]:
    longest = max((s for c in curves for s in (*c.train.seconds, *c.val.seconds)), default=0.0)
    for unit, seconds in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if longest >= 2 * seconds:
            return unit, seconds
    return "seconds", 1.0


def _label_axes(
    axes: Axes, xlabel: str, curves: list[Curve], floor: float | None, scale: Scale
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xlabel(xlabel)
    axes.set_xlim(left=0)
    if floor is not None:
        axes.axhline(floor, color="#555555", linestyle=(0, (6, 3)), linewidth=1.0, zorder=1)
        axes.annotate(
            f"floor {floor:.3f}",
            xy=(1, floor),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#555555",
        )
    losses = [v for c in curves for v in (*c.train.losses, *c.val.losses) if v > 0]
    if floor:
        losses.append(floor)
    spread = max(losses, default=1.0) / min(losses, default=1.0)
    if scale == "log" or (scale == "auto" and spread > _LOG_FROM):
        axes.set_yscale("log")
        # Plain numbers: 0.5, 1, 2 rather than powers of ten.
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _add_legend(figure: Figure, curves: list[Curve], columns: int = 4) -> None:
    from matplotlib.lines import Line2D

    entries: list[Line2D] = []
    for index, curve in enumerate(curves):
        last = f"  (val {curve.val.losses[-1]:.3f})" if curve.val.losses else ""
        entries.append(Line2D([], [], label=curve.name + last, **line_style(index)))
    entries.append(Line2D([], [], color="#777777", marker="o", markersize=4, label="validation"))
    entries.append(Line2D([], [], color="#777777", linewidth=1.0, alpha=0.75, label="training"))
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=min(len(entries), columns),
        frameon=False,
        fontsize=9,
    )
