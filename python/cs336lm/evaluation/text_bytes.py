"""How many bytes of text tokens stand for: a special token has none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cs336lm.data import TokenDataset
from cs336lm.text.tokenizer import Tokenizer


def token_lengths(tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """The bytes of text of each id: (vocab_size,); 0 for special tokens and ids without a token."""
    lengths = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for token_id, token in tokenizer.vocab.items():
        lengths[token_id] = len(token)
    for special in tokenizer.special_tokens:
        lengths[tokenizer.token_to_id(special)] = 0
    return lengths


def text_bytes(dataset: TokenDataset, tokenizer: Tokenizer | None, *, first: int) -> int | None:
    """The bytes of text of all tokens from ``first`` on; None if nothing says how many.

    Without the tokenizer it is what the sidecar says. There every token that was in the text has
    bytes, special ones too (a literal ``<|endoftext|>`` has 13); only those that were appended do
    not count. How many bytes the tokens before ``first`` have is not known then: they count as
    average ones.
    """
    if tokenizer is None:
        size = (dataset.sidecar or {}).get("bytes")
        return round(size * (len(dataset) - first) / len(dataset)) if size else None
    lengths = token_lengths(tokenizer)
    total = 0
    for start in range(first, len(dataset), 1 << 22):
        total += int(lengths[dataset[start : start + (1 << 22)]].sum())
    return total
