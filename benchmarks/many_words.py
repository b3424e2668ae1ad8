"""A text with millions of distinct pretokens, to train on: Chinese and Japanese, code, and English.

python benchmarks/many_words.py mixed.txt --cjk multilingual.txt --code /usr/lib/python3 \
    --english english-novels.txt --megabytes 200
python benchmarks/training.py mixed.txt --vocab-size 32000

Two fifths are the Chinese and Japanese documents of `--cjk` and, as 80 MB of them are not at hand
everywhere, lines made of theirs: a run of characters, or the first half of one and the second half
of another, as often as `--new` says, between the marks that stand between runs there. Two fifths
are source files, one fifth English. The same files and seed make the same text.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path

EOT = "<|endoftext|>"
CODE = (".c", ".h", ".js", ".py", ".rs")
MOST = 400_000
"""Source files of more bytes are mostly data."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cjk", type=Path, required=True, help=f"documents between {EOT}")
    parser.add_argument("--code", type=Path, required=True, nargs="+", help="directories")
    parser.add_argument("--english", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--new", type=float, default=0.85)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    fifth = options.megabytes * 1_000_000 // 5
    with options.out.open("w", encoding="utf-8") as out:
        for documents, size in (
            (cjk(options.cjk, options.new, rng), 2 * fifth),
            (code(options.code, rng), 2 * fifth),
            (iter(options.english.read_text(encoding="utf-8").split(EOT)), fifth),
        ):
            for document in documents:
                text = f"{document.strip()}\n{EOT}\n"
                out.write(text)
                size -= len(text.encode())
                if size < 0:
                    break


def cjk(path: Path, new: float, rng: random.Random) -> Iterator[str]:
    """The documents that are in part of such characters; then, endlessly, what is made of them."""
    documents = [text for text in path.read_text(encoding="utf-8").split(EOT) if is_cjk(text)]
    yield from documents
    runs = [run for text in documents for run in re.findall(r"\w+", text)]
    marks = [mark for text in documents for mark in re.findall(r"[^\w]+", text)]
    while runs and marks:
        pieces = []
        for _ in range(100):
            run = rng.choice(runs)
            if rng.random() < new:
                other = rng.choice(runs)
                run = run[: len(run) // 2 + 1] + other[len(other) // 2 :]
            pieces += [run, rng.choice(marks)]
        yield "".join(pieces)


def is_cjk(text: str) -> bool:
    return sum("\u3040" <= char <= "\u9fff" for char in text) >= len(text) / 5


def code(folders: list[Path], rng: random.Random) -> Iterator[str]:
    """Source files, in a random order."""
    paths = sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in CODE and path.is_file() and path.stat().st_size < MOST
    )
    rng.shuffle(paths)
    for path in paths:
        try:
            yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue


if __name__ == "__main__":
    main()
