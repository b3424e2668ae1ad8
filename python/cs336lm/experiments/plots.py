"""Learning curves: the losses in runs' metrics.jsonl against steps and against wall-clock time.

    plot_curves([read_curve("runs/a"), read_curve("runs/b")], "curves.png", floor=0.31)
    plot_positions({"a": evaluate(..., by_position=True).by_position}, "positions.png")

Each run has one colour. The training loss of every logged step is a faint line with its running
mean drawn over it; validation losses are the line with markers. The colours are those of Okabe and
Ito (2008), which people with any kind of colour vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cs336lm.errors import UsageError
from cs336lm.files import atomic_write
from cs336lm.training.trackers.jsonl import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cs336lm.evaluation.by_position import PositionLosses

Scale = Literal["auto", "linear", "log"]

FORMATS = ("png", "svg", "pdf")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("solid", "dashed", "dotted", "dashdot")  # a style per round through the colours
_LOG_FROM = 8.0  # highest loss over lowest from which a linear axis would show little

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "cs336lm",
}
# With a fixed salt and no date, the same curves give the same bytes.
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


@dataclass(frozen=True)
class Points:
    """Losses in nats per token, with when they were measured."""

    steps: list[int]
    seconds: list[float]
    losses: list[float]


@dataclass(frozen=True)
class Curve:
    """What a run's metrics say about its losses; ``name`` is what the legend calls it."""

    name: str
    train: Points
    val: Points


def read_curve(path: str | Path) -> Curve:
    """The losses of a run directory, or of a metrics.jsonl itself.

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
        name=(path if path.is_dir() else path.parent).resolve().name,
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
    form = picture_format(out)
    if not curves:
        raise UsageError("there is no run to plot")
    import matplotlib

    with matplotlib.rc_context(_STYLE), atomic_write(out) as file:
        figure = _draw(_with_unique_names(curves), floor, title, scale)
        figure.savefig(file, format=form, metadata=_UNDATED.get(form))


def plot_positions(
    measured: Mapping[str, PositionLosses], out: str | Path, *, title: str | None = None
) -> None:
    """Draws the loss against the number of tokens before, of runs by their names, into ``out``.

    Faint points are single positions; the line is the mean of each bin, which stands in the bin's
    middle and doubles in width from one to the next, and the band around it two standard errors.

    Raises ``UsageError`` if the extension of ``out`` is no format, or nothing was measured.
    """
    form = picture_format(out)
    if not measured:
        raise UsageError("there is no run to plot")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), atomic_write(out) as file:
        figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
        axes = figure.subplots()
        for index, (name, losses) in enumerate(measured.items()):
            _draw_positions(axes, name, losses, _line_style(index))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("tokens of context")
        axes.set_ylabel("loss (nats per token)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=9)
        if title:
            axes.set_title(title)
        figure.savefig(file, format=form, metadata=_UNDATED.get(form))


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


def picture_format(out: str | Path) -> str:
    """What kind of picture a name stands for; ``UsageError`` if it is none of ``FORMATS``."""
    form = Path(out).suffix.lower().removeprefix(".")
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise UsageError(f"{out} must end in one of {known}: the extension is the format")
    return form


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
    unit, per_unit = _time_unit(curves)
    for index, curve in enumerate(curves):
        for points, is_val in ((curve.train, False), (curve.val, True)):
            steps = [float(step) for step in points.steps]
            times = [seconds / per_unit for seconds in points.seconds]
            _draw_points(by_step, steps, points.losses, _line_style(index), is_val=is_val)
            _draw_points(by_time, times, points.losses, _line_style(index), is_val=is_val)
    _label_axes(by_step, "step", curves, floor, scale)
    _label_axes(by_time, f"wall-clock time ({unit})", curves, floor, scale)
    by_step.set_ylabel("loss (nats per token)")
    if title:
        figure.suptitle(title)
    _add_legend(figure, curves)
    return figure


def _line_style(index: int) -> dict[str, Any]:
    """Colour and line style of a run: the styles change when the colours are used up."""
    rounds, colour = divmod(index, len(_COLOURS))
    return {"color": _COLOURS[colour], "linestyle": _DASHES[rounds % len(_DASHES)]}


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


def _add_legend(figure: Figure, curves: list[Curve]) -> None:
    from matplotlib.lines import Line2D

    entries: list[Line2D] = []
    for index, curve in enumerate(curves):
        last = f"  (val {curve.val.losses[-1]:.3f})" if curve.val.losses else ""
        entries.append(Line2D([], [], label=curve.name + last, **_line_style(index)))
    entries.append(Line2D([], [], color="#777777", marker="o", markersize=4, label="validation"))
    entries.append(Line2D([], [], color="#777777", linewidth=1.0, alpha=0.75, label="training"))
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=min(len(entries), 4),
        frameon=False,
        fontsize=9,
    )
