"""``cs336lm ablate``: a configuration -> what each of its choices is worth."""

from __future__ import annotations

from pathlib import Path

from cs336lm.cli.experiment import parse_trials, run_trials, show_trials, trials_parser
from cs336lm.cli.parser import Parser

_DESCRIPTION = """\
Train a baseline, and the baseline with one thing changed, for each of a list of changes.

Every variant is run with the same seeds and the same budget. The table says how many parameters a
variant has, its final validation loss, the difference from the baseline, and whether that is more
than the noise between seeds ({test}, below {noise}; it needs two seeds at least, and SciPy).
A directory that was stopped goes on where it was when the same command is given again."""

_EPILOG = """\
ablations:
{list}

examples:
  cs336lm ablate --config base.toml --out ablations/a --seeds 3
  cs336lm ablate --config base.toml --only no-norm,post-norm,nope,silu --out ablations/course
  cs336lm ablate --config base.toml --only muon --seeds 5 --jobs 2 --out ablations/muon"""


def main(argv: list[str]) -> int:
    """Runs all variants and prints the table; 1 if one failed."""
    arguments, base = parse_trials(_parser(), "ablate", argv)

    from cs336lm.experiments.ablate import ABLATIONS, ablation_table, variants_of
    from cs336lm.experiments.comparison import TEST, grouped
    from cs336lm.experiments.plots import plot_curves, read_curve
    from cs336lm.experiments.search import FixedSearch
    from cs336lm.experiments.sweep import Sweep

    names = arguments.only.split(",") if arguments.only else list(ABLATIONS)
    variants = variants_of(base, [name.strip() for name in names], whole=arguments.only is None)
    sweep = Sweep(arguments.out, base, seeds=arguments.seeds, loss_bound=arguments.loss_bound)
    sweep.refuse_what_is_not_ours()
    sweep.check(list(variants.values()))
    records = run_trials(sweep, FixedSearch(list(variants.values())), arguments)
    groups = grouped(records, variants)
    first = {name: group.records[0]["run"] for name, group in groups.items() if group.records}
    curves = [read_curve(run, name) for name, run in first.items() if _has_metrics(run)]
    if curves:
        plot_curves(curves, sweep.path / "curves.png")
    named = [{"ablation": name, **r} for name, group in groups.items() for r in group.records]
    test = f"p: {TEST}, over {arguments.seeds} seeds" if arguments.seeds > 1 else _ONE_SEED
    return show_trials(sweep, named, ablation_table(groups), arguments, [test])


_ONE_SEED = "one seed tells no difference from noise: --seeds 3 would"


def _has_metrics(run: str) -> bool:
    return (Path(run) / "metrics.jsonl").exists()


def _parser() -> Parser:
    from cs336lm.experiments.ablate import ABLATIONS, NOISE
    from cs336lm.experiments.comparison import TEST

    width = max(map(len, ABLATIONS))
    listed = "\n".join(f"  {name:<{width}}  {a.what}" for name, a in ABLATIONS.items())
    parser = trials_parser(
        "ablate",
        _DESCRIPTION.format(test=TEST, noise=NOISE),
        _EPILOG.replace("{list}", listed),
    )
    parser.add_argument(
        "--only", metavar="NAME,NAME", help="some of the ablations below (default: all)"
    )
    return parser
