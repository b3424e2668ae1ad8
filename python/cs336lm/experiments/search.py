"""Which trials are run: where the next one comes from.

    fixed    a list made elsewhere
    grid     every combination of the listed values, the last field fastest
    random   N points of the space; point i is a function of (seed, i) alone
    tpe      N points, each chosen by those before (Bergstra et al. 2011), by Optuna

A search is asked for proposals one after another and told how each ended, maybe in another order.
A sweep that was killed makes it anew with the same arguments and gets the same proposals: grid and
random are pure functions, and Optuna keeps a journal.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cs336lm.errors import UsageError
from cs336lm.experiments.space import Dimension, Listed, Overrides, Range

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Proposal:
    """Values to try; ``number`` is Optuna's, where it is Optuna that proposes."""

    overrides: Overrides
    number: int | None = None


class Search(Protocol):
    """Where trials come from."""

    def proposals(self) -> Iterator[Proposal]:
        """What to try, asked for when there is room for another trial."""

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        """How a proposal ended: its mean validation loss; None if it diverged or was pruned."""


class FixedSearch:
    """What is listed, in this order."""

    def __init__(self, variants: Sequence[Overrides]) -> None:
        self._variants = variants

    def proposals(self) -> Iterator[Proposal]:
        """All of them."""
        return map(Proposal, self._variants)

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        """A list does not learn."""


class GridSearch:
    """Every combination of listed values."""

    def __init__(self, space: Sequence[Dimension]) -> None:
        for dimension in space:
            if isinstance(dimension, Range):
                raise UsageError(
                    f"{dimension.field} is a range: say how many points to try of it, with "
                    "--random N or --search tpe --trials N, or list its values"
                )
        self._space = [dimension for dimension in space if isinstance(dimension, Listed)]

    def proposals(self) -> Iterator[Proposal]:
        """All combinations, the last field fastest."""
        names = [dimension.field for dimension in self._space]
        for values in itertools.product(*(dimension.values for dimension in self._space)):
            yield Proposal(dict(zip(names, values, strict=True)))

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        """A grid does not learn."""


class RandomSearch:
    """``count`` points, drawn evenly (Bergstra & Bengio 2012: better than a grid of as many)."""

    def __init__(self, space: Sequence[Dimension], count: int, seed: int) -> None:
        self._space, self._count, self._seed = list(space), count, seed

    def proposals(self) -> Iterator[Proposal]:
        """Point i does not depend on how many there are."""
        for i in range(self._count):
            generator = np.random.default_rng([self._seed, i])
            yield Proposal({d.field: _drawn(d, float(generator.random())) for d in self._space})

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        """Chance does not learn."""


def _drawn(dimension: Dimension, share: float) -> Any:
    """The value at ``share`` (from 0, below 1) of a dimension."""
    if isinstance(dimension, Range):
        return dimension.at(share)
    return dimension.values[int(share * len(dimension.values))]


class TpeSearch:
    """Optuna's tree-structured Parzen estimator over a journal in the sweep's directory."""

    def __init__(self, space: Sequence[Dimension], count: int, seed: int, journal: Path) -> None:
        self._space, self._count = list(space), count
        study = open_study(journal)
        # The sampler's generator starts anew with the process: the same seed would repeat itself.
        study.sampler = _optuna().samplers.TPESampler(
            seed=seed + len(study.trials), n_startup_trials=5
        )
        self._study = study

    def proposals(self) -> Iterator[Proposal]:
        """First those that a killed sweep left unfinished, then new ones."""
        states = _optuna().trial.TrialState
        for left in self._study.get_trials(states=(states.RUNNING,)):
            yield Proposal(self._overrides(left.params), left.number)
        while len(self._study.trials) < self._count:
            trial = self._study.ask(self._distributions())
            yield Proposal(self._overrides(trial.params), trial.number)

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        """Optuna learns from it; what was told already is not told again."""
        states = _optuna().trial.TrialState
        assert proposal.number is not None
        state = states.FAIL if loss is None else states.COMPLETE
        self._study.tell(proposal.number, loss, state=state, skip_if_finished=True)

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        kinds = _optuna().distributions
        made: dict[str, optuna.distributions.BaseDistribution] = {}
        for d in self._space:
            if isinstance(d, Listed):  # by place: Optuna keeps plain values only
                made[d.field] = kinds.CategoricalDistribution(range(len(d.values)))
            elif d.is_whole:
                made[d.field] = kinds.IntDistribution(int(d.low), int(d.high), log=d.is_log)
            else:
                made[d.field] = kinds.FloatDistribution(d.low, d.high, log=d.is_log)
        return made

    def _overrides(self, params: dict[str, Any]) -> Overrides:
        return {
            d.field: d.values[params[d.field]] if isinstance(d, Listed) else params[d.field]
            for d in self._space
        }


def open_study(journal: Path) -> optuna.Study:
    """The study kept in ``journal``, which several processes may have open; made if need be."""
    optuna = _optuna()
    backend = optuna.storages.journal
    lock = backend.JournalFileOpenLock(str(journal))
    storage = optuna.storages.JournalStorage(
        backend.JournalFileBackend(str(journal), lock_obj=lock)
    )
    return optuna.create_study(
        storage=storage, study_name="sweep", direction="minimize", load_if_exists=True
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UsageError("--search tpe needs Optuna: pip install 'cs336lm[experiments]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
