"""Known models by name, as tables of a configuration. It imports no PyTorch.

GPT-2's shapes (Radford et al. 2019) are those of the CS336 handouts, which give them this package's
blocks: SwiGLU, RMSNorm, RoPE, no biases, a head of its own. The handout of 2025 keeps GPT-2's
d_ff = 4 d_model, that of 2026 takes 8/3 d_model to a multiple of 64.

depth-N says more than a shape: everything follows from the number of blocks, see
``depth_tables``.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig

Tables = dict[str, dict[str, Any]]
"""{section: {field: value}}, as a TOML file holds it."""


def _gpt2(d_model: int, num_layers: int, num_heads: int, d_ff: int | None) -> Tables:
    shape: dict[str, Any] = {
        "vocab_size": 50_257,
        "context_length": 1024,
        "d_model": d_model,
        "num_layers": num_layers,
        "num_heads": num_heads,
    }
    return {"model": shape if d_ff is None else {**shape, "d_ff": d_ff}}


PRESETS: dict[str, Tables] = {
    "tinystories": {
        "model": {
            "vocab_size": 10_000,
            "context_length": 256,
            "d_model": 512,
            "num_layers": 4,
            "num_heads": 16,
            "d_ff": 1344,
            "rope_theta": 10_000.0,
        }
    },
    "gpt2-small": _gpt2(768, 12, 12, 3072),
    "gpt2-medium": _gpt2(1024, 24, 16, 4096),
    "gpt2-large": _gpt2(1280, 36, 20, 5120),
    "gpt2-xl": _gpt2(1600, 48, 25, 6400),
    # Without a d_ff: it is the default, and follows where another width or network is asked for.
    "gpt2-small-2026": _gpt2(768, 12, 12, None),
    "gpt2-medium-2026": _gpt2(1024, 24, 16, None),
    "gpt2-large-2026": _gpt2(1280, 36, 20, None),
    "gpt2-xl-2026": _gpt2(1600, 48, 25, None),
}
"""Each says only what makes it that shape; everything else is as by default."""


DEPTHS = range(1, 101)
"""Numbers of blocks that ``depth-N`` is for."""

_DEPTH_VOCAB, _DEPTH_CONTEXT, _HEAD_SIZE = 32_768, 2048, 128
_REFERENCE_DEPTH, _REFERENCE_BATCH = 12, 2**19
_TOKENS_PER_PARAMETER = 12


def depth_tables(depth: int) -> Tables:
    """A model of ``depth`` blocks and how to train it, as nanochat's one dial has it.

    nanochat (Karpathy, ``scripts/base_train.py``, early 2026) found good values for 12 blocks and
    takes them to others by published scaling:

    - *Shape.* 64 blocks wide, to a multiple of 128; heads of 128; ReLU^2 of 4 widths, QK-norm, zero
      initialization, residual scalars, value embeddings, capped logits; 2,048 tokens of context.
    - *Tokens:* D = 12 for every parameter of the blocks' matrices and the head, which is about
      compute-optimal for them (Hoffmann et al. 2022 have 20, all parameters counted).
    - *Batch:* B = 2^19 tokens for 12 blocks, and in proportion to D^0.383 (Bergsma et al. 2025,
      "Power Lines", eq. 8), to the nearest power of 2.
    - *Learning rates:* times sqrt(B / 2^19) (Malladi et al. 2022, for Adam; for Muon an assumption)
      and AdamW's also times sqrt(768 / width).
    - *Weight decay,* of Muon's matrices alone: 0.28 sqrt(B / 2^19) D_12 / D, which keeps the
      epochs over which weights are averaged in proportion (Wang and Aitchison 2024).

    Two things are smaller here than there: an embedding learns at 0.03, not 0.3, and scalars at
    0.005, for here no norm stands behind the embedding. The head is counted for 32,768 entries; for
    a much smaller vocabulary say ``train.max_tokens``. A batch that does not fit into memory needs
    ``train.grad_accumulation``.

    Raises ``UsageError`` for a number of blocks that is not in ``DEPTHS``.
    """
    if depth not in DEPTHS:
        raise UsageError(
            f"depth-{depth} is impossible: depth-N is for N from {DEPTHS[0]} to {DEPTHS[-1]}"
        )
    tokens, reference = _tokens(depth), _tokens(_REFERENCE_DEPTH)
    batch = 2 ** round(math.log2(_REFERENCE_BATCH * (tokens / reference) ** 0.383))
    by_batch = math.sqrt(batch / _REFERENCE_BATCH)
    by_width = math.sqrt(768 / _width(depth))
    head_lr = 0.008 * by_batch * by_width
    return {
        "data": {"batch_size": max(1, batch // _DEPTH_CONTEXT)},
        "model": {
            "vocab_size": _DEPTH_VOCAB,
            "context_length": _DEPTH_CONTEXT,
            "d_model": _width(depth),
            "num_layers": depth,
            "num_heads": _width(depth) // _HEAD_SIZE,
            "ffn": "relu2",
            "qk_norm": True,
            "zero_init": True,
            "residual_scalars": True,
            "value_embeddings": True,
            "logit_softcap": 15.0,
        },
        "optim": {
            "name": "muon",
            "schedule": "wsd",
            "decay_share": 0.65,
            "lr": head_lr,
            "min_lr": 0.05 * head_lr,
            "matrix_lr": 0.02 * by_batch,
            "embedding_lr": 0.03 * by_batch * by_width,
            "scalar_lr": 0.005 * by_batch,
            "weight_decay": 0.0,
            "matrix_decay": 0.28 * by_batch * reference / tokens,
            "embedding_betas": [0.8, 0.995],
            "head_betas": [0.8, 0.96],
            "momentum_warmup_steps": 300,
        },
        "train": {"max_tokens": tokens},
    }


def _width(depth: int) -> int:
    return math.ceil(64 * depth / _HEAD_SIZE) * _HEAD_SIZE


def _tokens(depth: int) -> int:
    """12 d^2 parameters a block, and the head."""
    width = _width(depth)
    return _TOKENS_PER_PARAMETER * (12 * depth * width**2 + _DEPTH_VOCAB * width)


def preset_names() -> list[str]:
    """How presets are called, for people."""
    return [*PRESETS, "depth-N"]


def preset_tables(name: str) -> Tables:
    """What the preset ``name`` says, a copy to change.

    Raises ``UsageError``, naming those there are, if there is none of this name.
    """
    if (depth := re.fullmatch(r"depth-(\d{1,9})", name)) is not None:
        return depth_tables(int(depth[1]))
    if name not in PRESETS:
        if name.startswith("depth-"):
            hint = f"depth-N is for N from {DEPTHS[0]} to {DEPTHS[-1]}"
        else:
            close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
            hint = (
                f"did you mean {close[0]}?" if close else f"there are {', '.join(preset_names())}"
            )
        raise UsageError(f"there is no preset {name!r}; {hint}")
    return {section: dict(table) for section, table in PRESETS[name].items()}


def preset_model(name: str) -> ModelConfig:
    """The model of a preset; errors as for :func:`preset_tables`."""
    return ModelConfig(**preset_tables(name)["model"])
