"""What a block reads of the residual stream."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module, Parameter

from cs336lm.model.initial import Device
from cs336lm.model.roles import Role


class ResidualScalars(Module):
    """a x + b e, of the stream x and the token's embedding e; a starts at 1 and b at 0.

    (From the modded-nanogpt speed runs; nanochat has the same.) ``weight`` is (a, b).
    """

    role: Role = "scalar"

    def __init__(self, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = Parameter(torch.empty(2, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The stream alone."""
        self.weight.zero_()
        self.weight[0].fill_(1)

    def forward(
        self, x: Float[Tensor, "... d_model"], embedded: Float[Tensor, "... d_model"]
    ) -> Float[Tensor, "... d_model"]:
        """Same shape and dtype as ``x``."""
        return self.weight[0] * x + self.weight[1] * embedded
