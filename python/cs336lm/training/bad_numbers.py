"""Numbers that go wrong: a step whose loss or gradient is not finite changes no weights.

Between the backward pass and the optimizer's step the loss and the gradient's norm are read. If
either is infinite or no number, the batch is run once more through the same weights, watched by
hooks (``first_bad.py``), and saved with them: ``cs336lm train --replay FILE`` runs it again. Then
the run stops (``train.on_bad_numbers = "stop"``) or leaves the step out (``"skip"``); all
processes do the same. With float16, gradients that overflow are the loss scaler's to skip.

A GPU would stand still while the host waits for those numbers. So a run that is to stop reads them
there a step later, when they have arrived: the step is named as exactly, but its update is made,
and the weights that the batch is run through and saved with are those of the last checkpoint.

A loss far above those before it is a **spike**, and counted: more than :data:`SPIKE_DEVIATIONS`
standard deviations above the mean of the last :data:`SPIKE_WINDOW` (the measure of OLMo's reports).
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs336lm.errors import Note
from cs336lm.training.checkpoints.archive import write_state
from cs336lm.training.checkpoints.state import State, describe, distinct_weights, unwrapped
from cs336lm.training.device_events import PendingScalars
from cs336lm.training.distributed import gather_rows
from cs336lm.training.first_bad import first_bad
from cs336lm.training.parallel import gather_weights
from cs336lm.training.setup import Setup

SPIKE_WINDOW = 128
SPIKE_DEVIATIONS = 6.0
_LEAST_SEEN = 32  # losses before one is called a spike

MOST_SKIPPED = 20
"""Steps in a row; whatever is wrong then does not go away by itself."""

MOST_SAVED = 3
"""Batches that a run that skips them saves, each with the model's weights."""


class BadNumbers(ValueError):
    """A loss or a gradient that is not finite ends the run, at ``step``."""

    def __init__(self, message: str, step: int, loss: float, norm: float) -> None:
        super().__init__(message)
        self.step, self.loss, self.norm = step, loss, norm


class NumberGuard:
    """Looks at every step before the optimizer does."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._skips = setup.config.train.on_bad_numbers == "skip"
        self._waits = self._skips or setup.device.type == "cpu"
        self._before: tuple[int, Tensor, Tensor, int, PendingScalars] | None = None
        self._in_a_row = 0
        self._saved = 0
        self._spikes = SpikeCounter()

    def admits(self, x: Tensor, y: Tensor, rounds: int, loss: Tensor, norm: Tensor) -> bool:
        """Whether the step on this process's ``x`` -> ``y`` may change the weights.

        ``loss`` is the mean over this process's share, ``norm`` the whole gradient's. All processes
        must ask, and get the same answer. Raises ``BadNumbers`` to stop.
        """
        setup, step = self._setup, self._setup.progress.step + 1
        if not self._waits:
            before, self._before = self._before, (step, x, y, rounds, PendingScalars([loss, norm]))
            if before is not None:
                self._look_back(*before)
            return True
        pair = torch.stack([setup.world.mean(loss).float(), norm.float().to(loss.device)])
        mean_loss, size = pair.tolist()
        # The scaler of float16 looks at the gradient itself, and scales less after an overflow.
        gradient_is_good = math.isfinite(size) or setup.scaler.is_enabled()
        if math.isfinite(mean_loss) and gradient_is_good:
            self._in_a_row = 0
            setup.progress.loss_spikes += self._spikes.is_one(mean_loss)
            return True
        self._in_a_row += 1
        where, saved = self._save(step, x, y, rounds)
        what = f"step {step}: the loss is {mean_loss} and the norm of the gradient {size}{where}"
        if not self._skips:
            raise BadNumbers(
                f"{what}: training has diverged; {saved}{_ADVICE}", step, mean_loss, size
            )
        if self._in_a_row >= MOST_SKIPPED:
            why = f"{what}: training has diverged; {MOST_SKIPPED} steps in a row; {_ADVICE}"
            raise BadNumbers(why, step, mean_loss, size)
        setup.progress.skipped_steps += 1
        if setup.world.is_main:
            warnings.warn(f"{what}; the step is left out; {saved}".rstrip("; "), Note, stacklevel=4)
        return False

    def _look_back(
        self, step: int, x: Tensor, y: Tensor, rounds: int, numbers: PendingScalars
    ) -> None:
        """Raises ``BadNumbers`` if those of the step before, which has been taken, were bad."""
        setup = self._setup
        loss, size = numbers.read()
        # The norm is that of all processes: they agree on it.
        if math.isfinite(size) or setup.scaler.is_enabled():
            setup.progress.loss_spikes += self._spikes.is_one(loss)
            return
        what = f"step {step}: the loss is {loss} and the norm of the gradient {size}"
        where, saved = "", ""
        checkpoint, _ = setup.run.last_good_checkpoint()
        if checkpoint is not None:
            setup.run.restore(checkpoint, setup.model.module)
            where, saved = self._save(step, x, y, rounds)
            saved = f"with the weights of {checkpoint.stem}, {saved}"
        raise BadNumbers(
            f"{what}{where}: training has diverged; {saved}{_ADVICE}", step, loss, size
        )

    def _save(self, step: int, x: Tensor, y: Tensor, rounds: int) -> tuple[str, str]:
        """In words, where the numbers went wrong first, and where the batch is saved."""
        if self._saved == MOST_SAVED:
            return "", ""
        self._saved += 1
        setup = self._setup
        found = first_bad(setup.model.module, x, y, rounds, setup.dtype)
        by_rank = setup.world.gather(found)
        batch = {"x": gather_rows(setup.world, x), "y": gather_rows(setup.world, y)}
        if setup.model.is_sharded:
            weights = gather_weights(setup.model.module, setup.world)
        else:
            weights = unwrapped(distinct_weights(setup.model.module))
        path = setup.run.bad_batch(step)
        if setup.world.is_main:
            path.parent.mkdir(parents=True, exist_ok=True)
            state = {
                **describe(setup.model.module),
                "model": weights,
                "iteration": step - 1,
                "batch": batch,
                "parts": rounds * setup.world.size,
                "dtype": str(setup.dtype).removeprefix("torch."),
            }
            write_state(state, path)
        where = next((f", first in {one}" for one in by_rank if one), "")
        return where, f"see it again with: cs336lm train --replay {path}; "


_ADVICE = "a lower --optim.lr or a longer --optim.warmup-steps may help"


class SpikeCounter:
    """Says which of a row of losses are spikes."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def is_one(self, loss: float) -> bool:
        """Whether ``loss`` is far above those before it; takes it into account from then on."""
        before = self._losses
        is_spike = False
        if len(before) >= _LEAST_SEEN:
            mean = statistics.fmean(before)
            is_spike = loss > mean + SPIKE_DEVIATIONS * statistics.pstdev(before, mean)
        before.append(loss)
        return is_spike


def replay(path: str | Path, device: torch.device) -> tuple[State, list[str | None]]:
    """Runs a saved batch again.

    Returns the file's content, and for each part of the batch what is not finite first, if any is.
    Raises ``ValueError`` if the file is damaged or holds no batch.
    """
    from cs336lm.model.config import ModelConfig
    from cs336lm.model.initial import undrawn_weights
    from cs336lm.model.transformer import TransformerLM
    from cs336lm.training.checkpoints.archive import read_state
    from cs336lm.training.checkpoints.state import unpack_model

    state = read_state(path)
    batch: Any = state.get("batch")
    if not isinstance(batch, dict) or not {"model_config", "parts", "dtype"} <= state.keys():
        raise ValueError(f"{path} holds no batch: --replay takes a file of a run's bad-batches/")
    with undrawn_weights():
        model = TransformerLM(ModelConfig(**state["model_config"]), device=device)
    unpack_model(state, model, str(path))
    dtype = getattr(torch, state["dtype"])
    x, y = (batch[name].to(device) for name in ("x", "y"))
    parts = zip(x.chunk(state["parts"]), y.chunk(state["parts"]), strict=True)
    return state, [first_bad(model, part_x, part_y, 1, dtype) for part_x, part_y in parts]
