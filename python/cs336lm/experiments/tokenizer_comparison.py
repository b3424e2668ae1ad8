"""Tokenizers side by side: bytes per token on given texts, speed, longest and shared tokens.

    tokenizers + files -> compare_tokenizers -> TokenizerComparison -> tables, JSON, a picture

The experiments of CS336 assignment 1, section 2.7: compression ratios on sampled documents, on text
of the tokenizer's own kind and of another, throughput, and how long the Pile would take.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.experiments.tables import Table, duration, number
from cs336lm.text.inputs import input_files
from cs336lm.text.longest import longest_tokens
from cs336lm.text.tokenizer import Tokenizer

PILE_BYTES = 825_000_000_000
"""The Pile (Gao et al., 2020) as the handout counts it, in bytes of text."""

_TIMED_SECONDS, _MOST_PASSES = 2.0, 5
_END_OF_TEXT = "<|endoftext|>"
_SHOWN_CHARACTERS = 40  # of a long token in a table


@dataclass(frozen=True)
class Text:
    """What is measured on: a whole file, or documents drawn from it."""

    path: str
    documents: list[bytes] | None = None
    """None stands for the whole file."""


@dataclass(frozen=True)
class Measured:
    """A tokenizer on a text."""

    path: str
    bytes: int
    tokens: int

    @property
    def bytes_per_token(self) -> float | None:
        """The compression ratio; None where there is no token."""
        return self.bytes / self.tokens if self.tokens else None


@dataclass(frozen=True)
class Throughput:
    """How fast a tokenizer encodes, in one process."""

    bytes_per_second: float
    bytes: int
    passes: int
    threads: int

    @property
    def pile_seconds(self) -> float:
        """How long 825 GB would take."""
        return PILE_BYTES / self.bytes_per_second


@dataclass(frozen=True)
class TokenizerFigures:
    """All about one of them."""

    name: str
    vocab_size: int
    texts: list[Measured]
    throughput: Throughput | None
    """None where there is no text at all."""
    longest: list[tuple[int, bytes]]
    """(id, token), the longest first; special tokens are left out."""
    vocabulary: frozenset[bytes]
    """The distinct tokens, special ones too."""


@dataclass(frozen=True)
class TokenizerComparison:
    """What :func:`compare_tokenizers` found."""

    tokenizers: list[TokenizerFigures]
    documents: int | None
    """How many documents were drawn from each file at most; None: the whole files were measured."""

    def shared(self) -> Iterator[tuple[TokenizerFigures, TokenizerFigures, int]]:
        """Each pair, and how many tokens are in both vocabularies."""
        for one, other in combinations(self.tokenizers, 2):
            yield one, other, len(one.vocabulary & other.vocabulary)

    def shared_by_all(self) -> int:
        """How many tokens are in every vocabulary."""
        return len(frozenset.intersection(*(one.vocabulary for one in self.tokenizers)))

    def how_measured(self) -> str:
        """What the figures of speed are, in words."""
        timed = [one.throughput for one in self.tokenizers if one.throughput]
        if not timed:
            return "no text, so no throughput"
        passes = sorted({throughput.passes for throughput in timed})
        times = " to ".join(str(count) for count in {passes[0]: 0, passes[-1]: 0})
        return (
            f"throughput: one process, {timed[0].threads} thread(s), median of {times} pass(es) "
            f"over the whole files ({timed[0].bytes / 1e6:,.1f} MB of text); reading and "
            "encoding, without writing ids"
        )

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data; bytes that are not UTF-8 are escaped with a backslash."""
        return {
            "documents": self.documents,
            "tokenizers": [_tokenizer_json(one) for one in self.tokenizers],
            "shared": [
                {
                    "tokenizers": [one.name, other.name],
                    "tokens": count,
                    "shares": [count / len(one.vocabulary), count / len(other.vocabulary)],
                }
                for one, other, count in self.shared()
            ],
            "shared_by_all": self.shared_by_all(),
        }

    def tables(self) -> list[tuple[str, Table]]:
        """(title, table): the figures, the shared tokens, the longest tokens."""
        return [
            ("bytes per token", self._figures()),
            ("tokens shared", self._shared()),
            ("longest tokens", self._longest()),
        ]

    def _figures(self) -> Table:
        texts = [text.path for text in self.tokenizers[0].texts]
        rows = []
        for one in self.tokenizers:
            speed, pile = "-", "-"
            if one.throughput:
                speed = f"{one.throughput.bytes_per_second / 1e6:,.1f}"
                pile = duration(one.throughput.pile_seconds)
            ratios = [number(text.bytes_per_token, 3) for text in one.texts]
            rows.append([one.name, f"{len(one.vocabulary):,}", *ratios, speed, pile])
        return Table(["tokenizer", "tokens", *texts, "MB/s", "825 GB"], rows)

    def _shared(self) -> Table:
        rows = []
        for one, other, count in self.shared():
            shares = [f"{count / len(each.vocabulary):.1%}" for each in (one, other)]
            rows.append([one.name, other.name, f"{count:,}", *shares])
        headings = ["one", "other", "in both", "of the one", "of the other"]
        return Table(headings, rows, texts=2)

    def _longest(self) -> Table:
        most = max(len(one.longest) for one in self.tokenizers)
        rows = []
        for rank in range(most):
            tokens = [one.longest[rank : rank + 1] for one in self.tokenizers]
            rows.append([_shown(each[0][1]) if each else "" for each in tokens])
        return Table([one.name for one in self.tokenizers], rows, texts=len(self.tokenizers))


def compare_tokenizers(
    tokenizers: Mapping[str, Tokenizer],
    paths: Sequence[str],
    *,
    documents: int | None = None,
    seed: int = 0,
    longest: int = 10,
    threads: int = 1,
    text_field: str | None = "text",
    text_column: str = "text",
) -> TokenizerComparison:
    """Measures tokenizers, by their names, on files.

    Args:
        paths: anything that :meth:`Tokenizer.encode_files` takes; each file is measured by itself.
        documents: measure the bytes per token on this many documents of each file, drawn without
            replacement; on the whole files if nothing is said. A document ends at
            ``<|endoftext|>``, which is no part of it, with its record, and with its file; empty
            ones are not drawn.
        seed: which documents.
        longest: how many of the longest tokens to keep.
        threads: how many the throughput is measured with.
        text_field, text_column: see :class:`~cs336lm.text.options.ReadOptions`.

    Throughput is that of reading and encoding the whole files, ids counted and not written: the
    median of up to five passes, of as many as two seconds hold, but at least one.

    Raises:
        UsageError: nothing to compare, standard input (which can be read once only), or a number
            below 1.
        OSError, ValueError: a file cannot be read.
    """
    if not tokenizers:
        raise UsageError("no tokenizers given: name at least one")
    if documents is not None and documents < 1:
        raise UsageError(f"documents {documents}: must be at least 1")
    files = input_files(paths)
    for path in files:
        if not os.path.isfile(path):
            raise UsageError(f"{path}: every tokenizer reads the text, so it must be a file")
    fields: dict[str, Any] = {"text_field": text_field, "text_column": text_column}
    texts = [
        Text(path, sampled_documents(path, documents, seed, **fields) if documents else None)
        for path in files
    ]
    found = []
    for name, tokenizer in tokenizers.items():
        counts, throughput = _timed(tokenizer, files, threads, fields)
        if documents is not None:
            counts = [_on_documents(tokenizer, text) for text in texts]
        found.append(
            TokenizerFigures(
                name,
                tokenizer.vocab_size,
                counts,
                throughput,
                longest_tokens(tokenizer, longest),
                frozenset(tokenizer.vocab.values()),
            )
        )
    return TokenizerComparison(found, documents)


def sampled_documents(
    path: str, count: int, seed: int, *, text_field: str | None = "text", text_column: str = "text"
) -> list[bytes]:
    """``count`` documents of a file that are not empty, at random, in the file's order.

    All of them if there are no more. Memory holds those that are drawn and eight bytes for each
    document; the text waits in a temporary file of twice its size.
    """
    import numpy as np

    # Bytes as ids: so every kind of input is read, and documents end where they end elsewhere.
    plain = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], [_END_OF_TEXT])
    end_of_text = plain.token_to_id(_END_OF_TEXT)
    with tempfile.TemporaryDirectory(prefix="cs336lm-") as folder:
        out = os.path.join(folder, "text.npy")
        plain.encode_files(
            path, out, append_eot=True, text_field=text_field, text_column=text_column
        )
        ids = np.load(out, mmap_mode="r")
        block = 1 << 22
        ends = np.concatenate(
            [np.zeros(0, dtype=np.int64)]
            + [
                start + np.flatnonzero(ids[start : start + block] == end_of_text)
                for start in range(0, len(ids), block)
            ]
        )
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends + 1])[: len(ends)]
        there = np.flatnonzero(ends > starts)
        drawn = random.Random(seed).sample(range(len(there)), min(count, len(there)))
        chosen = [int(there[index]) for index in sorted(drawn)]
        documents = [ids[starts[one] : ends[one]].astype(np.uint8).tobytes() for one in chosen]
        del ids  # Windows deletes no file that is mapped
    return documents


def _on_documents(tokenizer: Tokenizer, text: Text) -> Measured:
    documents = text.documents or []
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(documents))
    return Measured(text.path, sum(map(len, documents)), tokens)


def _timed(
    tokenizer: Tokenizer, files: list[str], threads: int, fields: dict[str, Any]
) -> tuple[list[Measured], Throughput | None]:
    """What the whole files are to the tokenizer, and how fast it goes through them."""
    seconds: list[float] = []
    while not seconds or (sum(seconds) < _TIMED_SECONDS and len(seconds) < _MOST_PASSES):
        began = time.perf_counter()
        counts = [tokenizer.count_tokens(path, threads=threads, **fields) for path in files]
        seconds.append(time.perf_counter() - began)
    measured = [
        Measured(path, size, tokens) for path, (tokens, size) in zip(files, counts, strict=True)
    ]
    size = sum(text.bytes for text in measured)
    if not size:
        return measured, None
    rate = size / statistics.median(seconds)
    return measured, Throughput(rate, size, len(seconds), threads)


def _tokenizer_json(one: TokenizerFigures) -> dict[str, Any]:
    throughput = one.throughput and {
        "bytes_per_second": one.throughput.bytes_per_second,
        "bytes": one.throughput.bytes,
        "passes": one.throughput.passes,
        "threads": one.throughput.threads,
        "seconds_for_825_gb": one.throughput.pile_seconds,
    }
    texts = [
        {
            "path": text.path,
            "bytes": text.bytes,
            "tokens": text.tokens,
            "bytes_per_token": text.bytes_per_token,
        }
        for text in one.texts
    ]
    longest = [
        {"id": id, "bytes": len(token), "text": token.decode("utf-8", "backslashreplace")}
        for id, token in one.longest
    ]
    return {
        "path": one.name,
        "vocab_size": one.vocab_size,
        "tokens": len(one.vocabulary),
        "on": texts,
        "throughput": throughput,
        "longest_tokens": longest,
    }


def _shown(token: bytes) -> str:
    text = token.decode("utf-8", "backslashreplace")
    short = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return f"{short!r} ({len(token)} bytes)"
