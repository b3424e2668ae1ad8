"""What a forward pass looks like from inside, measured by hooks that are there for that pass alone.

The hooks only look: what the model computes is what it computes without them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from cs336lm.model.attention import MultiHeadSelfAttention
from cs336lm.model.blocks import TransformerBlock
from cs336lm.model.transformer import TransformerLM

MOST_POSITIONS = 64
"""Of a sequence, for what would take a matrix as large as the square of its length, or logits."""

DEAD_BELOW = 0.01
"""Of the RMS of its layer's activations: a unit that stays within this contributes nothing."""


@dataclass
class Inside:
    """What was seen: a scalar tensor for each layer, in the order of the layers."""

    residual_square: list[Tensor] = field(default_factory=list)
    """Mean square of the stream that a block leaves."""
    attention_square: list[Tensor] = field(default_factory=list)
    """Mean square of what attention adds to the stream (before post-norm, where there is one)."""
    ffn_square: list[Tensor] = field(default_factory=list)
    """Mean square of what the feed-forward network adds."""
    attention_entropy: list[Tensor] = field(default_factory=list)
    """Mean over heads and positions of the entropy of the attention weights, in nats."""
    active_units: list[Tensor] = field(default_factory=list)
    """(d_ff,): 1 for each unit of the feed-forward network that was active anywhere, else 0."""
    logit_max: list[Tensor] = field(default_factory=list)
    """Mean over positions of the largest logit; one value, after a soft-cap."""
    logsumexp: list[Tensor] = field(default_factory=list)
    """Mean over positions of log sum exp of the logits, the z of the z-loss; one value."""


@torch.no_grad()
def look_inside(
    model: TransformerLM, x: Int[Tensor, "batch seq"], y: Int[Tensor, "batch seq"]
) -> Inside:
    """One forward pass of ``model`` on ``x`` -> ``y``, looked at.

    Entropies and logits are taken at :data:`MOST_POSITIONS` evenly spread positions of each
    sequence. A unit counts as active where its activation is beyond :data:`DEAD_BELOW` of the
    layer's RMS: exactly zero it is with a ReLU alone.
    """
    inside = Inside()

    def at_block(module: Module, inputs: Any, output: Tensor) -> None:
        inside.residual_square.append(_mean_square(output))

    def at_attention(module: MultiHeadSelfAttention, inputs: Any, output: Tensor) -> None:
        inside.attention_square.append(_mean_square(output))
        q, k, _ = module.project(inputs[0])
        inside.attention_entropy.append(attention_entropy(q, k))

    def at_ffn(module: Module, inputs: Any, output: Tensor) -> None:
        inside.ffn_square.append(_mean_square(output))

    def before_w2(module: Module, inputs: Any) -> None:
        inside.active_units.append(_active(inputs[0]))

    def at_end(module: Module, inputs: Any, output: Tensor) -> None:
        # Here rather than afterwards: a head that is spread over devices is whole now.
        places = spread_positions(output.shape[-2], output.device)
        logits = model.logits(output[..., places, :]).float()
        inside.logit_max.append(logits.amax(-1).mean())
        inside.logsumexp.append(logits.logsumexp(-1).mean())

    with ExitStack() as hooks:

        def attach(register: Callable[..., Any], hook: Callable[..., None]) -> None:
            hooks.callback(register(hook).remove)

        for block in cast(Iterable[TransformerBlock], model.layers):
            attach(block.register_forward_hook, at_block)
            attach(block.attn.register_forward_hook, at_attention)
            attach(block.ffn.register_forward_hook, at_ffn)
            attach(block.ffn.w2.register_forward_pre_hook, before_w2)
        attach(model.ln_final.register_forward_hook, at_end)
        model(x, y)
    return inside


def attention_entropy(
    q: Float[Tensor, "... heads seq d"], k: Float[Tensor, "... kv_heads seq d"]
) -> Float[Tensor, ""]:
    """The mean entropy, in nats, of the causal attention weights of queries and keys.

    Over all heads and :data:`MOST_POSITIONS` evenly spread queries: a matrix of scores as large as
    the square of the sequence never exists. A query that looks at one key has 0, one that looks at
    n alike has log n. In float32.
    """
    length, size = q.shape[-2:]
    places = spread_positions(length, q.device)
    shared = q.shape[-3] // k.shape[-3]
    queries = q[..., places, :].float().unflatten(-3, (k.shape[-3], shared))
    with torch.autocast(q.device.type, enabled=False):
        scores = queries @ k.float().unsqueeze(-3).mT / math.sqrt(size)
    later = torch.arange(length, device=q.device) > places.unsqueeze(-1)
    logs = scores.masked_fill(later, -math.inf).log_softmax(-1)
    return -(logs.exp() * logs.masked_fill(later, 0.0)).sum(-1).mean()


def spread_positions(length: int, device: torch.device) -> Int[Tensor, " positions"]:
    """All positions of a sequence, or :data:`MOST_POSITIONS` evenly spread ones."""
    count = min(length, MOST_POSITIONS)
    return (2 * torch.arange(count, device=device) + 1) * length // (2 * count)


def _mean_square(x: Tensor) -> Tensor:
    return x.float().square().mean()


def _active(hidden: Float[Tensor, "... d_ff"]) -> Float[Tensor, " d_ff"]:
    """1 for each unit that was beyond ``DEAD_BELOW`` of the RMS at any token."""
    peaks = hidden.abs().flatten(0, -2).amax(0).float()
    return (peaks > DEAD_BELOW * _mean_square(hidden).sqrt()).float()
