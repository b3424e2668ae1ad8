"""The network inside a block that acts on each token by itself."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from cs336lm.model.config import default_d_ff
from cs336lm.model.functional import silu
from cs336lm.model.initial import Device
from cs336lm.model.kernels.gated_silu import gated_silu
from cs336lm.model.linear import Linear, project_together


class SwiGLU(Module):
    """w2(silu(w1 x) * w3 x): the gated feed-forward network (Shazeer 2020, equation 6).

    ``d_ff=None`` takes 8/3 d_model, to a multiple of 64. ``output_std`` is the standard deviation
    that w2 starts with, if not its usual one.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        output_std: float | None = None,
    ) -> None:
        super().__init__()
        d_ff = default_d_ff(d_model) if d_ff is None else d_ff
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype, std=output_std)
        self.w3 = Linear(d_model, d_ff, device, dtype)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """(..., d_model) -> (..., d_model)."""
        return self.w2(gated_silu(project_together(x, self.w1, self.w3)))


class TwoMatrices(Module):
    """w2(f(w1 x)), with a subclass's f (Vaswani et al. 2017, equation 2, there with a ReLU).

    ``d_ff=None`` takes 4 d_model; ``output_std`` as for :class:`SwiGLU`.
    """

    activation: Callable[[Tensor], Tensor]

    def __init__(
        self,
        d_model: int,
        d_ff: int | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        output_std: float | None = None,
    ) -> None:
        super().__init__()
        d_ff = 4 * d_model if d_ff is None else d_ff
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype, std=output_std)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """(..., d_model) -> (..., d_model)."""
        return self.w2(self.activation(self.w1(x)))


class SiLUFeedForward(TwoMatrices):
    """w2(silu(w1 x)): SwiGLU without its gate, as the CS336 handout compares it."""

    activation = staticmethod(silu)


def relu_squared(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """max(x, 0)^2."""
    return torch.relu(x).square()


class ReLUSquaredFeedForward(TwoMatrices):
    """w2(max(w1 x, 0)^2) (So et al. 2021, "Primer", section 4)."""

    activation = staticmethod(relu_squared)


FEED_FORWARDS: dict[str, type[SwiGLU] | type[TwoMatrices]] = {
    "swiglu": SwiGLU,
    "silu": SiLUFeedForward,
    "relu2": ReLUSquaredFeedForward,
}
"""By ``ModelConfig.ffn``; each is made with (d_model, d_ff, device, dtype, output_std=...)."""
