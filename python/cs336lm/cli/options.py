"""Flags that several commands share, and their types."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cs336lm.text.options import Progress, ReadOptions, TrainOptions
    from cs336lm.text.tokenizer import Tokenizer
    from cs336lm.training.run_directory import Which


# Written down here, so that no parser waits for the core to be loaded; a test compares.
PATTERN_NAMES = "gpt2, gpt4, gpt4o, llama3, qwen2, qwen3.5, nanochat, tekken, starcoder"


def spin_briefly() -> None:
    """Lets GNU OpenMP's threads spin only briefly while they wait, unless the user set it already.

    Where other programs compete for the cores, threads that wait by spinning slow a small model
    down several times over; where none do, threads that never spin take a third off its speed. The
    variable is read when PyTorch is first imported: call this before.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def positive(text: str) -> int:
    """The type of a flag that is a whole number of at least one."""
    try:
        value = int(text.replace("_", ""))
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def count(text: str) -> int:
    """The type of a flag that is a large whole number: ``100M`` is 100,000,000."""
    scale = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:].upper())
    return positive(text) if scale is None else positive(text[:-1]) * scale


def above_zero(text: str) -> float:
    """The type of a flag that is a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def fraction(text: str) -> float:
    """The type of a flag from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def memory(text: str) -> int:
    """The type of a flag that is an amount of memory: ``2GB`` is 2,000,000,000 bytes."""
    try:
        return count(text.upper().removesuffix("B"))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an amount of memory: write 512MB, 2GB or a number of bytes"
        ) from None


def token_with_id(text: str) -> tuple[str, int | None]:
    """The type of ``--special-token`` where it may have an id: ``TEXT`` or ``TEXT=ID``."""
    token, equals, number = text.rpartition("=")
    if token and equals and number.isascii() and number.isdigit():
        return token, int(number)
    return text, None


def checkpoint(text: str) -> Which:
    """The type of a flag that names a checkpoint: ``best``, ``last``, or the number of a step."""
    if text == "best":
        return "best"
    if text == "last":
        return "last"
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not best, last or the number of a step")
    return int(text)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """``--checkpoint``: which of a run's weights are meant."""
    parser.add_argument(
        "--checkpoint",
        type=checkpoint,
        default="best",
        metavar="best|last|STEP",
        help="best by validation loss (default), last, or the step of one that was kept",
    )


def add_placement(parser: argparse.ArgumentParser, precision_of: str) -> None:
    """``--device`` and ``--dtype``: where a model is computed, and the precision of what."""
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="float32",
        help=f"precision of {precision_of} (default: float32)",
    )


def add_counting(parser: argparse.ArgumentParser) -> None:
    """What text is counted, and how: the same flags wherever that is done."""
    parser.add_argument(
        "--special-token",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that is one token, such as '<|endoftext|>'; may be given several times",
    )
    parser.add_argument(
        "--pattern",
        default="gpt2",
        help=f"how text is split into words: {PATTERN_NAMES}, or a regular expression (default: "
        "gpt2)",
    )
    add_text_fields(parser)
    parser.add_argument(
        "--max-memory",
        type=memory,
        metavar="SIZE",
        help="limit on memory, e.g. 2GB: what does not fit goes to temporary files; training "
        "always holds the distinct words, at twice their size (see --min-count)",
    )


def add_text_fields(parser: argparse.ArgumentParser) -> None:
    """``--text-field`` and ``--text-column``: where the text stands in files of records."""
    parser.add_argument(
        "--text-field",
        default="text",
        metavar="NAME",
        help="the field of .jsonl records that holds the text (default: text)",
    )
    parser.add_argument(
        "--text-column",
        default="text",
        metavar="NAME",
        help="the column of .parquet files that holds the text (default: text)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``, which changes no result."""
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="how many to use (default: all cores)"
    )


def read_options(arguments: argparse.Namespace, progress: Progress | None) -> ReadOptions:
    """The keyword arguments that :func:`add_text_fields` and :func:`add_threads` stand for."""
    return {
        "text_field": arguments.text_field,
        "text_column": arguments.text_column,
        "threads": arguments.threads,
        "progress": progress,
    }


def train_options(arguments: argparse.Namespace, progress: Progress | None) -> TrainOptions:
    """The keyword arguments that :func:`add_counting` and :func:`add_threads` stand for."""
    return {**read_options(arguments, progress), "max_memory": arguments.max_memory}


def add_tokenizer(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """``--tokenizer``, and what only some tokenizer files contain themselves."""
    parser.add_argument(
        "--tokenizer",
        required=required,
        metavar="PATH",
        help="a tokenizer's directory, tokenizer.json, vocab.json, merges.txt or .tiktoken file",
    )
    add_tokenizer_options(parser)


def add_tokenizer_options(parser: argparse.ArgumentParser) -> None:
    """``--special-token`` and ``--pattern``, which only tokenizer.json contains itself."""
    parser.add_argument(
        "--special-token",
        action="append",
        default=[],
        type=token_with_id,
        metavar="TEXT[=ID]",
        help="a special token in addition to those of the files, with its id if it is not the next "
        "one: '<|x|>=100300' (those of OpenAI's .tiktoken files have theirs); a text that itself "
        "ends in = and a number needs its id after it; may be given several times",
    )
    parser.add_argument(
        "--pattern",
        help=f"how text is split into words: {PATTERN_NAMES}, or a regular expression (default: "
        "what tokenizer.json or the name of OpenAI's .tiktoken files says, gpt2 for vocab.json; "
        "other .tiktoken files need it)",
    )


def named_files(paths: list[str], text_field: str) -> list[str]:
    """The files that ``paths`` stand for; a note says what of a directory is left out."""
    import warnings

    from cs336lm.text.inputs import input_files

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        files = input_files(paths, text_field)
    for warning in warned:
        print(f"note: {warning.message}", file=sys.stderr)
    return files


def load_tokenizer(path: str, arguments: argparse.Namespace) -> Tokenizer:
    """The tokenizer at ``path``, with the flags of :func:`add_tokenizer_options`."""
    import warnings

    from cs336lm.errors import UsageError
    from cs336lm.text.tokenizer import Tokenizer

    special = dict(arguments.special_token)
    if len(special) < len(arguments.special_token):
        raise UsageError("--special-token: one token is given twice")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        tokenizer = Tokenizer.load(path, special, pattern=arguments.pattern)
    for warning in warned:
        print(f"note: {warning.message}", file=sys.stderr)
    return tokenizer
