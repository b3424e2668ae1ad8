"""How well a model predicts documents, each from its beginning.

In windows side by side most documents are cut: where a window begins in the middle of one, the
model lacks what it is about, and pays for that again. Here each document is read by itself, with
the end-of-text token before it as its whole past, as in training on ``data.sampling =
"documents"``; the first one, before which there is none, is given it. All of its tokens are
predicted, the first and the end-of-text token after the last too: so the sum of a document's losses
is ``-log p(document)``, and its mean over many is comparable with the entropy of what tells them.
Documents longer than the context are read by sliding windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cs336lm.data import TokenDataset
from cs336lm.data.documents import document_token as find_document_token
from cs336lm.data.documents import ends_of_documents
from cs336lm.evaluation.by_position import PositionLosses
from cs336lm.evaluation.floor import Floor, StoryReader, compare
from cs336lm.evaluation.text_bytes import text_bytes
from cs336lm.evaluation.token_losses import token_losses
from cs336lm.evaluation.windows import Window, check_stride, in_groups, sliding_windows

if TYPE_CHECKING:
    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer

_GROUP = 4_096  # documents whose sums are in memory


class DocumentLoss(NamedTuple):
    """What a document costs."""

    document: int
    """Its number, from 0."""
    start: int
    """Where its first token stands in the file."""
    tokens: int
    """How many it has, the end-of-text token included."""
    nats: float
    """The sum of its tokens' losses: ``-log p`` of the document."""


@dataclass(frozen=True)
class DocumentEvaluation:
    """The figures of one file, read document by document."""

    loss: float
    """Mean cross-entropy in nats per token, the end-of-text tokens included."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float | None
    """All bits, those of end-of-text tokens too, per byte of text; None without known bytes."""
    tokens: int
    """Tokens predicted: all of them."""
    bytes: int | None
    """Bytes of text they stand for: special tokens have none."""
    documents: int
    """Documents that end with an end-of-text token."""
    nats_per_document: float
    """The mean of their sums."""
    tokens_per_document: float
    """How many tokens they have on average."""
    longer_than_context: int
    """How many documents were read by more than one window."""
    unfinished_tokens: int
    """Tokens after the last end-of-text token: they count as tokens, but are no document."""
    stride: int
    """How far the windows of long documents are apart."""
    floor: Floor | None
    """What no model can be below, and how far above it this one is; None if that is not known."""
    by_position: PositionLosses | None = None
    """The losses by how many tokens came before, if that was asked for."""


@torch.no_grad()
def evaluate_documents(
    model: TransformerLM,
    dataset: TokenDataset,
    *,
    tokenizer: Tokenizer | None = None,
    document_token: int | None = None,
    stride: int | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    floor: float | None = None,
    by_position: bool = False,
    on_document: Callable[[DocumentLoss], None] | None = None,
) -> DocumentEvaluation:
    """Evaluates ``model``, on the device it is on, on each document of ``dataset`` by itself.

    Args:
        model: what to evaluate.
        dataset: token file.
        tokenizer: made the file; says what ends a document and how many bytes tokens stand for.
        document_token: the id that ends a document, if not the tokenizer's ``<|endoftext|>``.
        stride: of the windows over documents longer than the context; half of that by default.
        dtype: of the matrix products.
        batch_size: windows of the context length read at once; it changes no figure.
        floor: the entropy of a document in nats, if known. That of ``stories`` is known: a file
            whose documents are all such stories is compared with it without being told.
        by_position: also measure the loss by position.
        on_document: told what each document costs, in their order.

    Raises ``UsageError`` if nothing says what ends a document or the stride is impossible, and
    ``ValueError`` if the file holds no end of a document, an id that the model does not know, or
    was made with another tokenizer.
    """
    context, vocab_size = model.config.context_length, model.config.vocab_size
    assert vocab_size is not None
    stride = check_stride(stride, context, default=max(1, context // 2))
    token = find_document_token(document_token, tokenizer, "--document-token")
    if token >= vocab_size:
        raise ValueError(
            f"the token {token}, which is to end a document, is outside the model's vocabulary of "
            f"{vocab_size}"
        )
    dataset.check_contents()
    dataset.check_ids(vocab_size)
    if tokenizer is not None:
        dataset.check_tokenizer(tokenizer.fingerprint, "the model's")
    model.eval()
    positions = PositionLosses.empty(context) if by_position else None
    reader = StoryReader(tokenizer) if tokenizer is not None and floor is None else None
    tally = _Tally(context)
    for group in in_groups(_documents(dataset, token), _GROUP):
        sums = np.zeros(len(group))
        windows = chain.from_iterable(
            sliding_windows(document.before, document.tokens, context, stride, row)
            for row, document in enumerate(group)
        )
        read = _reader(dataset, token)
        for part in token_losses(model, windows, read, dtype=dtype, batch_size=batch_size):
            sums += np.bincount(part.rows, part.nats, minlength=len(group))
            if positions is not None:
                positions.add(part)
        for document, nats in zip(group, sums.tolist(), strict=True):
            if reader is not None and document.is_finished:
                reader.read(dataset[document.start : document.start + document.tokens - 1])
            tally.add(document, nats)
            if on_document is not None:
                on_document(DocumentLoss(document.number, document.start, document.tokens, nats))
    if not tally.documents:
        raise ValueError(
            f"{dataset.path} does not hold the token {token}, which is to end a document: name "
            "another by --document-token, or evaluate without --by-document"
        )
    size = text_bytes(dataset, tokenizer, first=0)
    loss = tally.all_nats / tally.all_tokens
    return DocumentEvaluation(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=tally.all_nats / math.log(2) / size if size else None,
        tokens=tally.all_tokens,
        bytes=size,
        documents=tally.documents,
        nats_per_document=tally.nats / tally.documents,
        tokens_per_document=tally.tokens / tally.documents,
        longer_than_context=tally.longer,
        unfinished_tokens=tally.all_tokens - tally.tokens,
        stride=stride,
        floor=compare(tally.nats, tally.documents, tally.tokens, given=floor, reader=reader),
        by_position=positions,
    )


class _Document(NamedTuple):
    number: int
    before: int  # where the end-of-text token before it stands; -1 before the first
    tokens: int
    is_finished: bool

    @property
    def start(self) -> int:
        return self.before + 1


def _documents(dataset: TokenDataset, token: int) -> Iterator[_Document]:
    """All documents; a token at the very beginning of the file comes before the first."""
    number, before = 0, -1
    for ends, _ in ends_of_documents(dataset, token):
        for end in ends.tolist():
            if end > 0:
                yield _Document(number, before, end - before, is_finished=True)
                number += 1
            before = end
    if rest := len(dataset) - 1 - before:
        yield _Document(number, before, rest, is_finished=False)


def _reader(dataset: TokenDataset, token: int) -> Callable[[Window], npt.NDArray[Any]]:
    def read(window: Window) -> npt.NDArray[Any]:
        if window.start >= 0:
            return dataset[window.start : window.start + window.length + 1]
        return np.concatenate([[token], dataset[: window.length]])

    return read


class _Tally:
    """Sums over the documents so far."""

    def __init__(self, context_length: int) -> None:
        self._context = context_length
        self.documents = self.tokens = self.all_tokens = self.longer = 0
        self.nats = self.all_nats = 0.0

    def add(self, document: _Document, nats: float) -> None:
        self.all_tokens += document.tokens
        self.all_nats += nats
        if document.is_finished:
            self.longer += document.tokens > self._context
            self.documents += 1
            self.tokens += document.tokens
            self.nats += nats
