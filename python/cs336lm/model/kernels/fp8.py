"""Matrix products in eight bits (Micikevicius et al. 2022, "FP8 Formats for Deep Learning").

Activations and weights go into the product as e4m3 (four bits of exponent), gradients as e5m2,
which has more range and fewer digits; sums are float32. Each tensor is scaled first so that its
largest magnitude is the format's: scales are taken from the tensors themselves, every time, so that
there is no state. Weights, optimizer and everything beside the products stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.model.autocast import product_dtype

_FORWARD, _BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
_MULTIPLE = 16  # the hardware's: of every dimension of a product


def require_fp8(device: torch.device) -> None:
    """Raises ``UsageError`` unless the device multiplies in eight bits."""
    if device.type != "cuda":
        raise UsageError(
            f"train.fp8 needs a GPU that multiplies in 8 bits; this run is on {device}"
        )
    if torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device)
        raise UsageError(f"train.fp8: {name} cannot multiply in 8 bits; leave it out")


def fp8_linear(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]
) -> Float[Tensor, "... d_out"]:
    """``x @ weight.T``, and both products of its backward pass, in eight bits.

    Returns the dtype of ``x``; under autocast that of autocast. Sizes that are not multiples of 16
    raise ValueError.
    """
    rows = x.numel() // x.shape[-1]
    if any(size % _MULTIPLE for size in (rows, *weight.shape)):
        raise ValueError(
            f"train.fp8 multiplies sizes that divide by {_MULTIPLE}, not {rows} tokens by a "
            f"weight of {tuple(weight.shape)}"
        )
    x = x.to(product_dtype(x))
    product: Tensor = _Fp8Linear.apply(x.flatten(0, -2) if x.ndim > 1 else x.unsqueeze(0), weight)
    return product.view(*x.shape[:-1], weight.shape[0])


class _Fp8Linear(torch.autograd.Function):
    """y = x w^T; dx = dy w; dw = dy^T x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x8, x_scale = _quantized(x, _FORWARD)
        w8, w_scale = _quantized(weight, _FORWARD)
        ctx.save_for_backward(x8, x_scale, w8, w_scale)
        ctx.weight_dtype = weight.dtype
        return _product(x8, w8.t(), x_scale, w_scale, x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x8, x_scale, w8, w_scale = ctx.saved_tensors
        dy8, dy_scale = _quantized(dy, _BACKWARD)
        dx = _product(dy8, _columns(w8), dy_scale, w_scale, dy.dtype)
        dw = _product(dy8.t().contiguous(), _columns(x8), dy_scale, x_scale, dy.dtype)
        return dx, dw.to(ctx.weight_dtype)


def _quantized(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x`` / scale in eight bits, and the scale: float32, such that the largest just fits."""
    largest = torch.finfo(dtype).max
    scale = x.abs().amax().float().clamp(min=1e-12) / largest
    return (x.float() / scale).clamp(-largest, largest).to(dtype).contiguous(), scale


def _columns(x: Tensor) -> Tensor:
    """``x``, stored column by column, as the second factor has to be."""
    return x.t().contiguous().t()


def _product(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """(a a_scale) @ (b b_scale)."""
    return torch._scaled_mm(a, b, scale_a=a_scale, scale_b=b_scale, out_dtype=dtype)
