"""The functions a Transformer is made of: softmax, SiLU, attention, and the loss.

Each is written from its formula, and works for float16, bfloat16, float32 and float64, for any
leading dimensions, on any device. Where a sum decides the result it is taken in float32 or better.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as torch_functional


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` itself if it is float32 or float64, a float32 copy of anything narrower."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def softmax(x: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
    """exp(x) / sum(exp(x)) along ``dim``, in the dtype of ``x``.

    The maximum is subtracted first, which changes nothing mathematically and keeps the exponents
    at most 0: no logits overflow.

    Examples:
        >>> softmax(torch.tensor([0.0, 1e4]), dim=-1)
        tensor([0., 1.])
    """
    wide = at_least_float32(x)
    exponentials = torch.exp(wide - wide.amax(dim, keepdim=True))
    return (exponentials / exponentials.sum(dim, keepdim=True)).to(x.dtype)


def silu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x * sigmoid(x), the "swish" (Elfwing et al. 2017; Ramachandran et al. 2017).

    Examples:
        >>> silu(torch.tensor([0.0, 20.0]))
        tensor([ 0., 20.])
    """
    return x * torch.sigmoid(x)


def softcap(x: Float[Tensor, "..."], cap: float) -> Float[Tensor, "..."]:
    """cap * tanh(x / cap): x where it is small, never beyond +-cap (Gemma Team 2024, "Gemma 2").

    In float32 or better, returned in the dtype of ``x``.
    """
    return (cap * torch.tanh(at_least_float32(x) / cap)).to(x.dtype)


def cross_entropy(
    logits: Float[Tensor, "... vocab"], targets: Int[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Mean over all positions of -log softmax(logits)[target], in nats; float32 or better.

    The logarithm is cancelled against the exponential, log softmax(x)_t = x_t - m - log sum
    exp(x - m) with m the largest logit, so that logits of any size neither overflow nor lose
    the loss of an unlikely target.

    Raises ValueError if the shapes do not fit, and an IndexError or RuntimeError of PyTorch's if
    a target is not an index of the vocabulary.

    Examples:
        A model that finds all of four tokens equally likely loses log 4 nats a token:

        >>> cross_entropy(torch.zeros(2, 4), torch.tensor([3, 0]))
        tensor(1.3863)
    """
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: targets of shape {tuple(targets.shape)} do not fit logits of shape "
            f"{tuple(logits.shape)}; expected {tuple(logits.shape[:-1])}"
        )
    wide = at_least_float32(logits)
    shifted = wide - wide.amax(-1, keepdim=True).detach()
    target_logits = shifted.gather(-1, targets.long().unsqueeze(-1)).squeeze(-1)
    return (shifted.exp().sum(-1).log() - target_logits).mean()


def perplexity(losses: Float[Tensor, "..."] | Sequence[float]) -> Float[Tensor, ""]:
    """exp of the mean loss (in nats): how many equally likely tokens the model hesitates between.

    ``losses`` are per-token losses, or means over equally many tokens each.

    Examples:
        >>> perplexity([math.log(4), math.log(4)])
        tensor(4.)
    """
    return torch.exp(at_least_float32(torch.as_tensor(losses)).mean())


def scaled_dot_product_attention(
    Q: Float[Tensor, "... queries d_k"],
    K: Float[Tensor, "... keys d_k"],
    V: Float[Tensor, "... keys d_v"],
    mask: Bool[Tensor, "... queries keys"] | None = None,
    *,
    is_causal: bool = False,
    enable_gqa: bool = False,
    backend: Literal["fused", "reference"] = "fused",
) -> Float[Tensor, "... queries d_v"]:
    """softmax(Q K^T / sqrt(d_k)) V (Vaswani et al. 2017, equation 1).

    Args:
        Q: the queries.
        K: the keys.
        V: the values.
        mask: True where a query attends to a key; broadcast over leading dimensions. A query
            that may attend to nothing gets zeros.
        is_causal: let query i see keys 0 to i only (instead of a mask; needs as many queries as
            keys to mean what it says).
        enable_gqa: K and V have fewer heads (dimension -3) than Q; each serves as many neighbouring
            heads of Q as there are for one (Ainslie et al. 2023).
        backend: "fused" is PyTorch's kernel, which never holds the whole matrix of scores;
            "reference" is the formula.

    Examples:
        The first query sees the first key alone; the second sees both, equally alike:

        >>> Q = K = torch.zeros(2, 8)
        >>> V = torch.tensor([[0.0], [1.0]])
        >>> scaled_dot_product_attention(Q, K, V, is_causal=True)
        tensor([[0.0000],
                [0.5000]])
    """
    if mask is not None and is_causal:
        raise ValueError("attention takes a mask or is_causal=True, not both")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"the attention mask must be boolean (True: attend), not {mask.dtype}")
    if backend == "fused" and mask is None:
        return torch_functional.scaled_dot_product_attention(
            Q, K, V, is_causal=is_causal, enable_gqa=enable_gqa
        )
    if enable_gqa:  # with a mask the fused kernels of GPUs want a head for a head
        K, V = (shared_by(Q.shape[-3], x) for x in (K, V))
    if backend == "fused":
        return torch_functional.scaled_dot_product_attention(Q, K, V, mask)
    if is_causal:
        mask = torch.ones(Q.shape[-2], K.shape[-2], dtype=torch.bool, device=Q.device).tril()
    return _attention_by_formula(Q, K, V, mask)


def shared_by(heads: int, x: Tensor) -> Tensor:
    """(..., fewer, seq, d) -> (..., heads, seq, d), each of the fewer repeated."""
    return x.repeat_interleave(heads // x.shape[-3], dim=-3)


def _attention_by_formula(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None) -> Tensor:
    queries, keys = at_least_float32(Q), at_least_float32(K)
    scores = einsum(queries, keys, "... queries d, ... keys d -> ... queries keys")
    scores = scores / math.sqrt(Q.shape[-1])
    if mask is not None:
        # The lowest finite number, not -inf: a row without any True stays free of NaN, and the
        # mask applied once more after the softmax turns it into zeros.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores, dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    values = at_least_float32(V)
    return einsum(weights, values, "... queries keys, ... keys d -> ... queries d").to(Q.dtype)
