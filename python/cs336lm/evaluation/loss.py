"""How well a model predicts a token file: nats per token, perplexity, bits per byte.

Every token but the first is predicted once, in windows of ``context_length`` side by side, the last
one as long as what is left: nothing is sampled, so the figures are those of the file. With a
``stride`` the windows overlap, and each token has more context (see ``windows``). Bits per byte
compare models whatever their tokenizers: all nats, over the bytes of text alone. A special token
such as ``<|endoftext|>`` is predicted, and its nats count, but it is no text and has no bytes; so
the figure is the same whether it was appended to each document or stood between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from cs336lm.data import TokenDataset, gather_windows
from cs336lm.evaluation.by_position import PositionLosses
from cs336lm.evaluation.text_bytes import text_bytes
from cs336lm.evaluation.token_losses import default_rows, token_losses
from cs336lm.evaluation.windows import Window, check_stride, sliding_windows

if TYPE_CHECKING:
    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer


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
    stride: int = 0
    """How far the windows are apart."""
    by_position: PositionLosses | None = None
    """The losses by how many tokens came before, if that was asked for."""


@torch.no_grad()
def evaluate(
    model: TransformerLM,
    dataset: TokenDataset,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    stride: int | None = None,
    by_position: bool = False,
) -> Evaluation:
    """Evaluates ``model``, on the device it is on, on the whole of ``dataset``.

    ``batch_size`` windows are read at once, by default as many as keep the device busy; it changes
    memory and speed, not the figures. ``stride`` is how far the windows are apart, by default the
    context length; with a smaller one they overlap, only what is new in each counts, and the work
    grows by as much. ``by_position`` also measures the loss by position.

    Raises ``UsageError`` if the stride is impossible, and ``ValueError`` if the file holds fewer
    than two tokens, an id that the model does not know, or was made with another tokenizer than
    ``tokenizer``.
    """
    vocab_size = model.config.vocab_size
    assert vocab_size is not None
    dataset.check_length(1)
    dataset.check_contents()
    dataset.check_ids(vocab_size)
    if tokenizer is not None:
        dataset.check_tokenizer(tokenizer.fingerprint, "the model's")
    context = model.config.context_length
    stride = check_stride(stride, context, default=context)
    model.eval()
    positions = PositionLosses.empty(context) if by_position else None
    if stride == context and positions is None:
        nats = _nats_side_by_side(model, dataset, dtype, batch_size)
    else:
        nats = _nats_by_token(model, dataset, dtype, batch_size, stride, positions)
    tokens = len(dataset) - 1
    loss = nats / tokens
    size = text_bytes(dataset, tokenizer, first=1)
    return Evaluation(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=nats / math.log(2) / size if size else None,
        tokens=tokens,
        bytes=size,
        stride=stride,
        by_position=positions,
    )


def _nats_side_by_side(
    model: TransformerLM, dataset: TokenDataset, dtype: torch.dtype, batch_size: int | None
) -> float:
    """The sum of all losses, from the means of whole batches."""
    device, context = next(model.parameters()).device, model.config.context_length
    nats = 0.0
    for starts, length in _windows(
        len(dataset), context, batch_size or default_rows(device, context)
    ):
        x, y = gather_windows(dataset, starts, length, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            nats += model(x, y).item() * y.numel()
    return nats


def _windows(tokens: int, context_length: int, rows: int) -> list[tuple[range, int]]:
    """(starts, length) of each batch of windows, which together predict tokens 1, 2, ... once."""
    whole, rest = divmod(tokens - 1, context_length)
    starts = range(0, whole * context_length, context_length)
    batches = [(starts[at : at + rows], context_length) for at in range(0, whole, rows)]
    if rest:
        start = whole * context_length
        batches.append((range(start, start + 1), rest))
    return batches


def _nats_by_token(
    model: TransformerLM,
    dataset: TokenDataset,
    dtype: torch.dtype,
    batch_size: int | None,
    stride: int,
    positions: PositionLosses | None,
) -> float:
    """The sum of all losses, from those of single tokens."""

    def read(window: Window) -> npt.NDArray[Any]:
        return dataset[window.start : window.start + window.length + 1]

    windows = sliding_windows(0, len(dataset) - 1, model.config.context_length, stride)
    nats = 0.0
    for part in token_losses(model, windows, read, dtype=dtype, batch_size=batch_size):
        nats += float(part.nats.sum())
        if positions is not None:
            positions.add(part)
    return nats
