"""What a report says, before anything is laid out.

section     the runs that were named, and one for each sweep or directory of ablations
  results   a row a run (a row a variant in a sweep)
  changes   the fields of the configuration that are not the same in all of its runs
  seeds     mean and spread, where runs differ in nothing but the seed
  curves    losses by step, by tokens, by time; monitored figures, where there are any
  samples   what each run writes after the same prompts with the same seed
  progress  what a run wrote on its way, where it was told to
  making    environment, command and configuration of each run
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cs336lm.errors import UsageError
from cs336lm.experiments.comparison import by_overrides
from cs336lm.experiments.monitor_plot import Monitored, monitored_in
from cs336lm.experiments.plots import Curve, read_curve
from cs336lm.experiments.results import Record, Results
from cs336lm.experiments.runs import RunSummary, differences, find_runs, read_run, value_shown
from cs336lm.experiments.space import described
from cs336lm.experiments.tables import Table, duration, number
from cs336lm.training.config import Config, dump_config
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.jsonl import read_records


@dataclass(frozen=True)
class Sample:
    """A continuation of a prompt."""

    run: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Progress:
    """How a run went on after a prompt at some of its steps, the last among them."""

    run: str
    prompt: str
    texts: list[tuple[int, str]]
    """Steps and what was written after them."""


@dataclass(frozen=True)
class Making:
    """How to make a run again."""

    run: str
    environment: Table
    command: str
    config: str


@dataclass
class Section:
    """One part of the report, about runs that belong together."""

    title: str
    runs: list[RunSummary]
    records: list[Record] = field(default_factory=list)
    """The results of a sweep; none for runs by themselves."""
    samples: list[Sample] = field(default_factory=list)
    note: str = ""

    @property
    def curves(self) -> list[Curve]:
        """Of the pictured runs that have losses."""
        return [read_curve(run.path, name) for name, run in self._pictured if _has_losses(run)]

    @property
    def monitored(self) -> list[tuple[str, Monitored]]:
        """What was seen inside the pictured runs, by the names of their directories."""
        return [
            (run.name, seen)
            for _, run in self._pictured
            if (seen := monitored_in(run.records)) is not None
        ]

    @property
    def _pictured(self) -> list[tuple[str, RunSummary]]:
        """The runs that are drawn, each under a name: of a sweep the first seed of a variant."""
        if not self.records:
            return [(run.name, run) for run in self.runs]
        first = first_of_each(self.records)
        named = {Path(record["run"]).resolve(): name for name, record in first.items()}
        places = ((run.path.resolve(), run) for run in self.runs)
        return [(named[place], run) for place, run in places if place in named]

    @property
    def progress(self) -> list[Progress]:
        """What the runs wrote on their way."""
        return [one for run in self.runs for one in _progress(run)]

    @property
    def tables(self) -> list[tuple[str, Table]]:
        """Titles and tables, the empty ones left out."""
        found = [
            ("Results", _results(self.runs) if not self.records else _variants(self.records)),
            ("What differs between the configurations", _changes(self.runs)),
            ("Over seeds", _seeds(self.runs) if not self.records else None),
        ]
        return [(title, table) for title, table in found if table is not None]

    @property
    def makings(self) -> list[Making]:
        """How to make each run again."""
        return [_making(run) for run in self.runs]


def first_of_each(records: Sequence[Record]) -> dict[str, Record]:
    """The first seed of each variant of a sweep, under the variant's name."""
    return {described(r["overrides"]) or "baseline": r for r in reversed(records)}


def read_sections(paths: Sequence[str | Path]) -> list[Section]:
    """Runs by themselves come first, in one section, then each sweep in its own.

    Raises ``ValueError`` naming a path that is neither, or a run that cannot be read.
    """
    single: list[RunSummary] = []
    sweeps: list[Section] = []
    for path in map(Path, paths):
        results = path / "results.jsonl"
        if results.exists():
            sweeps.append(_sweep(path, results))
        elif (path / "config.toml").exists():
            single.append(read_run(path))
        else:
            raise UsageError(f"{path} is neither a run directory nor that of a sweep")
    sections = [Section("Runs", _unique(single))] if single else []
    return sections + sweeps


def _sweep(path: Path, results: Path) -> Section:
    note = path / "notes.md"
    return Section(
        path.resolve().name,
        [read_run(run) for run in find_runs(path / "runs")],
        [_where_it_is(record, path) for record in Results(results).read().values()],
        note=note.read_text("utf-8") if note.exists() else "",
    )


def _where_it_is(record: Record, sweep: Path) -> Record:
    """The record, its run looked for in the sweep if that was moved since."""
    moved = sweep / "runs" / record["trial"]
    return {**record, "run": str(moved)} if moved.is_dir() else record


def _unique(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs, each once."""
    return list({run.path.resolve(): run for run in runs}.values())


def _has_losses(run: RunSummary) -> bool:
    return run.last("train_loss") is not None or run.last("val_loss") is not None


def _results(runs: Iterable[RunSummary]) -> Table:
    rows = [
        [
            run.name,
            run.state,
            f"{run.step:,}",
            f"{run.tokens:,}",
            duration(run.seconds),
            number(run.last("train_loss")),
            number(run.last("val_loss")),
            number(run.best_val_loss),
        ]
        for run in runs
    ]
    headings = ["run", "state", "steps", "tokens", "time", "train loss", "val loss", "best val"]
    return Table(headings, rows, texts=2)


def _variants(records: list[Record]) -> Table:
    rows = []
    for group in by_overrides(records):
        rows.append(
            [
                described(group.overrides) or "baseline",
                f"{group.records[0]['parameters']:,}",
                number(group.mean),
                number(group.spread),
                str(len(group.records)),
                group.ends,
            ]
        )
    headings = ["variant", "parameters", "val loss", "± seeds", "seeds", ""]
    return Table(headings, rows)


def _changes(runs: Sequence[RunSummary]) -> Table | None:
    differ = differences([run.config for run in runs]) if len(runs) > 1 else {}
    differ.pop("train.seed", None)
    if not differ:
        return None
    names = list(differ)
    columns = zip(*(differ[name] for name in names), strict=True)
    rows = [
        [run.name, *map(value_shown, values)] for run, values in zip(runs, columns, strict=True)
    ]
    return Table(["run", *names], rows)


def _seeds(runs: Sequence[RunSummary]) -> Table | None:
    groups: dict[str, list[RunSummary]] = {}
    for run in runs:
        groups.setdefault(repr(_without_seed(run.config)), []).append(run)
    rows = []
    for group in groups.values():
        losses = [loss for run in group if (loss := run.last("val_loss")) is not None]
        if len(group) > 1 and len(losses) == len(group):
            names = ", ".join(run.name for run in group)
            spread = number(statistics.stdev(losses))
            rows.append([names, str(len(group)), number(statistics.fmean(losses)), spread])
    return Table(["runs", "seeds", "mean val loss", "±"], rows) if rows else None


def _without_seed(config: Config) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=0))


def _progress(run: RunSummary) -> list[Progress]:
    """A prompt each; of many steps some, evenly spread, with the first and the last."""
    by_prompt: dict[str, list[tuple[int, str]]] = {}
    for line in read_records(RunDirectory(run.path).samples_file):
        by_prompt.setdefault(line["prompt"], []).append((line["step"], line["text"]))
    found = []
    for prompt, texts in by_prompt.items():
        count = min(len(texts), _MOST_STEPS)
        chosen = [texts[round(at * (len(texts) - 1) / max(1, count - 1))] for at in range(count)]
        found.append(Progress(run.name, prompt, chosen))
    return found


_MOST_STEPS = 5  # of a run, whose samples are shown


def _making(run: RunSummary) -> Making:
    last = run.environments[-1] if run.environments else {}
    versions = last.get("versions", {})
    rows = [
        ["versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v)],
        ["commit", str(last.get("commit") or "")],
        ["device", f"{last.get('device', '')} {last.get('device_name') or ''}".strip()],
        ["processes and threads", f"{last.get('world_size', '')} x {last.get('threads', '')}"],
        ["system", str(last.get("system") or "")],
        ["started", ", ".join(str(e.get("time", "")) for e in run.environments)],
    ]
    command = [str(part) for part in run.environments[0].get("command", [])] if last else []
    if command:
        command[0] = "cs336lm" if re.search(r"__main__\.py$|cs336lm$", command[0]) else command[0]
    return Making(
        run.name,
        Table(["", ""], [row for row in rows if row[1]], texts=2),
        shlex.join(command),
        dump_config(run.config),
    )
