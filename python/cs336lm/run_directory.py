"""A run directory: all that a training run leaves, under names that never change.

    config.toml        the resolved configuration
    metrics.jsonl      one JSON object a line, each step once
    checkpoints/       step-00001000.pt, ... the last few; best.pt by validation loss
    tokenizer/         a copy of the tokenizer, if the run was given one

It is enough to resume, to compare, and to generate without naming anything else.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cs336lm.checkpoint import State, atomic_write, read_state, unpack_model, write_state
from cs336lm.config import Config, load_config, save_config

if TYPE_CHECKING:
    import torch

    from cs336lm.model import TransformerLM
    from cs336lm.tokenizer import Tokenizer

Which = Literal["best", "last"]

_STEP_FILE = re.compile(r"step-(\d{8,})\.pt")


class RunDirectory:
    """The files of one run. Making the object touches nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.pt"
        self.tokenizer = self.path / "tokenizer"

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.exists()

    def load_config(self) -> Config:
        """The run's configuration. Raises ``ValueError`` if no run was started here."""
        if not self.holds_run():
            raise ValueError(
                f"{self.path} is no run directory: there is no config.toml in it; "
                "`cs336lm train --run-dir ...` makes one"
            )
        return load_config(self.config_file)

    def load_tokenizer(self) -> Tokenizer | None:
        """The run's tokenizer, if it has one."""
        if not self.tokenizer.is_dir():
            return None
        from cs336lm.tokenizer import Tokenizer

        return Tokenizer.load(self.tokenizer)

    def prepare(self, config: Config, tokenizer: Tokenizer | None) -> None:
        """Makes the directory and writes what is known before the first step."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for leftover in self.checkpoints.glob(".*.partial"):  # of a process that was killed
            leftover.unlink()
        if tokenizer is not None:
            tokenizer.save(self.tokenizer)
        save_config(config, self.config_file)

    def step_checkpoints(self) -> list[Path]:
        """The checkpoints that are kept, oldest first; not the best one."""
        if not self.checkpoints.is_dir():
            return []
        found = [path for path in self.checkpoints.iterdir() if _STEP_FILE.fullmatch(path.name)]
        return sorted(found, key=_step_of)

    def write_checkpoint(self, state: State, *, keep: int) -> Path:
        """Writes the checkpoint of ``state["iteration"]`` and drops all but the last ``keep``."""
        path = self.checkpoints / f"step-{state['iteration']:08d}.pt"
        write_state(state, path)
        for old in self.step_checkpoints()[:-keep]:
            old.unlink()
        return path

    def write_best(self, state: State) -> None:
        """Writes ``best.pt``; where this step's checkpoint exists already, as a link to it."""
        same = self.checkpoints / f"step-{state['iteration']:08d}.pt"
        if not same.exists():
            write_state(state, self.best_checkpoint)
            return
        beside = self.best_checkpoint.with_name(f".best.{os.getpid()}.partial")
        try:
            os.link(same, beside)
            beside.replace(self.best_checkpoint)
        except OSError:  # a file system without links
            with same.open("rb") as source, atomic_write(self.best_checkpoint) as target:
                shutil.copyfileobj(source, target)

    def read_checkpoint(self, which: Which) -> tuple[State, Path]:
        """The last checkpoint, or the best (the last, where nothing was validated).

        Raises ``ValueError``, naming the file, if there is none or it is damaged.
        """
        kept = self.step_checkpoints()
        if which == "best" and self.best_checkpoint.exists():
            path = self.best_checkpoint
        elif kept:
            path = kept[-1]
        else:
            raise ValueError(f"{self.path} holds no checkpoint yet")
        try:
            return read_state(path), path
        except ValueError as error:
            others = [other for other in kept if other != path]
            way_out = f"; delete it to go on from {others[-1].name}" if others else ""
            raise ValueError(f"{error}{way_out}") from None


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def load_run(
    run_dir: str | Path, device: str | torch.device = "cpu", which: Which = "best"
) -> tuple[Config, TransformerLM, Tokenizer | None]:
    """The trained model of a run, ready for use, with its configuration and tokenizer.

    ``which`` is ``"best"`` by validation loss (the last checkpoint, where nothing was validated) or
    ``"last"``. The model is in float32 and in evaluation mode.
    """
    from cs336lm.model import TransformerLM

    run = RunDirectory(run_dir)
    config = run.load_config()
    state, path = run.read_checkpoint(which)
    model = TransformerLM(config.model, device=device)
    unpack_model(state, model, str(path))
    return config, model.eval(), run.load_tokenizer()
