"""Vectors of one length: RMSNorm, or nothing."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Identity, Module, Parameter

from cs336lm.model.initial import Device
from cs336lm.model.kernels.rms_norm import rms_norm
from cs336lm.model.roles import Role


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * g over the last dimension (Zhang and Sennrich 2019).

    Examples:
        >>> RMSNorm(2)(torch.tensor([3e4, 4e4], dtype=torch.bfloat16))
        tensor([0.8477, 1.1328], dtype=torch.bfloat16, grad_fn=<...>)
    """

    role: Role = "gain"

    def __init__(
        self,
        d_model: int,
        eps: float = 1e-5,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = Parameter(torch.ones(d_model, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Sets the gains back to 1."""
        torch.nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Same shape and dtype as ``x``; works in float32 (float64 for float64) in between.

        In half precision the squares would overflow at 256 and their sum lose its digits.
        """
        return rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


NORMS: dict[str, Callable[..., Module]] = {"pre": RMSNorm, "post": RMSNorm, "none": Identity}
"""By ``ModelConfig.norm``: a block's norms; each is made with (d_model, eps, device, dtype)."""

FINAL_NORMS: dict[str, Callable[..., Module]] = {
    "pre": RMSNorm,
    "post": Identity,  # the last block ends with a norm
    "none": Identity,
}
"""Likewise: what stands between the last block and the head."""
