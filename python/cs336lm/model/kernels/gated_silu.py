"""SwiGLU's gate (Shazeer 2020), and its twin with gradients derived by hand."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.model.functional import silu
from cs336lm.model.kernels.twins import eager_twin_of


def gated_silu_formula(gate_up: Float[Tensor, "... two_d_ff"]) -> Float[Tensor, "... d_ff"]:
    """silu(gate) * up, of a gate and an up side by side in one tensor."""
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


@eager_twin_of(gated_silu_formula)
def gated_silu(gate_up: Float[Tensor, "... two_d_ff"]) -> Float[Tensor, "... d_ff"]:
    """:func:`gated_silu_formula` in few passes over memory."""
    if not gate_up.requires_grad:
        return _gate(gate_up)
    gated: Tensor = _GatedSilu.apply(gate_up)
    return gated


def _gate(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.sigmoid(gate).mul_(gate).mul_(up)


class _GatedSilu(torch.autograd.Function):
    """With s = sigmoid(g): d/du = dy g s, and d/dg = dy u s (1 + g (1 - s))."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return _gate(gate_up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        gradient = torch.empty_like(gate_up)
        d_gate, d_up = gradient.chunk(2, dim=-1)
        s = torch.sigmoid(gate)
        torch.mul(gate, s, out=d_up)
        # s (1 + g (1 - s)) = s + (g s) (1 - s). Multiplied out, two large terms would cancel where
        # the gate is wide open: in bfloat16 6 % of the gradient at g = 15.
        torch.addcmul(s, d_up, 1 - s, out=d_gate).mul_(up).mul_(dy)
        d_up.mul_(dy)
        return gradient
