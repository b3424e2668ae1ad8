"""Where numbers go wrong first: a batch run again, watched from module to module.

A module's hooks fire when it is done, inner modules before those around them. So the first output
that is not finite belongs to the innermost module that made it; what lies between modules (a
residual sum) is the module's around them. If the whole forward pass is finite, the backward pass is
watched likewise, from the loss down.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def first_bad(
    model: torch.nn.Module, x: Tensor, y: Tensor, rounds: int, dtype: torch.dtype
) -> str | None:
    """What is not finite first when ``model`` learns from ``x`` -> ``y`` in ``rounds`` parts.

    In words: ``"the output of layers.2.ffn.w1 (7 of 4096 numbers)"``; None if everything is finite.
    The model is left as it was, its gradients too. Matrix products are in ``dtype``.
    """
    found: list[str] = []
    for name, parameter in model.named_parameters():
        if not found and (bad := _count(parameter)):
            found.append(f"{name} itself ({bad})")
    # Where weights are in slices, all processes meet in every layer: none may leave early, and the
    # backward pass, in which slices are exchanged, is not watched.
    is_sliced = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    for inputs, targets in zip(x.chunk(rounds), y.chunk(rounds), strict=True):
        if found and not is_sliced:
            break
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                hook = partial(_look, found, name or "the model")
                hooks.callback(module.register_forward_hook(hook).remove)
            for name, parameter in model.named_parameters():
                hook = partial(_look_at_gradient, found, name)
                hooks.callback(parameter.register_hook(hook).remove)
            enabled = dtype != torch.float32
            with (
                torch.autocast(inputs.device.type, dtype, enabled=enabled),
                torch.set_grad_enabled(not is_sliced),
            ):
                loss = model(inputs, targets)
            if not found and not is_sliced:
                torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return found[0] if found else None


def _look(found: list[str], name: str, module: Any, inputs: Any, output: Any) -> None:
    if found or not isinstance(output, Tensor):
        return
    if bad := _count(output):
        found.append(f"the output of {name} ({bad})")
    elif output.requires_grad:
        output.register_hook(partial(_look_at_gradient, found, f"the output of {name}"))


def _look_at_gradient(found: list[str], name: str, gradient: Tensor) -> None:
    if not found and (bad := _count(gradient)):
        found.append(f"the gradient of {name} ({bad})")


def _count(values: Tensor) -> str | None:
    """How many of the numbers are not finite, in words; None if all are."""
    local = values.detach()
    if isinstance(local, DTensor):
        local = local.to_local()
    if not local.is_floating_point() or bool(local.isfinite().all()):
        return None
    return f"{int((~local.isfinite()).sum()):,} of {local.numel():,} numbers"
