"""Attention of a single query per head, as decoding needs it: the formula and two fast twins.

A product of a vector and a matrix waits for memory, so a library's product has little to gain. The
compiler makes one loop over the keys of a multiplication and a sum, with the operations around it
inside; eager code is fastest with batched matrix products.

The scale 1 / sqrt(d_head) is expected in the queries already. ``bias`` is added to the scores,
(batch * heads, 1, seen): -inf where a sequence has no token, else 0; None where all keys count.
"""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from cs336lm.model.functional import at_least_float32, softmax


def attend_formula(
    q: Float[Tensor, "batch heads d_head"],
    keys: Float[Tensor, "batch heads seen d_head"],
    values: Float[Tensor, "batch heads seen d_head"],
    bias: Tensor | None,
) -> Float[Tensor, "batch d_model"]:
    """softmax(q K^T + bias) V in float32 or better; the heads side by side."""
    wide_q, wide_keys, wide_values = (at_least_float32(x) for x in (q, keys, values))
    scores = einsum(wide_q, wide_keys, "b heads d, b heads seen d -> b heads seen")
    if bias is not None:
        scores = scores + rearrange(bias, "(b heads) 1 seen -> b heads seen", heads=q.shape[1])
    weights = softmax(scores, dim=-1)
    attended = einsum(weights, wide_values, "b heads seen, b heads seen d -> b heads d")
    return attended.flatten(1).to(q.dtype)


def attend_by_products(
    q: Float[Tensor, "batch heads d_head"],
    keys: Float[Tensor, "batch heads seen d_head"],
    values: Float[Tensor, "batch heads seen d_head"],
    bias: Tensor | None,
) -> Float[Tensor, "batch d_model"]:
    """:func:`attend_formula` in three library calls."""
    batch, heads, d_head = q.shape
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    queries = q.reshape(batch * heads, 1, d_head)
    if bias is None:
        scores = torch.bmm(queries, keys.transpose(1, 2))
    else:
        scores = torch.baddbmm(bias, queries, keys.transpose(1, 2))
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(batch, heads * d_head)


def attend_by_reductions(
    q: Float[Tensor, "batch heads d_head"],
    keys: Float[Tensor, "batch heads seen d_head"],
    values: Float[Tensor, "batch heads seen d_head"],
    bias: Tensor | None,
) -> Float[Tensor, "batch d_model"]:
    """:func:`attend_formula` as multiplications and sums, which the compiler fuses."""
    scores = (keys * q.unsqueeze(2)).sum(-1)
    if bias is not None:
        scores = scores + bias.view(*q.shape[:2], -1)
    shares = torch.softmax(scores, dim=-1)
    return (shares.unsqueeze(-1) * values).sum(2).flatten(1)
