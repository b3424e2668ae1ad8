"""The loss of a large vocabulary without its logits: the last projection and cross-entropy in one.

Logits are the largest thing a small language model makes: 65,536 tokens times 50,304 entries are
13 GB in float32, once for the forward pass and again for their gradient. Here they exist for a
chunk of tokens at a time. The gradient of the mean cross-entropy with respect to the logits,

    d loss / d logits = (softmax(logits) - onehot(target)) / tokens,

needs nothing but the logits themselves, so it is formed at once, multiplied into the gradients of
the hidden states and of the weight, and forgotten (as in Liger Kernel, Hsu et al. 2024). Forward
and backward together are the same three matrix products as without chunks; what is saved is memory
and its traffic. Where the projection is not a product with one weight, its chunks are computed
twice instead, by activation checkpointing (Chen et al. 2016): four products in place of three.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cs336lm.model.autocast import product_dtype, without_autocast
from cs336lm.model.functional import at_least_float32, cross_entropy, softcap

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 28}
"""Logits held at once: what a core's cache has room for; half a gigabyte on a GPU (bfloat16)."""

_TILE = 256  # tokens: what the products of a GPU are made of


def linear_cross_entropy_formula(
    hidden: Float[Tensor, "... d_model"],
    weight: Float[Tensor, "vocab d_model"],
    targets: Int[Tensor, "..."],
    cap: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of ``targets`` given the logits ``hidden @ weight.T``, in nats.

    With a ``cap`` above 0 the logits z are cap tanh(z / cap).
    """
    logits = at_least_float32(hidden @ weight.T)
    return cross_entropy(softcap(logits, cap) if cap else logits, targets)


def linear_cross_entropy(
    hidden: Float[Tensor, "... d_model"],
    weight: Float[Tensor, "vocab d_model"],
    targets: Int[Tensor, "..."],
    *,
    cap: float = 0.0,
    chunk_tokens: int | None = None,
) -> Float[Tensor, ""]:
    """:func:`linear_cross_entropy_formula`, in chunks of ``chunk_tokens`` tokens.

    It is what the compiler runs, too: what it saves is memory, which fusing does not. Under
    autocast the products are taken in its dtype; the softmax, the loss and the sum of the weight's
    gradient are in float32 or better.
    """
    _check_shapes(hidden, targets)
    if chunk_tokens is None:
        chunk_tokens = _tokens_per_chunk(hidden.device.type, weight.shape[0])
    hidden, weight = hidden.to(product_dtype(hidden)), weight.to(product_dtype(weight))
    flat = hidden.flatten(0, -2) if hidden.ndim > 1 else hidden.unsqueeze(0)
    # Asked here, not of ``ctx.needs_input_grad``, which is True for a weight even where gradients
    # are switched off: validation would compute the head's.
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (flat, weight)]
    with without_autocast(hidden):
        total: Tensor = _ChunkedLoss.apply(
            flat, weight, targets.flatten(), cap, chunk_tokens, *wanted
        )
        return total / targets.numel()


def projected_cross_entropy(
    project: Callable[[Tensor], Tensor],
    hidden: Float[Tensor, "... d_model"],
    targets: Int[Tensor, "..."],
    *,
    vocab_size: int,
    chunk_tokens: int | None = None,
) -> Float[Tensor, ""]:
    """The mean cross-entropy for any ``project``, from hidden states to ``vocab_size`` logits.

    ``project`` sees all tokens at once if they fit in one chunk; else a chunk at a time, and again
    in the backward pass.
    """
    _check_shapes(hidden, targets)
    if chunk_tokens is None:
        chunk_tokens = _tokens_per_chunk(hidden.device.type, vocab_size)
    if targets.numel() <= chunk_tokens:
        return cross_entropy(project(hidden), targets)

    def total_of_chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(project(hidden), targets) * targets.numel()

    chunks = zip(
        hidden.flatten(0, -2).split(chunk_tokens),
        targets.flatten().split(chunk_tokens),
        strict=True,
    )
    totals = [checkpoint(total_of_chunk, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(totals).sum() / targets.numel()


def _check_shapes(hidden: Tensor, targets: Tensor) -> None:
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(
            f"linear_cross_entropy: targets of shape {tuple(targets.shape)} do not fit hidden "
            f"states of shape {tuple(hidden.shape)}"
        )


def _tokens_per_chunk(device: str, vocab_size: int) -> int:
    tokens = max(1, CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"]) // vocab_size)
    return tokens if device == "cpu" or tokens < _TILE else tokens - tokens % _TILE


def _cap_in_place(logits: Tensor, cap: float) -> Tensor:
    """Turns logits z into cap tanh(z / cap); returns the slopes, 1 - tanh(z / cap)^2."""
    logits.div_(cap).tanh_()
    slopes = 1 - logits.square()
    logits.mul_(cap)
    return slopes


class _ChunkedLoss(torch.autograd.Function):
    """Sum of the tokens' losses; the gradients of the sum are ready when it is."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        cap: float,
        chunk_tokens: int,
        wants_hidden: bool,
        wants_weight: bool,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), device=hidden.device, dtype=wide)
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight, dtype=wide) if wants_weight else None
        for start in range(0, hidden.shape[0], chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            logits = at_least_float32(hidden[chunk] @ weight.T)
            slopes = _cap_in_place(logits, cap) if cap else None
            target = targets[chunk].long().unsqueeze(1)
            logits -= logits.amax(-1, keepdim=True)
            # Not in place: in PyTorch 2.11 a compiled function that returns what it has changed in
            # place loses its gradient, without a word.
            total = total - logits.gather(1, target).sum()
            sums = logits.exp_().sum(-1, keepdim=True)
            total = total + sums.log().sum()
            if d_hidden is None and d_weight is None:
                continue
            # From here on they are d sum / d logits = softmax - onehot.
            logits /= sums
            if torch.compiler.is_compiling():  # by which all of this becomes one loop
                vocabulary = torch.arange(weight.shape[0], device=weight.device)
                logits -= (target == vocabulary).to(wide)
            else:
                logits.scatter_add_(1, target, torch.full_like(sums, -1.0))
            if slopes is not None:
                logits *= slopes
            d_logits = logits.to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(d_logits, weight, out=d_hidden[chunk])
            if d_weight is not None:
                d_weight += d_logits.T @ hidden[chunk]
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Scaled here and not before: in float16 the gradients of a mean over many tokens would
        # vanish, while ``upstream`` brings the loss scale that keeps them in range.
        d_hidden, d_weight = ctx.saved_tensors
        if d_hidden is not None:
            d_hidden = (at_least_float32(d_hidden) * upstream).to(d_hidden.dtype)
        if d_weight is not None:
            d_weight = (d_weight * upstream).to(ctx.weight_dtype)
        return d_hidden, d_weight, None, None, None, None, None
