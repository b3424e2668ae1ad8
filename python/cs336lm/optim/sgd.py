"""Stochastic gradient descent with the handout's falling learning rate."""

import math
from typing import Any

from torch import Tensor

from cs336lm.optim.base import GradientDescent, at_least_zero


class SGD(GradientDescent):
    """p <- p - lr / sqrt(t + 1) * grad, with t = 0, 1, ... (handout, "An SGD optimizer")."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": at_least_zero("lr", lr)})

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        for param, grad in zip(params, grads, strict=True):
            t = self.state[param].get("t", 0)
            param.add_(grad, alpha=-group["lr"] / math.sqrt(t + 1))
            self.state[param]["t"] = t + 1
