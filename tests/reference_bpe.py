"""The obvious BPE: slow, short, and what the fast one is compared with.

Training is the loop of Sennrich et al. (2016) on bytes: count adjacent pairs, merge the most
frequent, count again. Bytes that are no UTF-8 become lone surrogates, one each, which the
patterns see as characters that are no letter, number or space.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

import regex

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "gpt4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    + _CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    + _CONTRACTION
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL,
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL,
    "qwen3.5": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "nanochat": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "starcoder": r"'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?![^\s\p{N}])|\s+",
}
Pair = tuple[bytes, bytes]


def segments(data: bytes, special_tokens: Iterable[str]) -> Iterator[tuple[bool, str]]:
    """(is it special?, text): the text between special tokens, and they; the longest one wins."""
    text = data.decode("utf-8", "surrogateescape")
    longest_first = sorted(special_tokens, key=len, reverse=True)
    if not longest_first:
        yield False, text
        return
    parts = regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text)
    for index, part in enumerate(parts):
        if part:
            yield index % 2 == 1, part


def pretokenize(text: str, pattern: str = "gpt2") -> Iterator[bytes]:
    """The matches of the pattern, and between them what it leaves out, as bytes."""
    end = 0
    for match in regex.finditer(PATTERNS.get(pattern, pattern), text):
        for piece in (text[end : match.start()], match[0]):
            if piece:
                yield piece.encode("utf-8", "surrogateescape")
        end = match.end()
    if text[end:]:
        yield text[end:].encode("utf-8", "surrogateescape")


def merge_pair(symbols: list[bytes], pair: Pair) -> list[bytes]:
    """Joins every occurrence of the pair, leftmost first (``aaa`` becomes ``aa``, ``a``)."""
    merged: list[bytes] = []
    for symbol in symbols:
        # What a merge has made is longer than the pair's left half: it is not merged again.
        if merged and (merged[-1], symbol) == pair:
            merged[-1] = pair[0] + pair[1]
        else:
            merged.append(symbol)
    return merged


def train(
    documents: bytes | Iterable[bytes],
    vocab_size: int,
    special_tokens: Iterable[str] = (),
    pattern: str = "gpt2",
) -> tuple[dict[int, bytes], list[Pair]]:
    """(id -> bytes, merges): the merges that the text has, at most what the size allows."""
    documents = [documents] if isinstance(documents, bytes) else documents
    special_tokens = list(special_tokens)
    words: Counter[bytes] = Counter()
    for document in documents:
        for is_special, text in segments(document, special_tokens):
            if not is_special:
                words.update(pretokenize(text, pattern))
    symbols = {word: [bytes([byte]) for byte in word] for word in words}
    merges: list[Pair] = []
    while len(merges) < vocab_size - 256 - len(special_tokens):
        pairs: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in pairwise(symbols[word]):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        symbols = {word: merge_pair(parts, best) for word, parts in symbols.items()}
        merges.append(best)
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [left + right for left, right in merges]
    tokens += [token.encode() for token in special_tokens]
    return dict(enumerate(tokens)), merges


def encode(
    data: bytes,
    vocab: dict[int, bytes],
    merges: list[Pair],
    special_tokens: Iterable[str] = (),
    pattern: str = "gpt2",
) -> list[int]:
    """Applies to each pretoken the merges in the order in which they were made."""
    ids = {token: id for id, token in vocab.items()}
    rank = {pair: index for index, pair in enumerate(merges)}
    encoded: list[int] = []
    for is_special, text in segments(data, special_tokens):
        if is_special:
            encoded.append(ids[text.encode()])
            continue
        for pretoken in pretokenize(text, pattern):
            symbols = [bytes([byte]) for byte in pretoken]
            while known := [pair for pair in pairwise(symbols) if pair in rank]:
                symbols = merge_pair(symbols, min(known, key=rank.__getitem__))
            encoded += [ids[symbol] for symbol in symbols]
    return encoded
