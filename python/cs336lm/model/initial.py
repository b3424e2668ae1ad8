"""How weights are made: where, and from which distribution they are drawn at first."""

import torch
from torch import Tensor

Device = torch.device | str | None


@torch.no_grad()
def fill_truncated_normal(weight: Tensor, std: float) -> None:
    """Draws ``weight`` from N(0, std^2), cut off at three standard deviations.

    Drawn in float32 at least: the inverse error function behind it is too coarse in half
    precision.
    """
    draft = torch.empty_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    torch.nn.init.trunc_normal_(draft, std=std, a=-3 * std, b=3 * std)
    weight.copy_(draft)
