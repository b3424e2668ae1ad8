"""The report laid out: ``index.html``, one file that needs no network, and ``report.md``.

report/
  index.html      pictures inside, as SVG; light, dark, on a phone, on paper
  report.md       the same in Markdown, with its pictures beside it
  1-step.svg ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path

from cs336lm import __version__
from cs336lm.errors import UsageError
from cs336lm.experiments.comparison import by_overrides
from cs336lm.experiments.figures import as_svg, drawing_into
from cs336lm.experiments.monitor_plot import monitor_figure, plot_monitor
from cs336lm.experiments.plots import Axis, curves_along
from cs336lm.experiments.report.content import Section
from cs336lm.experiments.sweep_plot import plot_sweep, sweep_figure, swept_fields
from cs336lm.files import atomic_write

_MARK = '<meta name="generator" content="cs336lm report">'
_AXES: dict[Axis, str] = {"step": "By step", "tokens": "By tokens", "seconds": "By time"}
_MOST_INSIDE = 8  # runs of a section whose monitored figures are drawn
_MOST_CURVES = 28  # beyond, lines cannot be told apart


@dataclass(frozen=True)
class Picture:
    """A picture twice: in the page, and as a file beside the Markdown."""

    caption: str
    svg: str
    file: str


def refuse_foreign_report(out: Path) -> None:
    """Raises ``UsageError`` if writing to ``out`` would replace what is no report of ours."""
    page = out / "index.html"
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a directory")
    if page.exists() and _MARK not in page.read_text("utf-8", errors="replace"):
        raise UsageError(f"{page} is no report of this command's: name another --out")
    if not page.exists() and (out / "report.md").exists():
        raise UsageError(f"{out / 'report.md'} is there without a page: name another --out")


def write_report(sections: Sequence[Section], out: str | Path, title: str) -> Path:
    """Writes the report into the directory ``out`` and returns the page's path."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    out = Path(out)
    refuse_foreign_report(out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [_pictures(index, section, out) for index, section in enumerate(sections, 1)]
    environment = Environment(
        loader=PackageLoader("cs336lm.experiments.report", "."),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = {
        "title": title,
        "parts": list(zip(sections, pictures, strict=True)),
        "version": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "mark": _MARK,
        "style": files("cs336lm.experiments.report").joinpath("style.css").read_text("utf-8"),
    }
    for template, name in (("page.md.jinja", "report.md"), ("page.html.jinja", "index.html")):
        text = environment.get_template(template).render(**values)
        with atomic_write(out / name) as file:
            file.write(text.encode())
    return out / "index.html"


def _pictures(index: int, section: Section, out: Path) -> list[Picture]:
    """All pictures of a section, each also written as a file."""
    made = []
    groups = by_overrides(section.records)
    if swept_fields(groups):
        name = f"{index}-sweep.svg"
        plot_sweep(groups, out / name)
        made.append(Picture("Final loss", as_svg(lambda: sweep_figure(groups)), name))
    curves = section.curves[:_MOST_CURVES]
    for axis, caption in _AXES.items() if curves else ():
        name = f"{index}-{axis}.svg"
        with drawing_into(out / name) as save:
            save(curves_along(curves, axis))
        made.append(Picture(caption, as_svg(partial(curves_along, curves, axis)), name))
    for number, (run, seen) in enumerate(section.monitored[:_MOST_INSIDE], 1):
        name = f"{index}-inside-{number}.svg"
        plot_monitor(seen, out / name)
        svg = as_svg(partial(monitor_figure, seen))
        made.append(Picture(f"Inside {run}: a line a layer", svg, name))
    return made
