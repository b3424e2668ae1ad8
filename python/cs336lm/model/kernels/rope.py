"""RoPE's rotation of neighbouring pairs (Su et al. 2021), and its twin in complex numbers.

A pair is (x_2k, x_2k+1), everywhere: that is the layout of the weights in a state dict, and so of
queries, keys and caches, however they are computed.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cs336lm.model.kernels.twins import eager_twin_of

Rotation = Callable[[Tensor], Tensor]
"""(..., d) -> (..., d): every pair rotated by the angle of its position."""


def rotation_formula(cos: Float[Tensor, "... half"], sin: Float[Tensor, "... half"]) -> Rotation:
    """Rotates each pair (x_2k, x_2k+1) by the angle whose cosine and sine are given.

    The tables are broadcast over the leading dimensions of what is rotated, whose dtype is kept.
    """

    def rotate(x: Tensor) -> Tensor:
        even, odd = rearrange(x, "... (half two) -> two ... half", two=2)
        rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
        return rotated.flatten(-2).to(x.dtype)

    return rotate


@eager_twin_of(rotation_formula)
def rotation(cos: Float[Tensor, "... half"], sin: Float[Tensor, "... half"]) -> Rotation:
    """:func:`rotation_formula`, multiplying x_2k + i x_2k+1 by cos + i sin: one operation.

    What the tables need is done once, for all that is rotated by the same angles.
    """
    factors = torch.complex(cos, sin)

    def rotate(x: Tensor) -> Tensor:
        if x.dtype != cos.dtype:  # there are no complex numbers in half precision
            return rotation_formula(cos, sin)(x)
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * factors).flatten(-2)

    return rotate
