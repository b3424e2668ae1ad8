"""What training holds in memory, in float32: by the handout's list, and as this package keeps it.

Besides the weights there are their gradients and the two running means of AdamW, and the
activations that the backward pass needs. The CS336 handout lists those (assignment 1, resource
accounting of AdamW): every tensor that the formulas name. A program keeps fewer, and others:

- attention is computed in tiles (Dao et al. 2022): no scores, no weights of seq x seq, but one
  number a row, from which they are computed again;
- the loss is computed in chunks, with its gradient at once: no logits stay, but the gradient of the
  head's matrix does;
- projections of one input are one product: their matrices side by side are copies that stay.

Counts are of numbers; one takes ``BYTES_PER_NUMBER``. Nothing here needs PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from cs336lm.model.accounting import FEED_FORWARD_MATRICES, total_parameters
from cs336lm.model.config import ModelConfig

BYTES_PER_NUMBER = 4
ADAMW_STATES = 2
"""Running means of the gradient and of its square."""
ADAMW_FLOPS_PER_PARAMETER = 14
"""By Algorithm 1 of the handout: 3 for m, 4 for v, 5 for the step (square root, sum, quotient,
product, difference), 2 for the decay. The corrected learning rate is one number for all."""


@dataclass(frozen=True)
class Kept:
    """Numbers that stay from the forward pass to the backward pass."""

    component: str
    what: str
    per_sequence: int
    """Numbers for each sequence of a batch."""
    fixed: int = 0
    """Numbers whatever the batch."""

    def numbers(self, sequences: int) -> int:
        """For a batch."""
        return self.per_sequence * sequences + self.fixed


def handout_activations(config: ModelConfig, tokens: int | None = None) -> list[Kept]:
    """The handout's list, for sequences of ``tokens`` (by default the context length)."""
    seq = config.context_length if tokens is None else tokens
    d, d_kv, ff, layers = config.d_model, config.d_kv, config.ffn_width, config.num_layers
    assert config.vocab_size is not None
    gated = FEED_FORWARD_MATRICES[config.ffn] == 3
    scores = config.num_heads * seq * seq
    listed = [
        ("attention", "Q, K, V", layers * seq * (d + 2 * d_kv)),
        ("attention", "Q K^T", layers * scores),
        ("attention", "softmax", layers * scores),
        ("attention", "weighted sum of values", layers * seq * d),
        ("attention", "output projection", layers * seq * d),
        ("feed_forward", "W1", layers * seq * ff),
        ("feed_forward", "activation", layers * seq * ff),
        ("feed_forward", "W3", layers * seq * ff * gated),
        ("feed_forward", "gated product", layers * seq * ff * gated),
        ("feed_forward", "W2", layers * seq * d),
        ("norms", "of blocks", layers * seq * d * (0 if config.norm == "none" else 2)),
        ("norms", "the last", seq * d * (config.norm == "pre")),
        ("lm_head", "logits", seq * config.vocab_size),
        ("lm_head", "cross-entropy", seq),
    ]
    return [Kept(*row) for row in listed if row[2]]


def kept_activations(config: ModelConfig, tokens: int | None = None) -> list[Kept]:
    """What this package keeps on a CPU and on a GPU, not compiled, without recomputation.

    Exact for every choice but value embeddings, whose share is left out.
    """
    seq = config.context_length if tokens is None else tokens
    d, d_kv, ff, layers = config.d_model, config.d_kv, config.ffn_width, config.num_layers
    assert config.vocab_size is not None
    has_norm, gated = config.norm != "none", FEED_FORWARD_MATRICES[config.ffn] == 3
    rotates, turns = config.positions == "rope", config.positions == "rope" or config.qk_norm
    return [
        kept
        for kept in (
            Kept(
                "attention",
                "the input, and the three matrices side by side",
                layers * seq * d,
                layers * d * (d + 2 * d_kv),
            ),
            Kept("attention", "q, k, v side by side", layers * seq * (d + 2 * d_kv)),
            Kept("attention", "q, k as rotated or normalised", layers * seq * (d + d_kv) * turns),
            Kept("attention", "the table of angles", 0, layers * seq * config.d_head * rotates),
            Kept("attention", "a row's log of its sum", layers * seq * config.num_heads),
            Kept("attention", "weighted sum of values", layers * seq * d),
            Kept(
                "feed_forward",
                "the input, and W1 and W3 side by side" if gated else "the input",
                layers * seq * d,
                layers * 2 * d * ff * gated,
            ),
            Kept("feed_forward", "before the activation", layers * seq * ff * (2 if gated else 1)),
            Kept("feed_forward", "the activation's parts", layers * seq * ff * _PARTS[config.ffn]),
            Kept("feed_forward", "the input of W2", layers * seq * ff),
            Kept("norms", "inputs", (layers * 2 * has_norm + (config.norm == "pre")) * seq * d),
            Kept("norms", "a row's scale", (layers * 2 * has_norm + (config.norm == "pre")) * seq),
            Kept(
                "norms",
                "scales of queries and keys",
                layers * seq * (config.num_heads + config.kv_heads) * config.qk_norm,
            ),
            Kept("residual_scalars", "inputs", layers * seq * d * config.residual_scalars),
            Kept(
                "lm_head",
                "gradients of its input and of its matrix",
                seq * d,
                d * config.vocab_size,
            ),
        )
        if kept.per_sequence or kept.fixed
    ]


_PARTS = {"swiglu": 0, "silu": 1, "relu2": 0}  # besides input and output


def numbers(kept: list[Kept], sequences: int) -> int:
    """The sum of all, for a batch."""
    return sum(part.numbers(sequences) for part in kept)


def training_bytes(config: ModelConfig, kept: list[Kept], sequences: int) -> dict[str, int]:
    """Bytes of a training step with AdamW in float32, by what they are for."""
    size = BYTES_PER_NUMBER * total_parameters(config)
    parts = {
        "parameters": size,
        "gradients": size,
        "optimizer": ADAMW_STATES * size,
        "activations": BYTES_PER_NUMBER * numbers(kept, sequences),
    }
    return parts | {"total": sum(parts.values())}


def largest_batch(config: ModelConfig, kept: list[Kept], memory: int) -> int:
    """The most sequences whose step fits in ``memory`` bytes; 0 if not even one does."""
    free = memory - training_bytes(config, kept, 0)["total"]
    each = BYTES_PER_NUMBER * sum(part.per_sequence for part in kept)
    return max(0, free // each)
