"""Muon: for a matrix, steepest descent where a step's size is what it does to a vector."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.model.processor import multiplies_bfloat16
from cs336lm.optim.adamw import adamw_settings, adamw_update
from cs336lm.optim.base import GradientDescent, at_least_zero, below_one
from cs336lm.optim.newton_schulz import STEPS, orthogonalize_each
from cs336lm.optim.sharing import Alone, Replicas, Sharing, Slices


class Muon(GradientDescent):
    """Momentum, orthogonalised (Jordan 2024); AdamW for what is no matrix inside a block.

        m <- momentum m + (1 - momentum) g      O = orthogonalize(u), see ``newton_schulz``
        u  = momentum m + (1 - momentum) g      W <- W - lr weight_decay W
                                                W <- W - lr sqrt(max(1, rows / columns)) O

    u is Nesterov's momentum. Every singular value of O is about 1, so that a step changes W x by
    about lr |x| in every direction, also in those that the gradient hardly has. Step for step it is
    what ``torch.optim.Muon`` does.

    The factor is Jordan's: where a matrix has more rows than columns, |W x| is spread over more
    numbers, and each of them may still change by lr. So one lr does for matrices of all shapes and
    models of all widths. (0.2 sqrt(max(rows, columns)), of Liu et al. 2025, makes steps as large as
    AdamW's instead. There AdamW's lr does, but it has to fall as models get wider.)

    Args:
        params: matrices, or groups. A group with ``"matrices": False`` is AdamW's, for embeddings,
            the head and gains: it has ``lr``, ``betas``, ``eps`` and ``weight_decay``.
        lr: the learning rate.
        momentum: how much of the running mean of the gradients a step keeps.
        weight_decay: share of a parameter, per unit of learning rate, that a step takes off.
        nesterov: whether u counts the gradient once more; else it is m.
        newton_schulz_steps: steps of the iteration.
        dtype: of the iteration; None is bfloat16, which it is made for, where the device is fast in
            it (``multiplies_bfloat16``), and elsewhere the parameters' own, at least float32.
        betas, eps: AdamW's, for its groups.
        process_group: the processes that hold the same parameters and get the same gradients (DDP),
            of which each then orthogonalises its share. Slices (FSDP2) need none.

    Raises ``UsageError`` that names a setting which is impossible, or a parameter in a group of
    matrices that is none.
    """

    _dtype: torch.dtype | None = None
    _process_group: Any = None

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = True,
        newton_schulz_steps: int = STEPS,
        dtype: torch.dtype | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        process_group: Any = None,
    ) -> None:
        defaults = adamw_settings(lr, betas, eps, weight_decay) | {
            "matrices": True,
            "momentum": below_one("momentum", momentum),
            "nesterov": nesterov,
            "newton_schulz_steps": at_least_zero("newton_schulz_steps", newton_schulz_steps),
        }
        super().__init__(params, defaults)
        self._dtype, self._process_group = dtype, process_group

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Takes a group of matrices, unless it says ``"matrices": False``."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for param in group["params"] if group["matrices"] else ():
            if param.ndim != 2:
                raise UsageError(
                    f"Muon is for matrices, which a parameter of shape {tuple(param.shape)} is not:"
                    ' put it into a group with "matrices": False, which is updated by AdamW'
                )

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        if group["matrices"]:
            self._update_matrices(params, grads, group)
        else:
            adamw_update([self.state[param] for param in params], params, grads, group)

    def _update_matrices(
        self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]
    ) -> None:
        for param in params:
            if not self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        sharing, momentum = self._sharing(params), group["momentum"]
        # From here on every tensor is what this process has of it.
        weights, grads = what_is_here(params), what_is_here(grads)
        means = what_is_here([self.state[param]["momentum_buffer"] for param in params])
        torch._foreach_lerp_(means, grads, 1 - momentum)
        directions = torch._foreach_lerp(grads, means, momentum) if group["nesterov"] else means
        dtype = self._dtype or _dtype_for(params)
        work = partial(orthogonalize_each, dtype=dtype, steps=group["newton_schulz_steps"])
        updates = sharing.apply(work, directions, dtype)
        del directions
        updates = self._normalised(params, updates, group, sharing)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        for param, weight, update in zip(params, weights, updates, strict=True):
            rows, columns = param.shape
            weight.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))

    def _normalised(
        self, params: list[Tensor], updates: list[Tensor], group: dict[str, Any], sharing: Sharing
    ) -> list[Tensor]:
        """What becomes of ``updates`` (each what this process has of it) once orthogonal."""
        return updates

    def _sharing(self, params: list[Tensor]) -> Sharing:
        mesh = getattr(params[0], "device_mesh", None)
        if mesh is not None:
            return Slices(mesh.get_group(), [param.shape for param in params])
        return Alone() if self._process_group is None else Replicas(self._process_group)


def what_is_here(tensors: list[Tensor]) -> list[Tensor]:
    """What this process holds of each: of a sharded tensor its rows, as a view."""
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


def _dtype_for(matrices: list[Tensor]) -> torch.dtype:
    precise = torch.promote_types(matrices[0].dtype, torch.float32)
    width = max(min(matrix.shape) for matrix in matrices)
    is_faster = precise == torch.float32 and multiplies_bfloat16(matrices[0].device, width)
    return torch.bfloat16 if is_faster else precise
