"""What happens beside the steps: one object a concern, told of every step, acting on some.

The loop calls the callbacks in order. An earlier one may leave something for a later one in the
``StepResult``: the validator a loss that the reporter writes, for instance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from cs336lm.training.device_events import PendingScalars
from cs336lm.training.distributed import World


@dataclass
class StepResult:
    """What a step leaves behind, for all callbacks to see."""

    step: int
    lr: float
    loss: Tensor
    """Of this process's share of the batch, still on the device."""
    grad_norm: Tensor
    """Of the whole gradient, still on the device."""
    world: World
    is_final: bool
    """Whether this is the last step of the run."""
    is_stopping: bool
    """Whether the run ends after this step because somebody asked for it; a callback may say so."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What callbacks measured after the step: goes into its record."""
    took_time: bool = False
    """Whether a callback spent time after the step that is not training's; measuring does."""
    is_best: bool = False
    """Whether the validation after this step was the best so far."""

    _scalars: PendingScalars | None = None

    def request_scalars(self) -> PendingScalars:
        """The mean loss over all processes and the gradient's norm, on their way to the host.

        The first call queues the copy, so all processes must make it after the same steps.
        """
        if self._scalars is None:
            self._scalars = PendingScalars([self.world.mean(self.loss), self.grad_norm])
        return self._scalars


class Callback:
    """Something to do now and then during training; every method may be left as it is."""

    samples: ClassVar[bool] = False
    """Whether this is what ``train.sample_every`` asks for."""

    def before_training(self) -> None:
        """Called once, before the first step."""

    def before_step(self, step: int, x: Tensor, y: Tensor) -> None:
        """Called before every step with its batch, this process's share: (batch, context) each."""

    def after_step(self, result: StepResult) -> None:
        """Called after every step."""

    def after_training(self) -> None:
        """Called once, after the last step, unless something failed."""


def is_due(step: int, every: int) -> bool:
    """Whether what happens every ``every`` steps happens after ``step``; 0 means never."""
    return every > 0 and step % every == 0
