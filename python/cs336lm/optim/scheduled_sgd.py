"""Stochastic gradient descent that leaves the learning rate to the schedule."""

from typing import Any

from torch import Tensor

from cs336lm.optim.sgd import SGD


class ScheduledSGD(SGD):
    """p <- p - lr * grad: what ``optim.name = "sgd"`` means.

    The handout's ``SGD`` divides lr by sqrt(t + 1) by itself; under a schedule, which sets lr
    before each step, it would fall twice.
    """

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        for param, grad in zip(params, grads, strict=True):
            param.add_(grad, alpha=-group["lr"])
