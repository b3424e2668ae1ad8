"""A run directory: all that a training run leaves, under names that never change.

    config.toml        the resolved configuration
    metrics.jsonl      one JSON object a line, each step once
    checkpoints/       step-00001000.pt, ... the last few (directories, where the run was sharded);
                       best.pt, the weights with the best validation loss
    tokenizer/         a copy of the tokenizer, if the run was given one

It is enough to resume, to compare, and to generate without naming anything else.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cs336lm.training.checkpoints.archive import read_state, write_state
from cs336lm.training.checkpoints.state import State, unpack, unpack_model
from cs336lm.training.config import Config, load_config, save_config

if TYPE_CHECKING:
    import torch

    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer

Which = Literal["best", "last"]

_STEP_NAME = re.compile(r"step-(\d{8,})(\.pt)?")


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
                f"{self.path} is not a run directory: there is no config.toml in it; "
                "`cs336lm train --run-dir ...` makes one"
            )
        return load_config(self.config_file)

    def load_tokenizer(self) -> Tokenizer | None:
        """The run's tokenizer, if it has one."""
        if not self.tokenizer.is_dir():
            return None
        from cs336lm.text.tokenizer import Tokenizer

        return Tokenizer.load(self.tokenizer)

    def prepare(self, config: Config, tokenizer: Tokenizer | None) -> None:
        """Makes the directory and writes what is known before the first step."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for leftover in self.checkpoints.glob(".*.partial"):  # of a process that was killed
            _remove(leftover)
        if tokenizer is not None:
            tokenizer.save(self.tokenizer)
        save_config(config, self.config_file)

    def step_checkpoints(self) -> list[Path]:
        """The checkpoints that are kept, oldest first; not the best one."""
        if not self.checkpoints.is_dir():
            return []
        found = [path for path in self.checkpoints.iterdir() if _STEP_NAME.fullmatch(path.name)]
        return sorted(found, key=_step_of)

    def sharded_checkpoint(self, step: int) -> Path:
        """Where a sharded run's checkpoint of ``step`` goes: a directory."""
        return self.checkpoints / f"step-{step:08d}"

    def write_checkpoint(self, state: State) -> None:
        """Writes the checkpoint of ``state["iteration"]``."""
        write_state(state, self.checkpoints / f"step-{state['iteration']:08d}.pt")

    def write_best(self, state: State) -> None:
        """Writes ``best.pt``: the weights alone, since no training continues from them."""
        weights = {"model": state["model"], "iteration": state["iteration"]}
        write_state(weights, self.best_checkpoint)

    def drop_old_checkpoints(self, keep: int) -> None:
        """Removes all but the last ``keep``; never the best one."""
        for old in self.step_checkpoints()[:-keep]:
            _remove(old)

    def pick_checkpoint(self, which: Which) -> Path:
        """The last checkpoint, or the best (the last, where nothing was validated)."""
        kept = self.step_checkpoints()
        if which == "best" and self.best_checkpoint.exists():
            return self.best_checkpoint
        if not kept:
            raise ValueError(f"{self.path} does not contain a checkpoint yet")
        return kept[-1]

    def restore(
        self,
        path: Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> dict[str, Any]:
        """Loads a checkpoint in place, sharded or not, and returns what else is in it.

        Raises ``ValueError``, naming the file and a way out, if it is damaged.
        """
        try:
            if path.is_dir():
                from cs336lm.training.checkpoints.sharded import load_sharded

                return load_sharded(path, model, optimizer)
            state = read_state(path)
            if optimizer is None:
                unpack_model(state, model, str(path))
            else:
                unpack(state, model, optimizer, str(path))
            return state
        except ValueError as error:
            others = [other for other in self.step_checkpoints() if other != path]
            way_out = f"; delete it to continue from {others[-1].name}" if others else ""
            raise ValueError(f"{error}{way_out}") from None


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

    ``which`` is ``"best"`` by validation loss (the last checkpoint, where nothing was validated) or
    ``"last"``. The model is in float32 and in evaluation mode.
    """
    from cs336lm.model.initial import undrawn_weights
    from cs336lm.model.transformer import TransformerLM

    run = RunDirectory(run_dir)
    config = run.load_config()
    with undrawn_weights():
        model = TransformerLM(config.model, device=device)
    run.restore(run.pick_checkpoint(which), model)
    return config, model.eval(), run.load_tokenizer()
