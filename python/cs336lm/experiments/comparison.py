"""Whether one way of training is better than another: means, spreads and a test over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cs336lm.experiments.results import Record, plain
from cs336lm.experiments.space import Overrides

TEST = "Welch's t-test, two-sided"
"""Which test ``p_value`` is: it does not take the two spreads to be equal (Welch 1947)."""


@dataclass(frozen=True)
class Group:
    """The trials of one variant, one a seed."""

    overrides: Overrides
    records: list[Record]

    @property
    def losses(self) -> list[float]:
        """The final validation losses of the seeds that have one."""
        return [r["val_loss"] for r in self.records if r["val_loss"] is not None]

    @property
    def diverged(self) -> int:
        """How many seeds diverged."""
        return sum(r["diverged"] for r in self.records)

    @property
    def ends(self) -> str:
        """How seeds ended, but for those that are done."""
        return ", ".join(sorted({record["end"] for record in self.records} - {"done"}))

    @property
    def mean(self) -> float | None:
        """The mean loss; None if any seed has no loss: a mean of the lucky ones would flatter."""
        whole = len(self.losses) == len(self.records) and self.records
        return statistics.fmean(self.losses) if whole else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds, of a sample; None for fewer than two."""
        return statistics.stdev(self.losses) if len(self.losses) > 1 else None


def grouped(records: Sequence[Record], variants: Mapping[str, Overrides]) -> dict[str, Group]:
    """The records of each of ``variants``, by its name."""
    return {
        name: Group(overrides, [r for r in records if r["overrides"] == plain(overrides)])
        for name, overrides in variants.items()
    }


def by_overrides(records: Sequence[Record]) -> list[Group]:
    """The records grouped by what they changed, in the order in which they come."""
    groups: dict[str, Group] = {}
    for record in records:
        key = repr(record["overrides"])
        groups.setdefault(key, Group(record["overrides"], [])).records.append(record)
    return list(groups.values())


def p_value(a: Sequence[float], b: Sequence[float]) -> float | None:
    """How probable a difference this large is if ``a`` and ``b`` have one mean, see ``TEST``.

    None where it cannot be told: fewer than two values on a side, or SciPy is not installed.
    """
    if min(len(a), len(b)) < 2:
        return None
    if len({*a}) == len({*b}) == 1:  # no spread at all: the test would divide by zero
        return 1.0 if a[0] == b[0] else 0.0
    try:
        from scipy.stats import ttest_ind
    except ImportError:
        return None
    p: Any = ttest_ind(a, b, equal_var=False).pvalue
    return None if math.isnan(p) else float(p)
