"""``cs336lm sweep``: a configuration and values to try -> trials, a table, a picture."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cs336lm.cli.experiment import parse_trials, run_trials, show_trials, trials_parser
from cs336lm.cli.options import positive
from cs336lm.cli.parser import Parser
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.experiments.comparison import Group
    from cs336lm.experiments.search import Search
    from cs336lm.experiments.space import Dimension
    from cs336lm.experiments.sweep import Sweep
    from cs336lm.experiments.tables import Table

_DESCRIPTION = """\
Train with every combination of values, or with values drawn or searched for, and compare.

A trial is an ordinary `cs336lm train` in an ordinary run directory, in a process of its own. All
trials have the same budget: the base configuration's. Where data.batch_size is swept, give it in
tokens (--train.max-tokens), since steps of another batch are another budget.

The directory OUT gets runs/ (a run directory a trial), results.jsonl (an object a trial: overrides,
seed, val_loss, diverged, run), table.md and sweep.png. A sweep that was stopped goes on where it
was when the same command is given again; values and seeds may be added then. A trial whose loss is
not a number, or rises above the bound, is recorded as diverged: that is a result, no failure."""

_EPILOG = """\
values:
  optim.lr=1e-4,3e-4,1e-3      these three
  optim.lr=log:1e-4..1e-1      a range, even on a logarithmic scale, for --random and --search tpe
  model.d_model=64..512        a range of whole numbers
  model.ffn=swiglu,silu        any field of the configuration; None leaves it open

examples:
  cs336lm sweep --config base.toml --grid optim.lr=1e-4,3e-4,1e-3 --out sweeps/lr --seeds 3
  cs336lm sweep --config base.toml --grid optim.lr=1e-3,3e-3 --grid data.batch_size=16,64 --out s/b
  cs336lm sweep --config base.toml --grid optim.lr=log:1e-4..1e-1 --random 20 --out s/r --jobs 2
  cs336lm sweep --config base.toml --grid optim.lr=log:1e-4..1e-1 --search tpe --trials 30 --out s/t
  cs336lm sweep --config base.toml --grid optim.lr=1e-3,3e-3 --out s/c --launcher slurm --jobs 8 \\
      --launcher-option timeout_min=60 --launcher-option slurm_partition=gpu"""


def main(argv: list[str]) -> int:
    """Runs the sweep and says how each trial ended; 1 if one failed."""
    arguments, base = parse_trials(_parser(), "sweep", argv)

    from cs336lm.experiments.comparison import by_overrides
    from cs336lm.experiments.space import parse_space
    from cs336lm.experiments.sweep import Sweep
    from cs336lm.experiments.sweep_plot import plot_sweep, swept_fields

    space = parse_space(arguments.grid)
    sweep = Sweep(
        arguments.out,
        base,
        seeds=arguments.seeds,
        loss_bound=arguments.loss_bound,
        prune=arguments.search == "tpe" and arguments.prune,
    )
    sweep.refuse_what_is_not_ours()
    records = run_trials(sweep, _search(arguments, space, sweep), arguments)
    groups = by_overrides(records)
    if swept_fields(groups):
        plot_sweep(groups, sweep.path / "sweep.png")
    return show_trials(sweep, records, sweep_table(groups), arguments, _edges(groups))


def sweep_table(groups: list[Group]) -> Table:
    """A row a combination of values: mean loss and spread over seeds, best first."""
    from cs336lm.experiments.space import shown
    from cs336lm.experiments.tables import Table, number, parameters

    fields = list(dict.fromkeys(name for group in groups for name in group.overrides))
    rows = []
    for group in sorted(groups, key=lambda g: (g.mean is None, g.mean)):
        values = [shown(group.overrides[f]) if f in group.overrides else "" for f in fields]
        rows.append(
            [
                *values,
                number(group.mean),
                number(group.spread),
                str(len(group.records)),
                parameters(group.records[0]["parameters"]),
                group.ends,
            ]
        )
    headings = [*fields, "val loss", "± seeds", "seeds", "parameters", ""]
    return Table(headings, rows, texts=len(fields))


def _edges(groups: list[Group]) -> Iterator[str]:
    from cs336lm.experiments.sweep_plot import edge_of_stability, swept_fields

    for field in swept_fields(groups):
        edge = edge_of_stability(groups, field)
        if edge is not None:
            yield f"edge of stability: {field} between {edge[0]:g} and {edge[1]:g}"


def _search(arguments: argparse.Namespace, space: list[Dimension], sweep: Sweep) -> Search:
    from cs336lm.experiments.search import GridSearch, RandomSearch, TpeSearch

    seed = arguments.search_seed
    if arguments.random is not None and arguments.search is not None:
        raise UsageError("--random and --search exclude each other: name one")
    if arguments.trials is not None and arguments.search is None:
        raise UsageError("--trials is for --search tpe; with a grid its values say how many")
    if arguments.random is not None:
        return RandomSearch(space, arguments.random, seed)
    if arguments.search == "tpe":
        if arguments.trials is None:
            raise UsageError("--search tpe needs --trials: how many points to try")
        sweep.path.mkdir(parents=True, exist_ok=True)
        return TpeSearch(space, arguments.trials, seed, sweep.journal)
    search = GridSearch(space)
    sweep.check([proposal.overrides for proposal in search.proposals()])
    return search


def _parser() -> Parser:
    parser = trials_parser("sweep", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add(
        "--grid",
        action="append",
        required=True,
        metavar="FIELD=VALUES",
        help="a field and what to try; several --grid are combined",
    )
    add("--random", type=positive, metavar="N", help="try N points drawn at random")
    add("--search", choices=("tpe",), help="let Optuna choose each point by those before")
    add("--trials", type=positive, metavar="N", help="points that --search tries")
    add("--no-prune", dest="prune", action="store_false", help="with --search: end no trial early")
    add(
        "--search-seed",
        type=int,
        default=0,
        metavar="N",
        help="of --random and --search (default: 0)",
    )
    return parser
