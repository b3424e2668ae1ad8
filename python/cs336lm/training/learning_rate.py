"""The learning rate of each step."""

from __future__ import annotations

import torch

from cs336lm.optim.schedules import SCHEDULES
from cs336lm.training.config import Config


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of ``step`` under a resolved configuration.

    The schedule ends with the last step; a resumed run follows its own ``train.steps``.
    """
    optim = config.optim
    assert optim.min_lr is not None  # resolved
    assert optim.warmup_steps is not None
    schedule = SCHEDULES[optim.schedule]
    return schedule(step, optim.lr, optim.min_lr, optim.warmup_steps, config.train.steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives all parameters the learning rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr
