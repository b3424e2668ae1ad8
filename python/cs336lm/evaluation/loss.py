"""How well a model predicts a token file: nats per token, perplexity, bits per byte.

Every token but the first is predicted once, in windows of ``context_length`` side by side, the last
one as long as what is left: nothing is sampled, so the figures are those of the file. Bits per byte
compare models whatever their tokenizers: all nats, over the bytes of text alone. A special token
such as ``<|endoftext|>`` is predicted, and its nats count, but it is no text and has no bytes; so
the figure is the same whether it was appended to each document or stood between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cs336lm.data import TokenDataset, gather_windows

if TYPE_CHECKING:
    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer

_TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536}
"""What keeps a device busy; on a CPU more only overflows the caches."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one file."""

    loss: float
    """Mean cross-entropy in nats per predicted token."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float | None
    """All bits, those of special tokens too, per byte of text; None where it has no known bytes."""
    tokens: int
    """Tokens predicted: all but the first."""
    bytes: int | None
    """Bytes of text they stand for: special tokens have none."""


@torch.no_grad()
def evaluate(
    model: TransformerLM,
    dataset: TokenDataset,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
) -> Evaluation:
    """Evaluates ``model``, on the device it is on, on the whole of ``dataset``.

    ``batch_size`` windows are read at once, by default as many as keep the device busy; it changes
    memory and speed, not the figures.

    Raises ``ValueError`` if the file holds fewer than two tokens, an id that the model does not
    know, or was made with another tokenizer than ``tokenizer``.
    """
    vocab_size = model.config.vocab_size
    assert vocab_size is not None
    dataset.check_length(1)
    dataset.check_ids(vocab_size)
    if tokenizer is not None:
        dataset.check_tokenizer(tokenizer.fingerprint, "the model's")
    model.eval()
    device = next(model.parameters()).device
    nats = 0.0
    context = model.config.context_length
    rows = batch_size or max(1, _TOKENS_PER_BATCH.get(device.type, 16_384) // context)
    for starts, length in _windows(len(dataset), context, rows):
        x, y = gather_windows(dataset, starts, length, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            nats += model(x, y).item() * y.numel()
    tokens = len(dataset) - 1
    loss = nats / tokens
    size = _bytes(dataset, tokenizer)
    return Evaluation(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=nats / math.log(2) / size if size else None,
        tokens=tokens,
        bytes=size,
    )


def _windows(tokens: int, context_length: int, rows: int) -> list[tuple[range, int]]:
    """(starts, length) of each batch of windows, which together predict tokens 1, 2, ... once."""
    whole, rest = divmod(tokens - 1, context_length)
    starts = range(0, whole * context_length, context_length)
    batches = [(starts[at : at + rows], context_length) for at in range(0, whole, rows)]
    if rest:
        start = whole * context_length
        batches.append((range(start, start + 1), rest))
    return batches


def _bytes(dataset: TokenDataset, tokenizer: Tokenizer | None) -> int | None:
    """How many bytes of text the predicted tokens stand for."""
    if tokenizer is None:  # the sidecar does not count what was appended, either
        size = (dataset.sidecar or {}).get("bytes")
        # Without the tokenizer the first token's length is unknown: it counts as an average one.
        return round(size * (len(dataset) - 1) / len(dataset)) if size else None
    lengths = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for token_id, token in tokenizer.vocab.items():
        lengths[token_id] = len(token)
    for special in tokenizer.special_tokens:
        lengths[tokenizer.token_to_id(special)] = 0
    size = 0
    for start in range(1, len(dataset), 1 << 22):
        ids = dataset[start : start + (1 << 22)]
        size += int(lengths[ids].sum())
    return size
