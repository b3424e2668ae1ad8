"""A sweep: one base configuration, many trials that each change a few fields of it.

    sweeps/a/
      base.toml        the configuration that all trials share
      configs/         a file a trial: what `cs336lm train --config` was given
      runs/            a run directory a trial, like any other
      logs/            what each process said
      results.jsonl    a line a trial, see ``results``
      search.journal   Optuna's memory, with --search tpe
      .lock            locked by the process that sweeps

A sweep that was killed goes on where it was when it is started again: trials that ended are not
run again, and one that was under way continues from its last checkpoint. More values and more
seeds may be added that way; another base configuration is another sweep.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.launcher import Launcher
from cs336lm.experiments.results import Record, Results, result_record
from cs336lm.experiments.runs import differences
from cs336lm.experiments.search import Proposal, Search
from cs336lm.experiments.space import Overrides, described, with_overrides
from cs336lm.experiments.trial import Outcome, Trial, run_trial
from cs336lm.files import exclusive_lock
from cs336lm.training.config import Config, dump_config, load_config, save_config
from cs336lm.training.data import open_data

_LONGEST_NAME = 120


class Sweep:
    """The trials of one directory.

    ``seeds``: how many seeds each variant is run with, from the base configuration's on.
    ``loss_bound``: the validation loss above which a trial counts as diverged; None means that of a
    model that finds all tokens equally likely, and half a nat.
    """

    def __init__(
        self,
        path: str | Path,
        base: Config,
        *,
        seeds: int = 1,
        loss_bound: float | None = None,
        prune: bool = False,
    ) -> None:
        if seeds < 1:
            raise UsageError(f"--seeds {seeds} is impossible: at least one")
        if base.data.train is None:
            raise UsageError("name --data.train, or a --config that does: the tokens to train on")
        if base.data.val is None:
            raise UsageError(
                "trials are compared by their validation loss: name --data.val, a token file"
            )
        self.path = Path(path).absolute()
        self.base = dataclasses.replace(base, data=base.data.relative_to(Path.cwd()))
        self.seeds = [base.train.seed + i for i in range(seeds)]
        self.results = Results(self.path / "results.jsonl")
        self.journal = self.path / "search.journal"
        self._base_file = self.path / "base.toml"
        data = open_data(self.base)
        self._vocab_size, self._tokens = data.vocab_size, len(data.train)
        self.loss_bound = math.log(self._vocab_size) + 0.5 if loss_bound is None else loss_bound
        self._prune = prune

    def run(
        self, search: Search, launcher: Launcher, report: Callable[[Record], None]
    ) -> list[Record]:
        """Runs what is left and returns the records of all that ``search`` proposed, in its order.

        ``report`` is told each record when its trial ends. Raises ``UsageError`` if the directory
        is another sweep's or in use, before anything is written.
        """
        self.refuse_what_is_not_ours()
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.path / ".lock", str(self.path)):
            if not self._base_file.exists():
                save_config(self.base, self._base_file)
            return self._run(search, launcher, report)

    def _run(
        self, search: Search, launcher: Launcher, report: Callable[[Record], None]
    ) -> list[Record]:
        known = {n: r for n, r in self.results.read().items() if r["end"] != "failed"}
        order: list[str] = []
        of_proposal: dict[str, tuple[Proposal, list[str]]] = {}

        def trials_left() -> Iterator[Trial]:
            for proposal in search.proposals():
                trials = [self._trial(proposal, seed) for seed in self.seeds]
                names = [trial.name for trial in trials]
                order.extend(names)
                of_proposal.update(dict.fromkeys(names, (proposal, names)))
                for trial in trials:
                    if trial.name not in known:
                        self._write_config(trial)
                        yield trial
                self._tell(search, proposal, names, known)

        for trial, ended in launcher.run(run_trial, trials_left()):
            outcome = (
                Outcome("failed", message=" ".join(str(ended).split()))
                if isinstance(ended, Exception)
                else ended
            )
            if outcome.end == "stopped":
                continue  # it goes on when the sweep does
            record = result_record(trial, outcome, self._parameters(trial.overrides))
            self.results.append(record)
            known[trial.name] = record
            report(record)
            self._tell(search, *of_proposal[trial.name], known)
        return [known[name] for name in order if name in known]

    def _tell(
        self, search: Search, proposal: Proposal, names: list[str], known: dict[str, Record]
    ) -> None:
        """Tells the search of a proposal whose trials have all ended."""
        if not all(name in known for name in names):
            return
        records = [known[name] for name in names]
        losses = [r["val_loss"] for r in records if r["end"] in ("done", "pruned")]
        whole = len(losses) == len(records) and None not in losses
        search.tell(proposal, sum(losses) / len(losses) if whole else None)

    def refuse_what_is_not_ours(self) -> None:
        """Raises ``UsageError`` if the directory holds something else than this sweep."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file: name a directory")
        if not self._base_file.exists():
            if any(self.path.iterdir()):
                raise UsageError(
                    f"--out {self.path} holds other things: name a new directory, or that of a "
                    "sweep to go on with"
                )
            return
        found = differences([load_config(self._base_file), self.base])
        found.pop("train.seed", None)
        for name, (was, asked) in found.items():
            raise UsageError(
                f"{self.path} is a sweep over a base with {name}={was}, not {asked}: name another "
                "--out for another base"
            )

    def check(self, variants: Sequence[Overrides]) -> None:
        """Raises ``UsageError`` if one of ``variants`` is an impossible configuration."""
        for overrides in variants:
            try:
                with_overrides(self.base, overrides).resolved(self._vocab_size, self._tokens)
            except UsageError as error:
                raise UsageError(f"{described(overrides)}: {error}") from None

    def _trial(self, proposal: Proposal, seed: int) -> Trial:
        name = trial_name(proposal.overrides, seed)
        pruner = None
        if self._prune and proposal.number is not None and seed == self.seeds[0]:
            pruner = (self.journal, proposal.number)
        return Trial(
            name=name,
            overrides=proposal.overrides,
            seed=seed,
            config=self.path / "configs" / f"{name}.toml",
            run=self.path / "runs" / name,
            log=self.path / "logs" / f"{name}.log",
            loss_bound=self.loss_bound,
            pruner=pruner,
        )

    def _write_config(self, trial: Trial) -> None:
        config = with_overrides(self.base, trial.overrides)
        config = dataclasses.replace(
            config, train=dataclasses.replace(config.train, seed=trial.seed)
        )
        if trial.config.exists() and trial.config.read_text("utf-8") == dump_config(config):
            return
        trial.config.parent.mkdir(exist_ok=True)
        save_config(config, trial.config)

    def _parameters(self, overrides: Overrides) -> int:
        from cs336lm.model.accounting import total_parameters

        config = with_overrides(self.base, overrides).resolved(self._vocab_size, self._tokens)
        return total_parameters(config.model)


def trial_name(overrides: Overrides, seed: int) -> str:
    """A name for the directory of a trial, which says what it is and is no other trial's."""
    parts = [f"{name}={_spelled(value)}" for name, value in overrides.items()]
    whole = ",".join([*parts, f"seed={seed}"])
    plain = re.sub(r"[^A-Za-z0-9._=,+-]", "_", whole)
    if plain == whole and len(plain) <= _LONGEST_NAME:
        return plain
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{plain[: _LONGEST_NAME - 9]}-{mark}"


def _spelled(value: object) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(_spelled, value))
    return str(value)
