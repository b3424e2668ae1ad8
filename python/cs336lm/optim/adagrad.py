"""AdaGrad: a learning rate for each element, which falls as its gradients add up."""

from typing import Any

import torch
from torch import Tensor

from cs336lm.optim.base import GradientDescent, at_least_zero


class AdaGrad(GradientDescent):
    """p <- p - lr * grad / (sqrt(sum of grad^2) + eps) (Duchi et al. 2011, diagonal form)."""

    def __init__(self, params: Any, lr: float = 1e-2, eps: float = 1e-10) -> None:
        super().__init__(params, {"lr": at_least_zero("lr", lr), "eps": at_least_zero("eps", eps)})

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        for param, grad in zip(params, grads, strict=True):
            state = self.state[param]
            if not state:
                state["sum"] = torch.zeros_like(param)
            state["sum"].addcmul_(grad, grad)
            param.addcdiv_(grad, state["sum"].sqrt().add_(group["eps"]), value=-group["lr"])
