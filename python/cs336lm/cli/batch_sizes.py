"""``cs336lm batch-sizes``: a configuration -> what larger batches cost and give."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cs336lm.cli.experiment import parse_trials, run_trials, show_trials, trials_parser
from cs336lm.cli.options import count, positive
from cs336lm.cli.parser import Parser

if TYPE_CHECKING:
    from cs336lm.experiments.comparison import Group
    from cs336lm.experiments.tables import Table
    from cs336lm.training.config import Config

_DESCRIPTION = """\
Train with batches of 1, 2, 4 ... sequences, up to what memory holds, all on the same tokens.

What memory holds is found by trying: by real steps on a GPU, by the growth of a few small ones on a
CPU (a half of it is used, and 1,024 sequences at most, unless --largest says otherwise). The
learning rates follow --rule: with sqrt, a batch four times the base's has twice its rates. The
table says at which batch the loss at equal tokens begins to suffer, and what a step costs."""

_EPILOG = """\
examples:
  cs336lm batch-sizes --config base.toml --tokens 2M --out sweeps/batch
  cs336lm batch-sizes --config base.toml --tokens 2M --largest 64 --rule none --seeds 3 --out s/b"""

_LARGEST = 1024


def main(argv: list[str]) -> int:
    """Runs all sizes and prints the table; 1 if one failed."""
    arguments, base = parse_trials(_parser(), "batch-sizes", argv)

    from cs336lm.experiments.batch_sizes import batch_size_variants
    from cs336lm.experiments.comparison import by_overrides
    from cs336lm.experiments.search import FixedSearch
    from cs336lm.experiments.sweep import Sweep
    from cs336lm.experiments.sweep_plot import plot_sweep, swept_fields

    sweep = Sweep(arguments.out, base, seeds=arguments.seeds, loss_bound=arguments.loss_bound)
    sweep.refuse_what_is_not_ours()
    largest = arguments.largest or _largest(sweep.base)
    variants = batch_size_variants(base, arguments.tokens, largest, arguments.rule)
    sweep.check(variants)
    records = run_trials(sweep, FixedSearch(variants), arguments)
    groups = by_overrides(records)
    if swept_fields(groups):
        plot_sweep(groups, sweep.path / "sweep.png")
    return show_trials(sweep, records, _table(groups), arguments)


def _largest(base: Config) -> int:
    """As many sequences as fit; on a CPU half of that, since other programs live there."""
    from cs336lm.training.batch_size import find_batch_size
    from cs336lm.training.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        found = find_batch_size(Trainer(base, Path(folder) / "run"))
    return min(_LARGEST, max(1, found.sequences // 2 if found.is_estimate else found.sequences))


def _table(groups: list[Group]) -> Table:
    from cs336lm.experiments.tables import Table, duration, number

    rows = []
    for group in groups:
        record = group.records[0]
        rows.append(
            [
                f"{group.overrides['data.batch_size']:,}",
                f"{group.overrides['optim.lr']:.3g}",
                f"{record['steps']:,}",
                f"{record['tokens']:,}",
                number(group.mean) if not group.diverged else "diverged",
                number(group.spread),
                duration(record["seconds"]),
            ]
        )
    headings = ["batch", "lr", "steps", "tokens", "val loss", "± seeds", "time"]
    return Table(headings, rows, texts=0)


def _parser() -> Parser:
    from cs336lm.experiments.batch_sizes import RULES

    parser = trials_parser("batch-sizes", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("--tokens", required=True, type=count, metavar="N", help="tokens of each trial: 2M")
    add("--largest", type=positive, metavar="N", help="largest batch (default: what memory holds)")
    add(
        "--rule",
        choices=tuple(RULES),
        default="sqrt",
        help="how learning rates grow with the batch (default: sqrt)",
    )
    return parser
