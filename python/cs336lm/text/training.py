"""Training as functions: :func:`train_bpe`, and :func:`count_pretokens` for its first half.

The algorithm is the byte-pair encoding of Sennrich, Haddow and Birch (2016), on bytes as in GPT-2
(Radford et al., 2019). (CS336 assignment 1, section 2.4.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from cs336lm import _bpe
from cs336lm.text.options import Path, TrainOptions, train_arguments
from cs336lm.text.tokenizer import Tokenizer, special_token_list


def train_bpe(
    input_path: Path | Iterable[Path],
    vocab_size: int,
    special_tokens: Iterable[str] = (),
    *,
    pattern: str = "gpt2",
    min_count: int = 1,
    **options: Unpack[TrainOptions],
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Trains a byte-level BPE vocabulary on text files.

    Repeatedly merges the most frequent pair of adjacent tokens, of several the lexicographically
    greatest (left bytes, right bytes). The result is the same for any number of threads, and
    whether the text is one file or several.

    Args:
        input_path: one text file or several. UTF-8 is usual; any bytes will do. A directory stands
            for all texts below it, a pattern (``part-*.txt``) for all files that match, ``-`` for
            standard input. (A warning says what of a directory is left out.) ``.gz`` and ``.zst``
            are unpacked; of ``.jsonl`` (``.ndjson``) and
            ``.parquet`` each record is a document.
        vocab_size: how many tokens in all: 256 bytes, merges and special tokens.
        special_tokens: texts that are one token each, bound the text around them and are not
            counted.
        pattern: how text is split into pretokens: a name (``"gpt2"``, ``"gpt4"``, ``"llama3"``,
            ... as for :class:`~cs336lm.text.tokenizer.Tokenizer`), or a regular expression. One
            without a name is slower by far, and is matched by several threads only where there are
            several files, or special tokens between documents.
        min_count: leaves out pretokens that occur less often.
        text_field, text_column, threads, max_memory, progress: see
            :class:`~cs336lm.text.options.TrainOptions`; the phases are ``"counting"`` and
            ``"merging"``.

    Returns:
        ``vocab`` (id -> bytes: the bytes 0-255, the merges in order of creation, the special tokens
        in the order given) and ``merges`` ((left, right) in order of creation). If the text holds
        fewer merges than asked for, there are fewer, and a warning says so.

    Raises:
        OSError: a file cannot be read.
        UsageError: no file is named, ``vocab_size`` is less than 256 + special tokens, or
            ``max_memory``, ``min_count`` or ``threads`` is below 1.
        ValueError: the files are empty or damaged, a record has no text, or a special token or the
            pattern is invalid.
        KeyboardInterrupt: Ctrl-C.

    Examples:
        >>> with open("corpus.txt", "w") as file:
        ...     _ = file.write("low low low lower newest newest newest widest<|endoftext|>")
        >>> vocab, merges = train_bpe("corpus.txt", 260, ["<|endoftext|>"])
        >>> merges
        [(b'w', b'e'), (b's', b't'), (b'l', b'o')]
        >>> vocab[259]
        b'<|endoftext|>'
    """
    tokenizer = Tokenizer.train(
        input_path, vocab_size, special_tokens, pattern=pattern, min_count=min_count, **options
    )
    return tokenizer.vocab, tokenizer.merges


def count_pretokens(
    input_path: Path | Iterable[Path],
    out: Path,
    special_tokens: Iterable[str] = (),
    *,
    pattern: str = "gpt2",
    **options: Unpack[TrainOptions],
) -> int:
    """Counts the pretokens of text files into a counts file for :meth:`Tokenizer.train_counts`.

    Counting is most of the work of training on much text, and can be spread over machines: a counts
    file for each part of the text, in any division of it into files.

    Args:
        input_path, special_tokens, pattern: as for :func:`train_bpe`.
        out: the file to write.
        text_field, text_column, threads, max_memory, progress: see
            :class:`~cs336lm.text.options.TrainOptions`; the phase is ``"counting"``.

    Returns:
        How many distinct pretokens there are.

    Raises:
        OSError: a file cannot be read or written.
        UsageError: no file is named, or ``max_memory`` or ``threads`` is below 1.
        ValueError: a file is damaged, a record has no text, or a special token or the pattern is
            invalid.
    """
    names = special_token_list(special_tokens)
    source, resources = train_arguments(input_path, **options)
    return _bpe.count_pretokens(source, out, names, pattern, resources)


def check_savable(special_tokens: Iterable[str], pattern: str) -> None:
    """Refuses what :meth:`Tokenizer.save` would refuse whatever is trained.

    Raises:
        UsageError: in the files a special token would be written like bytes of text, or they cannot
            hold the pattern.
    """
    _bpe.check_savable(special_token_list(special_tokens), pattern)
