"""The longest tokens of a vocabulary: what a corpus repeats most stands out in them."""

from __future__ import annotations

from cs336lm.text.tokenizer import Tokenizer


def longest_tokens(tokenizer: Tokenizer, count: int) -> list[tuple[int, bytes]]:
    """(id, bytes) of the longest tokens, of equals the lower id first; none that is special."""
    vocab = tokenizer.vocab
    special = {tokenizer.token_to_id(token) for token in tokenizer.special_tokens}
    ordinary = vocab.keys() - special
    longest = sorted(ordinary, key=lambda id: (-len(vocab[id]), id))[:count]
    return [(id, vocab[id]) for id in longest]
