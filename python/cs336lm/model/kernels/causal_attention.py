"""Causal attention over whole sequences: PyTorch's fused kernel, or a few large products.

On a CPU in bfloat16 the fused kernel's many small products do not reach the processor's bfloat16
units (PyTorch 2.15), and plain batched products are faster, the more so the shorter the sequence.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.model.autocast import product_dtype, without_autocast
from cs336lm.model.functional import scaled_dot_product_attention, shared_by

_ROWS = 256
"""Queries that are multiplied with all keys that any of them sees: what lies above the diagonal is
for nothing, so that a sequence of several times as many rows comes near half of all products."""
_LONGEST = 1024
"""The longest sequence taken so. All probabilities are kept for the backward pass."""


def causal_attention(
    q: Float[Tensor, "... heads seq d"],
    k: Float[Tensor, "... kv_heads seq d"],
    v: Float[Tensor, "... kv_heads seq d"],
) -> Float[Tensor, "... heads seq d"]:
    """Each query attends to the keys up to its own; a head of keys serves neighbouring queries."""
    dtype = product_dtype(q)
    if q.device.type == "cpu" and dtype == torch.bfloat16 and 0 < q.shape[-2] <= _LONGEST:
        with without_autocast(q):
            return attention_by_products(q.to(dtype), k.to(dtype), v.to(dtype))
    shares_keys = k.shape[-3] < q.shape[-3]
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shares_keys)


def attention_by_products(
    q: Float[Tensor, "... heads seq d"],
    k: Float[Tensor, "... kv_heads seq d"],
    v: Float[Tensor, "... kv_heads seq d"],
) -> Float[Tensor, "... heads seq d"]:
    """The formula, ``_ROWS`` queries at a time, in the tensors' own dtype."""
    shape = q.shape
    if k.shape[-3] < shape[-3]:
        k, v = shared_by(shape[-3], k), shared_by(shape[-3], v)
    q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in (q, k, v))
    parts = []
    for first in range(0, shape[-2], _ROWS):
        queries = q[:, first : first + _ROWS]
        seen = first + queries.shape[1]
        later = queries.new_full((queries.shape[1], seen), -math.inf).triu(first + 1)
        scores = torch.baddbmm(later, queries, k[:, :seen].mT, alpha=shape[-1] ** -0.5)
        parts.append(torch.bmm(torch.softmax(scores, dim=-1), v[:, :seen]))
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).view(shape)
