"""A job on much text in parts, each done by a process of its own, wherever that runs.

    files -> plan_parts -> a folder with plan.json -> do_part(folder, n), anywhere -> join

A part is some whole files, or one file of plain text from one safe cut to another: a place where
tokenizing gives the same ids whether the text is divided there or not. So the parts together are
what one process makes of all the text, bit for bit. ``python -m cs336lm.text.parts FOLDER N`` does
part N: it waits for another process that is at the same part, and leaves one that is done alone.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from cs336lm import _bpe
from cs336lm.errors import UsageError
from cs336lm.files import atomic_write, exclusive_lock
from cs336lm.json_files import read_json
from cs336lm.text.options import EncodeOptions, Resources, TextSource
from cs336lm.text.tokenizer import EncodedFile, Tokenizer, encoded_file

PLAN, TOKENIZER = "plan.json", "tokenizer.pickle"
_FORMAT = "cs336lm parts 2"
_LOCK_SECONDS = 0.2
_MOST_OPEN = 250  # counts files at once


class Part(NamedTuple):
    """What one task reads."""

    files: list[int]
    """Indices among the inputs."""
    range: tuple[int, int] | None
    """Which bytes of the only file; None for all of each."""
    bytes: int
    """About how much that is, for showing progress."""


class PartsJob:
    """What is made of the text, the same for all parts: plain data.

    Args:
        source: the files, and where the text is in them.
        special_tokens, pattern: what decides where text may be cut.
        threads: how many a task uses; None for ``OMP_NUM_THREADS`` of where it runs, or all cores.
    """

    def __init__(
        self, source: TextSource, special_tokens: Sequence[str], pattern: str, threads: int | None
    ) -> None:
        self.source: Final = source
        self.special_tokens: Final = list(special_tokens)
        self.pattern: Final = pattern
        self.threads: Final = threads
        for path in source.paths:
            if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
                raise UsageError(
                    f"{path}: is no regular file, so it cannot be read by several processes; "
                    "leave out --launcher and --jobs"
                )

    kind = ""
    skips_errors = False

    def settings(self) -> dict[str, Any]:
        """Everything that decides what a part holds."""
        return {
            "kind": self.kind,
            "folder": os.getcwd(),
            "inputs": [_described(path) for path in self.source.paths],
            "text_field": self.source.text_field,
            "text_column": self.source.text_column,
            "special_tokens": self.special_tokens,
            "pattern": self.pattern,
        }

    def write_more(self, folder: Path) -> None:
        """Writes what the parts need beside the plan."""


class EncodingJob(PartsJob):
    """Token files; ``options`` are those of the whole."""

    kind = "tokenize"

    def __init__(
        self,
        tokenizer: Tokenizer,
        source: TextSource,
        options: EncodeOptions,
        threads: int | None = None,
    ) -> None:
        super().__init__(source, tokenizer.special_tokens, tokenizer.pattern, threads)
        self.tokenizer, self.options = tokenizer, options
        self.skips_errors = options.skip_errors

    def settings(self) -> dict[str, Any]:
        """Splits and shards are made when parts are joined: they decide nothing here."""
        return {
            **super().settings(),
            "tokenizer": self.tokenizer.fingerprint,
            "append_eot": self.options.append_eot,
            "special_in_records": self.options.special_in_records,
            "skip_errors": self.options.skip_errors,
        }

    def write_more(self, folder: Path) -> None:
        """Writes the tokenizer, whose own files may not say all of it."""
        with atomic_write(folder / TOKENIZER) as file:
            pickle.dump(self.tokenizer, file)

    def check(self, out: str) -> None:
        """Refuses, before any work, an output that :meth:`join` would refuse."""
        core = self.tokenizer._core
        core.join_files(self.source, None, out, self.options, Resources())

    def join(self, folder: Path, parts: Sequence[Part], out: str) -> EncodedFile:
        """Makes the token files of all parts, in bounded memory."""
        arrays = [
            (str(result_file(folder, self.kind, number)), part.files)
            for number, part in enumerate(parts)
        ]
        core = self.tokenizer._core
        written = core.join_files(self.source, arrays, out, self.options, Resources())
        assert written is not None  # it joined
        return encoded_file(written, out)


class CountingJob(PartsJob):
    """Counts files; ``max_memory`` is that of each task."""

    kind = "count-pretokens"

    def __init__(
        self,
        source: TextSource,
        special_tokens: Sequence[str],
        pattern: str,
        max_memory: int | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(source, special_tokens, pattern, threads)
        self.max_memory = max_memory

    def check(self, out: str) -> None:
        """Refuses, before any work, an output that :meth:`join` would refuse."""
        _bpe.check_counts_output(out, self.source.paths)

    def join(self, folder: Path, parts: Sequence[Part], out: str) -> int:
        """Adds the counts of all parts; returns how many distinct pretokens there are."""
        paths = [result_file(folder, self.kind, number) for number in range(len(parts))]
        level = 0
        while len(paths) > _MOST_OPEN:
            sums: list[Path] = []
            for start in range(0, len(paths), _MOST_OPEN):
                sums.append(folder / f"sum-{level}-{len(sums):05}.counts")
                _bpe.add_counts(paths[start : start + _MOST_OPEN], sums[-1], Resources())
            paths, level = sums, level + 1
        return _bpe.add_counts(paths, out, Resources())


def plan_parts(job: PartsJob, part_bytes: int) -> list[Part]:
    """Parts of about ``part_bytes`` each, in the order of the text; files of records stay whole.

    Raises ``OSError`` or ``ValueError`` if a file cannot be read, unless such files are skipped.
    """
    parts: list[Part] = []
    group: list[int] = []
    size = 0

    def close() -> None:
        nonlocal group, size
        if group:
            parts.append(Part(group, None, size))
        group, size = [], 0

    for index, path in enumerate(job.source.paths):
        ends = _cuts(job, path, part_bytes)
        if len(ends) > 1:
            close()
            starts = [0, *ends[:-1]]
            parts += [
                Part([index], (start, end), end - start)
                for start, end in zip(starts, ends, strict=True)
            ]
            continue
        length = os.path.getsize(path) if os.path.isfile(path) else 0
        if size + length > part_bytes:
            close()
        group.append(index)
        size += length
    close()
    return parts


def _cuts(job: PartsJob, path: str, part_bytes: int) -> list[int]:
    source = TextSource([path], job.source.text_field, job.source.text_column)
    try:
        (ends,) = _bpe.text_cuts(source, part_bytes, job.special_tokens, job.pattern)
    except (OSError, ValueError):
        if job.skips_errors:  # the part that holds it says so
            return []
        raise
    return ends or []


def write_plan(folder: Path, job: PartsJob, parts: Sequence[Part]) -> None:
    """Writes what :func:`do_part` needs to know."""
    job.write_more(folder)
    plan = {
        "format": _FORMAT,
        "job": job.settings(),
        "threads": job.threads,
        "max_memory": getattr(job, "max_memory", None),
        "parts": parts,
    }
    with atomic_write(folder / PLAN) as file:
        file.write(json.dumps(plan).encode())


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan in a folder. Raises ``UsageError`` if there is none of this version."""
    try:
        plan = read_json(folder / PLAN)
    except ValueError:
        plan = None
    if not isinstance(plan, dict) or plan.get("format") != _FORMAT:
        raise UsageError(f"{folder / PLAN} is no plan of this version: remove {folder}")
    plan["parts"] = [
        Part(files, tuple(within) if within else None, size)
        for files, within, size in plan["parts"]
    ]
    return plan


def result_file(folder: Path, kind: str, number: int) -> Path:
    """The array, or the counts file, of a part."""
    return folder / f"{number:05}{'.npy' if kind == 'tokenize' else '.counts'}"


def is_done(folder: Path, kind: str, number: int) -> bool:
    """Whether a part is there: its last file, each of which appears whole or not at all."""
    result = result_file(folder, kind, number)
    return (result.with_suffix(".json") if kind == "tokenize" else result).exists()


def do_part(folder: Path, number: int) -> None:
    """Does part ``number`` of the plan in ``folder``, unless it is done.

    Raises:
        OSError, ValueError: as :meth:`Tokenizer.encode_files` and ``count_pretokens``.
    """
    folder = folder.resolve()
    plan = read_plan(folder)
    job, part = plan["job"], plan["parts"][number]
    os.chdir(job["folder"])  # messages name the files as they were given
    paths = [job["inputs"][index][0] for index in part.files]
    source = TextSource(paths, job["text_field"], job["text_column"], part.range)
    threads = plan["threads"] or _cores_of_place()
    out = result_file(folder, job["kind"], number)
    with ExitStack() as stack:
        _wait_for(stack, folder / f"{number:05}.lock")
        if is_done(folder, job["kind"], number):
            return
        if job["kind"] == "tokenize":
            tokenizer = pickle.loads((folder / TOKENIZER).read_bytes())
            options = EncodeOptions(
                job["append_eot"],
                skip_errors=job["skip_errors"],
                documents=True,
                special_in_records=job["special_in_records"],
            )
            tokenizer._core.encode_files(source, out, options, Resources(threads))
        else:
            resources = Resources(threads, plan["max_memory"])
            _bpe.count_pretokens(source, out, job["special_tokens"], job["pattern"], resources)


def _wait_for(stack: ExitStack, path: Path) -> None:
    """Takes a lock, when nobody else has it: a driver that died may have left a task at work."""
    while True:
        try:
            stack.enter_context(exclusive_lock(path, str(path)))
            return
        except UsageError:
            time.sleep(_LOCK_SECONDS)


def _cores_of_place() -> int | None:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isascii() and said.isdigit() and int(said) > 0 else None


def _described(path: str) -> list[Any]:
    """What tells whether an input is still the same."""
    try:
        status = os.stat(path)
    except OSError:
        return [path, None, None]
    return [path, status.st_size, status.st_mtime_ns]


def main(argv: list[str]) -> int:
    """Does one part; what is wrong is one line on stderr."""
    try:
        do_part(Path(argv[0]), int(argv[1]))
    except (OSError, ValueError) as error:
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        print(" ".join(f"{where}{text}".split()), file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
