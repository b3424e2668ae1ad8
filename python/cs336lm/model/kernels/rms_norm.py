"""RMSNorm (Zhang and Sennrich 2019), and its twin with gradients derived by hand."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.model.functional import at_least_float32
from cs336lm.model.kernels.twins import eager_twin_of


def rms_norm_formula(
    x: Float[Tensor, "... d"], weight: Float[Tensor, " d"], eps: float
) -> Float[Tensor, "... d"]:
    """x / sqrt(mean(x^2) + eps) * weight, in float32 or better, returned in the dtype of ``x``."""
    wide = at_least_float32(x)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale * weight).to(x.dtype)


@eager_twin_of(rms_norm_formula)
def rms_norm(
    x: Float[Tensor, "... d"], weight: Float[Tensor, " d"], eps: float
) -> Float[Tensor, "... d"]:
    """:func:`rms_norm_formula` in few passes over memory."""
    normed: Tensor = _RMSNorm.apply(at_least_float32(x), weight, eps)
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
