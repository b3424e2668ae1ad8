"""The network inside a block that acts on each token by itself."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from cs336lm.model.config import default_d_ff
from cs336lm.model.initial import Device
from cs336lm.model.kernels.gated_silu import gated_silu
from cs336lm.model.linear import Linear, project_together


class SwiGLU(Module):
    """w2(silu(w1 x) * w3 x): the gated feed-forward network (Shazeer 2020, equation 6).

    ``d_ff=None`` takes 8/3 d_model, to a multiple of 64.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        d_ff = default_d_ff(d_model) if d_ff is None else d_ff
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype)
        self.w3 = Linear(d_model, d_ff, device, dtype)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """(..., d_model) -> (..., d_model)."""
        return self.w2(gated_silu(project_together(x, self.w1, self.w3)))


FEED_FORWARDS: dict[str, type[SwiGLU]] = {"swiglu": SwiGLU}
"""By ``ModelConfig.ffn``; each is made with (d_model, d_ff, device, dtype)."""
