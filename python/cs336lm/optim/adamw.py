"""AdamW, in two implementations of one formula: tensor by tensor, and all tensors at once.

The second has a kernel of its own on a GPU (``adamw_kernel.py``).
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from cs336lm.errors import UsageError
from cs336lm.model.kernels.triton_trial import triton_works
from cs336lm.optim.base import GradientDescent, at_least_zero

_BLOCK = 1 << 16  # elements; of four tensors and a temporary, they fill half a core's cache


class AdamW(GradientDescent):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, algorithm 2).

        m <- b1 m + (1 - b1) g                p <- p - lr * weight_decay * p
        v <- b2 v + (1 - b2) g^2              p <- p - lr * m^ / (sqrt(v^) + eps)

    with m^ = m / (1 - b1^t) and v^ = v / (1 - b2^t): step for step what ``torch.optim.AdamW`` does.

    Args:
        params: parameters or groups of them.
        lr: the learning rate.
        betas: how much of the running means of g and g^2 a step keeps.
        eps: keeps the quotient finite.
        weight_decay: share of a parameter, per unit of learning rate, that a step takes off.
        foreach: work on all tensors of a group at once, on a GPU in one kernel, or on one after the
            other, in blocks that a core's cache has room for; None is what suits the device of the
            parameters. The results are the same.

    Examples:
        The first step is the learning rate long, whatever the gradient's size:

        >>> weight = torch.zeros(2, requires_grad=True)
        >>> optimizer = AdamW([weight], lr=0.1, weight_decay=0.0)
        >>> weight.grad = torch.tensor([1000.0, -0.001])
        >>> optimizer.step()
        >>> weight.detach()
        tensor([-0.1000,  0.1000])
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        foreach: bool | None = None,
    ) -> None:
        defaults = adamw_settings(lr, betas, eps, weight_decay)
        super().__init__(params, defaults)
        self._foreach = foreach

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        adamw_update([self.state[param] for param in params], params, grads, group, self._foreach)


def adamw_settings(
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> dict[str, Any]:
    """What a group of AdamW's says. Raises ``UsageError`` naming what is impossible."""
    for beta in betas:
        if not 0 <= beta < 1:
            raise UsageError(f"betas must be at least 0 and below 1, not {tuple(betas)!r}")
    return {
        "lr": at_least_zero("lr", lr),
        "betas": tuple(betas),
        "eps": at_least_zero("eps", eps),
        "weight_decay": at_least_zero("weight_decay", weight_decay),
    }


def adamw_update(
    states: list[dict[str, Any]],
    params: list[Tensor],
    grads: list[Tensor],
    group: dict[str, Any],
    foreach: bool | None = None,
) -> None:
    """One step of AdamW for the parameters of a group; ``states`` is what is kept of each."""
    for param, state in zip(params, states, strict=True):
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        state["step"] += 1
    at_once = params[0].device.type != "cpu" if foreach is None else foreach
    update = _adamw_all_at_once if at_once else _adamw_one_by_one
    update(
        params,
        grads,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [state["step"] for state in states],
        group,
    )


def _bias_corrections(step: int, betas: tuple[float, float]) -> tuple[float, float]:
    """c / (1 - b1^t) and c, with c = sqrt(1 - b2^t).

    m^ / (sqrt(v^) + eps) is m / (sqrt(v) + c eps) times the first: a pass over v less.
    """
    beta1, beta2 = betas
    correction = math.sqrt(1 - beta2**step)
    return correction / (1 - beta1**step), correction


def _adamw_one_by_one(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[int],
    group: dict[str, Any],
) -> None:
    """The formula, one block of one parameter after the other."""
    lr, (beta1, beta2) = group["lr"], group["betas"]
    for *tensors, step in zip(params, grads, exp_avgs, exp_avg_sqs, steps, strict=True):
        factor, correction = _bias_corrections(step, group["betas"])
        for param, grad, m, v in _blocks(*tensors):
            param.mul_(1 - lr * group["weight_decay"])
            m.lerp_(grad, 1 - beta1)
            v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            denominator = v.sqrt().add_(correction * group["eps"])
            param.addcdiv_(m, denominator, value=-lr * factor)


def _blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The same block of each of the tensors, one after the other, as views."""
    if not all(t.is_contiguous() and type(t) in (Tensor, Parameter) for t in tensors):
        return [tensors]
    return zip(*(tensor.view(-1).split(_BLOCK) for tensor in tensors), strict=True)


def _adamw_all_at_once(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[int],
    group: dict[str, Any],
) -> None:
    """The same on all tensors: by one kernel, or one multi-tensor operation a term."""
    lr, (beta1, beta2) = group["lr"], group["betas"]
    corrections = [_bias_corrections(step, group["betas"]) for step in steps]
    kept = 1 - lr * group["weight_decay"]
    if len(set(steps)) == 1 and _in_one_kernel(params, grads, exp_avgs, exp_avg_sqs):
        from cs336lm.optim.adamw_kernel import adamw_in_one_kernel

        factor, correction = corrections[0]
        adamw_in_one_kernel(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            betas=group["betas"],
            kept=kept,
            rate=lr * factor,
            eps=correction * group["eps"],
        )
        return
    torch._foreach_mul_(params, kept)
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)
    denominators = torch._foreach_sqrt(exp_avg_sqs)
    torch._foreach_add_(denominators, [correction * group["eps"] for _, correction in corrections])
    torch._foreach_addcdiv_(
        params, exp_avgs, denominators, [-lr * factor for factor, _ in corrections]
    )


def _in_one_kernel(*lists: list[Tensor]) -> bool:
    """Whether there is a kernel for these tensors, and a compiler for it."""
    if not triton_works(lists[0][0].device):
        return False
    from cs336lm.optim.adamw_kernel import suits

    return suits(*lists)
