"""A run directory: all that a training run leaves, under names that never change.

    config.toml        the resolved configuration, and which of its values were derived from others
    metrics.jsonl      one JSON object a line, each step once
    samples.jsonl      what it wrote on the way, if train.sample_every asked for that
    environment.jsonl  a line a start: versions, command, commit, devices
    checkpoints/       step-00001000.pt, ... the last few (directories, where the run was sharded);
                       best.pt, the weights with the best validation loss
    bad-batches/       step-00000123.pt: what a step could not learn from, and the weights it met
    tokenizer/         a copy of the tokenizer, if the run was given one
    .lock              locked by the process that trains, as long as it does

It is enough to resume, to compare, and to generate without naming anything else.

**The best weights** belong to the checkpoint that training would continue from. If they are beaten
after it, they stay as ``best-before.pt`` until the next checkpoint is written: a run that is killed
in between goes back to that checkpoint, and they are the best again.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cs336lm.errors import Note, UsageError
from cs336lm.files import exclusive_lock, refuse_if_locked, sync_directory, sync_file
from cs336lm.training.checkpoints.archive import (
    peek_iteration,
    read_state,
    verify_file,
    write_state,
)
from cs336lm.training.checkpoints.state import Damaged, Mismatch, State, unpack, unpack_model
from cs336lm.training.config import Config, load_config, save_config

if TYPE_CHECKING:
    import torch

    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer

Which = Literal["best", "last"] | int
"""One of a run's checkpoints; a number is a step."""

BAD_BATCHES = "bad-batches"

_STEP_NAME = re.compile(r"step-(\d{8,})(\.pt)?")


class RunDirectory:
    """The files of one run. Making the object touches nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.samples_file = self.path / "samples.jsonl"
        self.environment_file = self.path / "environment.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.pt"
        self.best_before = self.checkpoints / "best-before.pt"
        self.tokenizer = self.path / "tokenizer"
        self._lock_file = self.path / ".lock"

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.exists()

    def holds_weights(self) -> bool:
        """Whether a run got as far as saving something here."""
        return bool(self.step_checkpoints()) or self.best_checkpoint.exists()

    def refuse_if_foreign(self) -> None:
        """Raises ``UsageError`` if a run would replace what no run has written here."""
        written = (self.config_file, self.metrics_file, self.environment_file)
        there = [path for path in written if path.exists() and path.stat().st_size]
        if there and not self._is_of_a_run():
            raise UsageError(
                f"{there[0]} would be written over, but was not written by `cs336lm train`: name "
                "another --run-dir, or move that file away"
            )

    def _is_of_a_run(self) -> bool:
        """Whether a run was begun here: it left its lock, or (of before there was one) the rest."""
        with suppress(OSError):
            if self._lock_file.read_text(errors="replace").startswith("process "):
                return True
        with suppress(OSError, ValueError):
            load_config(self.config_file)
            return self.checkpoints.is_dir()
        return False

    def refuse_if_in_use(self) -> None:
        """Raises ``UsageError`` if a process trains in this directory now."""
        refuse_if_locked(self._lock_file, str(self.path))

    @contextmanager
    def in_use(self, step: int, damaged: Sequence[Path] = ()) -> Iterator[None]:
        """Keeps the directory to this process, which has looked at it and continues from ``step``.

        The ``damaged`` checkpoints of later steps get a name that is no checkpoint's.

        Raises ``UsageError`` if another process trains here, or has since that look.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self._lock_file, str(self.path)):
            for path in damaged:
                aside = path.with_name(f"{path.name}.damaged")
                if aside.exists():  # the same step, damaged once before
                    _remove(aside)
                with suppress(FileNotFoundError):
                    path.rename(aside)
            kept = self.step_checkpoints()
            if kept and _step_of(kept[-1]) > step:
                raise UsageError(
                    f"{self.path} has got to step {_step_of(kept[-1])} by another process "
                    "meanwhile: continue from there with --resume"
                )
            yield

    def load_config(self) -> Config:
        """The run's configuration. Raises ``ValueError`` if no run was started here."""
        if not self.holds_run():
            raise ValueError(f"{self.path} is not a run directory: {self._what_instead()}")
        return load_config(self.config_file, resolved=True)

    def _what_instead(self) -> str:
        """What is there that is no run, and what to do about it."""
        if not self.path.exists():
            return "there is nothing of that name"
        if not self.path.is_dir():
            return "it is a file"
        if (self.path / "config.json").is_file():
            return "it holds a model in Hugging Face's format: `cs336lm import` makes a run of it"
        return "there is no config.toml in it; `cs336lm train --run-dir ...` makes one"

    def load_asked(self) -> Config:
        """The same, but what was left open when the run was started is open in it."""
        return load_config(self.config_file)

    def load_tokenizer(self) -> Tokenizer | None:
        """The run's tokenizer, if it has one."""
        if not self.tokenizer.is_dir():
            return None
        from cs336lm.text.tokenizer import Tokenizer

        return Tokenizer.load(self.tokenizer)

    def prepare(
        self, config: Config, tokenizer: Tokenizer | None, asked: Config | None = None
    ) -> None:
        """Makes the directory and writes what is known before the first step.

        ``asked`` is ``config`` before it was resolved.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for leftover in self.checkpoints.glob(".*.partial"):  # of a process that was killed
            _remove(leftover)
        self._drop_surplus(config.train.keep_checkpoints)
        if tokenizer is not None:
            tokenizer.save(self.tokenizer)
        save_config(config, self.config_file, asked)

    def step_checkpoints(self) -> list[Path]:
        """The checkpoints that are kept, oldest first; not the best one."""
        if not self.checkpoints.is_dir():
            return []
        found = [path for path in self.checkpoints.iterdir() if _STEP_NAME.fullmatch(path.name)]
        return sorted(found, key=_step_of)

    def bad_batch(self, step: int) -> Path:
        """Where the batch of a step goes whose numbers were not finite, with the weights."""
        return self.path / BAD_BATCHES / f"step-{step:08d}.pt"

    def sharded_checkpoint(self, step: int) -> Path:
        """Where a sharded run's checkpoint of ``step`` goes: a directory."""
        return self.checkpoints / f"step-{step:08d}"

    def sync_records(self) -> None:
        """Has ``metrics.jsonl`` on the disk: before the checkpoint of its last step is."""
        sync_file(self.metrics_file)

    def write_checkpoint(self, state: State) -> None:
        """Writes the checkpoint of ``state["iteration"]``."""
        self.sync_records()
        write_state(state, self.checkpoints / f"step-{state['iteration']:08d}.pt")

    def write_best(self, state: State) -> None:
        """Writes ``best.pt``: the weights alone, since no training continues from them."""
        weights = {name: state[name] for name in state if name != "optimizer"}
        beside = self.checkpoints / ".best.pt.next.partial"
        try:
            write_state(weights, beside)
        except OSError as error:
            error.filename = str(self.best_checkpoint)
            raise
        if self.best_checkpoint.exists() and not self.best_before.exists():
            self.best_checkpoint.replace(self.best_before)
        beside.replace(self.best_checkpoint)
        sync_directory(self.checkpoints)

    def best_steps(self) -> list[int]:
        """The steps whose weights are here as the best, the latest first."""
        found = (peek_iteration(path) for path in (self.best_checkpoint, self.best_before))
        return sorted((step for step in found if step is not None), reverse=True)

    def settle_best(self, best_step: int | None, step: int) -> None:
        """Makes ``best.pt`` the weights of ``best_step`` in a run that continues from ``step``.

        If there is none (None), what was the best of another measure is set aside until the next
        checkpoint. The best of a later step than ``step`` is of a branch that is abandoned.
        """
        now, before = peek_iteration(self.best_checkpoint), peek_iteration(self.best_before)
        if best_step is not None and now != best_step == before:
            self.best_before.replace(self.best_checkpoint)
        elif now == best_step or before is None or before > step:
            self.best_before.unlink(missing_ok=True)
        if best_step is None and now is not None and now <= step:
            self.best_checkpoint.replace(self.best_before)
        elif best_step is None:
            self.best_checkpoint.unlink(missing_ok=True)

    def drop_old_checkpoints(self, keep: int) -> None:
        """Removes all but the last ``keep``; never the best one, but what was the best before."""
        self.best_before.unlink(missing_ok=True)
        self._drop_surplus(keep)

    def _drop_surplus(self, keep: int) -> None:
        for old in self.step_checkpoints()[:-keep]:
            _remove(old)

    def pick_checkpoint(self, which: Which) -> Path:
        """The last checkpoint, the best (the last, where nothing was validated), or a step's."""
        kept = self.step_checkpoints()
        if isinstance(which, int):
            return self._checkpoint_of(which, kept)
        if which == "best" and self.best_checkpoint.exists():
            return self.best_checkpoint
        if not kept:
            raise ValueError(f"{self.path} does not contain a checkpoint yet")
        return kept[-1]

    def last_good_checkpoint(self) -> tuple[Path | None, dict[Path, str]]:
        """The last checkpoint that is as it was written, and what is wrong with each later one."""
        wrong: dict[Path, str] = {}
        for path in reversed(self.step_checkpoints()):
            try:
                verify_checkpoint(path)
                return path, wrong
            except (ValueError, OSError) as error:
                wrong[path] = str(error)
        return None, wrong

    def _checkpoint_of(self, step: int, kept: list[Path]) -> Path:
        steps = {_step_of(path): path for path in kept}
        if step in steps:
            return steps[step]
        if step in self.best_steps():
            now = peek_iteration(self.best_checkpoint) == step
            return self.best_checkpoint if now else self.best_before
        there = f"there are those of {', '.join(map(str, steps))}" if steps else "there is none"
        raise ValueError(f"{self.path} does not contain a checkpoint of step {step}; {there}")

    def restore(
        self,
        path: Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        loads_optimizer: Callable[[State], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """Loads a checkpoint in place, sharded or not, and returns what else is in it.

        ``loads_optimizer`` is asked, before anything is changed, whether the optimizer is to be
        loaded too. Raises ``Mismatch`` if the checkpoint is of another model or optimizer, and
        ``Damaged``, naming the file, if it is damaged.
        """
        try:
            if path.is_dir():
                from cs336lm.training.checkpoints.sharded import load_sharded

                return load_sharded(path, model, optimizer, loads_optimizer)
            state = read_state(path)
            if optimizer is None or not loads_optimizer(state):
                unpack_model(state, model, str(path))
            else:
                unpack(state, model, optimizer, str(path))
            return state
        except (Mismatch, UsageError):
            raise
        except ValueError as error:
            raise Damaged(str(error)) from None


def verify_checkpoint(path: Path) -> bool:
    """Reads a checkpoint through, a file or a directory; returns whether it carries its checksum.

    Raises ``OSError`` if it cannot be read and ``ValueError``, naming it, if it is not as it was
    written.
    """
    if not path.is_dir():
        return verify_file(path)
    from cs336lm.training.checkpoints.sharded import verify_sharded

    return verify_sharded(path)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _remove(path: Path) -> None:
    """Removes a file, or a directory: first renamed to what is not a checkpoint's name."""
    if not path.is_dir():
        path.unlink()
        return
    doomed = path.with_name(f".{path.name.strip('.')}.removed.partial")
    path.rename(doomed)
    shutil.rmtree(doomed)


def load_run(
    run_dir: str | Path, device: str | torch.device = "cpu", which: Which = "best"
) -> tuple[Config, TransformerLM, Tokenizer | None]:
    """The trained model of a run, ready for use, with its configuration and tokenizer.

    ``which`` is ``"best"`` by validation loss (the last checkpoint, where nothing was validated),
    ``"last"``, or the step of a checkpoint that was kept. The model is in float32 and in evaluation
    mode. If the best or the last is damaged, a warning says so, and the last that is not is loaded.
    """
    from cs336lm.model.initial import undrawn_weights
    from cs336lm.model.transformer import TransformerLM

    run = RunDirectory(run_dir)
    config = run.load_config()
    with undrawn_weights():
        model = TransformerLM(config.model, device=device)
    path = run.pick_checkpoint(which)
    try:
        run.restore(path, model)
    except Damaged as error:
        good, _ = run.last_good_checkpoint()
        if isinstance(which, int) or good is None:
            raise
        warnings.warn(f"{error}; {good.name} is used instead", Note, stacklevel=2)
        run.restore(good, model)
    return config, model.eval(), run.load_tokenizer()
