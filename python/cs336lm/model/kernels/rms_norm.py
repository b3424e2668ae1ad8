"""RMSNorm, SwiGLU's gate and RoPE's turn in few passes over memory, with gradients by hand.

Written as formulas, each of them is a chain of small operations, of which every one reads and
writes a whole tensor, and autograd adds a chain of its own. ``torch.compile`` fuses such chains;
without it these functions do, as far as single operations can: results are updated in place, and
the gradients are derived on paper and computed with as few tensors as they need. Under the
compiler each function is its formula, which is also what the tests hold the gradients against.
"""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor

from cs336lm.model.functional import at_least_float32, silu


def rms_norm(
    x: Float[Tensor, "... d"], weight: Float[Tensor, " d"], eps: float
) -> Float[Tensor, "... d"]:
    """x / sqrt(mean(x^2) + eps) * weight, in float32 or better, returned in the dtype of ``x``."""
    wide = at_least_float32(x)
    if torch.compiler.is_compiling():
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return (wide * scale * weight).to(x.dtype)
    normed: Tensor = _RMSNorm.apply(wide, weight, eps)
    return normed.to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """With r = 1 / sqrt(mean(x^2) + eps) and y = x r g::

    d/dg = sum over tokens of  dy x r
    d/dx = r (dy g) - x r^3 / d * sum over the vector of (dy g x)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = r.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, r = ctx.saved_tensors
        gain = weight.to(x.dtype)
        both = dy * x
        along = (both @ gain).unsqueeze(-1) * r.pow(3) / -x.shape[-1]
        d_weight = r.flatten() @ both.flatten(0, -2) if x.ndim > 1 else r * both
        dx = torch.mul(dy, gain, out=both).mul_(r).addcmul_(x, along)
        return dx, d_weight.to(weight.dtype), None


def gated_silu(gate_up: Float[Tensor, "... two_d_ff"]) -> Float[Tensor, "... d_ff"]:
    """silu(gate) * up, of a gate and an up side by side in one tensor."""
    if torch.compiler.is_compiling():
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate) * up
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
        # s (1 + g (1 - s)) = s + g s - (g s) s
        torch.add(s, d_up, out=d_gate).addcmul_(d_up, s, value=-1).mul_(up).mul_(dy)
        d_up.mul_(dy)
        return gradient


def turn_pairs(
    x: Float[Tensor, "... d"], cos: Float[Tensor, "... half"], sin: Float[Tensor, "... half"]
) -> Float[Tensor, "... d"]:
    """Turns each pair (x_2k, x_2k+1) by the angle whose cosine and sine are given.

    As complex numbers: multiplies x_2k + i x_2k+1 by cos + i sin, which is one operation.
    """
    if x.dtype == cos.dtype and not torch.compiler.is_compiling():
        return turn_complex(x, torch.complex(cos, sin))
    even, odd = rearrange(x, "... (half two) -> two ... half", two=2)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def turn_complex(x: Float[Tensor, "... d"], turns: Complex[Tensor, "... half"]) -> Tensor:
    """:func:`turn_pairs` with cos + i sin given."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


def turn_halves(
    x: Float[Tensor, "... d"], cos: Float[Tensor, "... half"], sin: Float[Tensor, "... half"]
) -> Float[Tensor, "... d"]:
    """:func:`turn_pairs` where a pair is (x_k, x_half+k): first all even places, then all odd ones.

    A compiler makes vector instructions of it, which it cannot of neighbours.
    """
    even, odd = x.chunk(2, dim=-1)
    return torch.cat((even * cos - odd * sin, even * sin + odd * cos), dim=-1).to(x.dtype)


def evens_first(weight: Float[Tensor, "rows d_in"], heads: int) -> Float[Tensor, "rows d_in"]:
    """The rows of each head in the order that :func:`turn_halves` wants of its output."""
    return rearrange(weight, "(h half two) d_in -> (h two half) d_in", h=heads, two=2)
