"""One step of training: forward, backward, clip, look, update.

Nothing here waits for a GPU, but float16's scaling by its nature, and ``train.on_bad_numbers =
"skip"``, where what is not finite must not reach the weights (``bad_numbers.py``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.profiler import record_function

from cs336lm.optim import clip_gradients
from cs336lm.training.bad_numbers import NumberGuard
from cs336lm.training.setup import Setup


class TrainingStep:
    """The step of a run: calling it with a batch changes the model once."""

    def __init__(self, setup: Setup) -> None:
        self._model = setup.model
        self._optimizer = setup.optimizer
        self._scaler = setup.scaler
        self._device = setup.device
        self._max_norm = setup.config.optim.grad_clip or math.inf
        self._guard = NumberGuard(setup)
        self._parameters = list(setup.model.module.parameters())

    def __call__(self, x: Tensor, y: Tensor, *, rounds: int) -> tuple[Tensor, Tensor]:
        """One optimizer step on ``x`` -> ``y``, this process's share: (batch, context) each.

        None is taken, and ``BadNumbers`` perhaps raised, if the loss or the gradient is not finite.
        Returns the loss of the share and the norm of the whole gradient.
        """
        loss = self._accumulate_gradients(x, y, rounds)
        with record_function("clip"):
            self._scaler.unscale_(self._optimizer)
            norm = clip_gradients(self._parameters, self._max_norm)
        admitted = self._guard.admits(x, y, rounds, loss, norm)
        with record_function("optimizer"):
            if admitted:
                self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def _accumulate_gradients(self, x: Tensor, y: Tensor, rounds: int) -> Tensor:
        """Adds up the gradients of ``rounds`` equal parts of the batch; returns its mean loss."""
        total = torch.zeros((), device=self._device)
        parts = zip(x.chunk(rounds), y.chunk(rounds), strict=True)
        for number, (inputs, targets) in enumerate(parts, start=1):
            with self._model.round(is_last=number == rounds):
                with record_function("forward"):
                    loss = self._model(inputs, targets) / rounds
                with record_function("backward"):
                    self._scaler.scale(loss).backward()
            total += loss.detach()
        return total
