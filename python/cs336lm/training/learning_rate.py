"""What a step takes of the configuration that changes from step to step: rates, momentum."""

from __future__ import annotations

import torch

from cs336lm.optim.schedules import build_schedule
from cs336lm.training.budget import Place
from cs336lm.training.config import Config


class StepSettings:
    """Gives an optimizer the learning rates of each step, and Muon its momentum.

    ``config`` is resolved. The schedule ends where the run does; a resumed run follows its own.
    """

    def __init__(self, config: Config, optimizer: torch.optim.Optimizer) -> None:
        self._optim, self._optimizer = config.optim, optimizer
        self._schedule = build_schedule(config.optim.schedule, decay_share=config.optim.decay_share)

    def apply(self, step: int, place: Place) -> float:
        """Sets what ``step`` is taken with, and returns the learning rate of ``optim.lr``.

        A group with a rate of its own has the same share of it, down to the same share.
        """
        optim = self._optim
        assert optim.min_lr is not None  # resolved
        for group in self._optimizer.param_groups:
            highest = group.get("base_lr", optim.lr)
            least = optim.min_lr
            if highest != optim.lr:
                least = highest * (optim.min_lr / optim.lr if optim.lr else 0.0)
            group["lr"] = self._lr(highest, least, place)
            if "momentum" in group:
                group["momentum"] = self._momentum(step)
        return self._lr(optim.lr, optim.min_lr, place)

    def _lr(self, highest: float, least: float, place: Place) -> float:
        return self._schedule(place.at, highest, least, place.warmup, place.end)

    def _momentum(self, step: int) -> float:
        """From ``momentum_start`` at the first step to ``momentum`` after the warm-up."""
        optim = self._optim
        if step > optim.momentum_warmup_steps:
            return optim.momentum
        share = (step - 1) / optim.momentum_warmup_steps
        return optim.momentum_start + share * (optim.momentum - optim.momentum_start)
