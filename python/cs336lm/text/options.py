"""What the jobs on text files have in common: where the text comes from, what a job may take.

    keyword arguments, flags -> TextSource, Resources, EncodeOptions -> the Rust core

The public functions take keyword arguments. Those that several of them share are written down and
documented here, once, as typed dictionaries (PEP 692); each function makes the objects below of
them, which check their values, and the core reads the objects' attributes.

The classes are written out because every ``cs336lm tokenize`` would wait for ``dataclasses`` to be
imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final, TypedDict, TypeVar

from cs336lm.errors import UsageError
from cs336lm.text.inputs import input_files

Path = str | os.PathLike[str]
Progress = Callable[[str, int, int], object]
"""Called about twenty times a second, and once at the end, with (phase, units done, units in all);
phases are ``"counting"``, ``"encoding"`` and ``"checking"`` (finished shards, before a job goes on)
in bytes, and ``"merging"`` in merges. What it raises
stops the job."""


class ReadOptions(TypedDict, total=False):
    """Keyword arguments of everything that reads text files.

    * ``text_field``: the field of ``.jsonl`` records that holds the text (``"text"``); ``None``
      takes such files for plain text. A record whose field is null is skipped.
    * ``text_column``: the column of ``.parquet`` files that holds the text (``"text"``);
      ``"meta.text"`` for one inside a struct. A null is skipped.
    * ``threads``: how many to use; all cores if nothing is said. No result depends on it.
    * ``progress``: see :data:`Progress`.
    """

    text_field: str | None
    text_column: str
    threads: int | None
    progress: Progress | None


class TrainOptions(ReadOptions, total=False):
    """Keyword arguments of everything that counts text: those of :class:`ReadOptions`, and one.

    * ``max_memory``: about how many bytes to take for tables, lists and buffers; what does not fit
      waits in temporary files. The result is the same. Distinct pretokens are in memory while they
      are merged, at two bytes each of theirs, whatever this says.
    """

    max_memory: int | None


class TextSource:
    """Text files, and where the text stands in them.

    Args:
        paths: one file or several, directories, patterns, or ``-``, as
            :func:`~cs336lm.text.inputs.input_files` takes them; ``paths`` then lists the files.
        text_field, text_column: see :class:`ReadOptions`.
        range: which bytes of the only file, from one of its ``text_cuts`` to another; None for all.

    Raises:
        UsageError: no file is named, or nothing matches.
    """

    __slots__ = ("paths", "range", "text_column", "text_field")

    def __init__(
        self,
        paths: Path | Iterable[Path],
        text_field: str | None = "text",
        text_column: str = "text",
        range: tuple[int, int] | None = None,
    ) -> None:
        self.paths: Final[list[str]] = input_files(paths, text_field)
        self.text_field: Final = text_field
        self.text_column: Final = text_column
        self.range: Final = range


class Resources:
    """What a job may take of the machine, and whom it tells how far it is.

    Args:
        threads, max_memory, progress: see :class:`TrainOptions`.

    Raises:
        UsageError: a number is below 1.
    """

    __slots__ = ("max_memory", "progress", "threads")

    def __init__(
        self,
        threads: int | None = None,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.threads: Final = at_least("threads", threads)
        self.max_memory: Final = at_least("max_memory", max_memory)
        self.progress: Final = progress


class EncodeOptions:
    """How :meth:`~cs336lm.text.tokenizer.Tokenizer.encode_files` writes: see there.

    ``special_in_records`` is its ``special_tokens_in_records``; ``documents`` also writes what it
    takes to join the array with others (``text/parts.py``).

    Raises:
        UsageError: a number is outside what it can be.
    """

    __slots__ = (
        "append_eot",
        "documents",
        "resume",
        "seed",
        "shard_tokens",
        "skip_errors",
        "special_in_records",
        "val_fraction",
    )

    def __init__(
        self,
        append_eot: bool = False,
        val_fraction: float = 0.0,
        seed: int = 0,
        shard_tokens: int | None = None,
        resume: bool = False,
        skip_errors: bool = False,
        documents: bool = False,
        special_in_records: bool = False,
    ) -> None:
        if not 0 <= val_fraction <= 1:
            raise UsageError(f"val_fraction {val_fraction}: must be from 0 to 1")
        self.append_eot: Final = append_eot
        self.val_fraction: Final = val_fraction
        self.seed: Final = at_least("seed", seed, 0)
        self.shard_tokens: Final = at_least("shard_tokens", shard_tokens)
        self.resume: Final = resume
        self.skip_errors: Final = skip_errors
        self.documents: Final = documents
        self.special_in_records: Final = special_in_records


def read_arguments(
    paths: Path | Iterable[Path],
    *,
    text_field: str | None = "text",
    text_column: str = "text",
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[TextSource, Resources]:
    """The objects that :class:`ReadOptions` describe."""
    source = TextSource(paths, text_field, text_column)
    return source, Resources(threads, progress=progress)


def train_arguments(
    paths: Path | Iterable[Path],
    *,
    text_field: str | None = "text",
    text_column: str = "text",
    threads: int | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[TextSource, Resources]:
    """The objects that :class:`TrainOptions` describe."""
    source = TextSource(paths, text_field, text_column)
    return source, Resources(threads, max_memory, progress)


_Number = TypeVar("_Number", bound=int | None)


def at_least(name: str, value: _Number, least: int = 1) -> _Number:
    """``value``, if it is None or a number that makes sense for the argument ``name``.

    Raises:
        UsageError: it is below ``least``, or too large for the core.
    """
    if value is not None and not least <= value < 1 << 64:
        raise UsageError(f"{name} {value}: must be at least {least}")
    return value
