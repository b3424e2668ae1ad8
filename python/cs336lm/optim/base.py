"""What the optimizers here share: the loop over groups, and the check of their settings.

What an optimizer remembers lies in ``state`` as tensors of the parameter's dtype and device and as
plain integers, so ``state_dict`` -> ``load_state_dict`` gives back exactly the same optimizer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cs336lm.errors import UsageError

Closure = Callable[[], float] | None


class GradientDescent(Optimizer):
    """The loop over the groups; a subclass says how one group is updated."""

    @torch.no_grad()
    def step(self, closure: Closure = None) -> float | None:  # type: ignore[override]
        """Updates every parameter that has a gradient; returns the loss of ``closure``, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, [p.grad for p in params], group)
        return loss

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        raise NotImplementedError


def at_least_zero(name: str, value: float) -> float:
    """``value`` itself; raises ``UsageError`` if it is negative or NaN."""
    if not value >= 0:  # refuses NaN as well
        raise UsageError(f"{name} must not be below 0: {value!r}")
    return value


def below_one(name: str, value: float) -> float:
    """``value`` itself; raises ``UsageError`` unless it is at least 0 and below 1."""
    if not 0 <= value < 1:
        raise UsageError(f"{name} must be at least 0 and below 1, not {value!r}")
    return value
