"""Attention of a single query per head, as decoding needs it: the formula and two fast twins.

A product of a vector and a matrix waits for memory, so a library's product has little to gain. The
compiler makes one loop over the keys of a multiplication and a sum, with the operations around it
inside; eager code is fastest with batched matrix products.

The scale 1 / sqrt(d_head) is expected in the queries already. ``bias`` is added to the scores,
(batch * kv_heads, 1, seen): -inf where a sequence has no token, else 0; None where all keys count.
Where there are fewer heads of keys than of queries, each is that of equally many neighbours.
"""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from cs336lm.model.functional import at_least_float32, softmax


def attend_formula(
    q: Float[Tensor, "batch heads d_head"],
    keys: Float[Tensor, "batch kv_heads seen d_head"],
    values: Float[Tensor, "batch kv_heads seen d_head"],
    bias: Tensor | None,
) -> Float[Tensor, "batch d_model"]:
    """softmax(q K^T + bias) V in float32 or better; the heads side by side."""
    wide_q, wide_keys, wide_values = (at_least_float32(x) for x in (q, keys, values))
    wide_q = rearrange(wide_q, "b (kv group) d -> b kv group d", kv=keys.shape[1])
    scores = einsum(wide_q, wide_keys, "b kv group d, b kv seen d -> b kv group seen")
    if bias is not None:
        scores = scores + rearrange(bias, "(b kv) 1 seen -> b kv 1 seen", kv=keys.shape[1])
    weights = softmax(scores, dim=-1)
    attended = einsum(weights, wide_values, "b kv group seen, b kv seen d -> b kv group d")
    return attended.flatten(1).to(q.dtype)


def attend_by_products(
    q: Float[Tensor, "batch heads d_head"],
    keys: Float[Tensor, "batch kv_heads seen d_head"],
    values: Float[Tensor, "batch kv_heads seen d_head"],
    bias: Tensor | None,
) -> Float[Tensor, "batch d_model"]:
    """:func:`attend_formula` in three library calls."""
    batch, heads, d_head = q.shape
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    queries = q.reshape(len(keys), -1, d_head)
    if bias is None:
        scores = torch.bmm(queries, keys.transpose(1, 2))
    else:
        scores = torch.baddbmm(bias, queries, keys.transpose(1, 2))
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(batch, heads * d_head)


def attend_by_reductions(
    q: Float[Tensor, "batch heads d_head"],
    keys: Float[Tensor, "batch kv_heads seen d_head"],
    values: Float[Tensor, "batch kv_heads seen d_head"],
    bias: Tensor | None,
) -> Float[Tensor, "batch d_model"]:
    """:func:`attend_formula` as multiplications and sums, which the compiler fuses."""
    batch, kv_heads = keys.shape[:2]
    queries = q.reshape(batch, kv_heads, -1, 1, q.shape[-1])
    scores = (keys.unsqueeze(2) * queries).sum(-1)
    if bias is not None:
        scores = scores + bias.view(batch, kv_heads, 1, -1)
    shares = torch.softmax(scores, dim=-1)
    return (shares.unsqueeze(-1) * values.unsqueeze(2)).sum(3).flatten(1)
