"""Texts made to be slow to encode: is ten times the text at most fifteen times the work?

python benchmarks/worst_cases.py --tokenizer tokenizer/ --megabytes 10

Pretokens of megabytes (one letter, one ideograph, spaces, two letters in an order that merges
badly) and bytes without any order. Times are the best of three calls of `Tokenizer.encode_batch`
with one thread, which makes no Python list of the ids. glibc is told to keep memory that is given
back: else it would get fresh pages from the kernel for large results only, which takes as long as
to encode the fastest case. With MALLOC_MMAP_MAX_=65536 (its default) in the environment, it gets
fresh pages for all of them.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable

import harness
from cs336lm import Tokenizer

CALLS = 4


def thue_morse(size: int, seed: int) -> bytes:
    """No part of it comes three times in a row: merges find few equal neighbours."""
    return bytes(b"ab"[index.bit_count() & 1] for index in range(size))


def letters(alphabet: bytes) -> Callable[[int, int], bytes]:
    return lambda size, seed: bytes(random.Random(seed).choices(alphabet, k=size))


CASES: dict[str, Callable[[int, int], bytes]] = {
    "one letter": lambda size, seed: b"a" * size,
    "one ideograph": lambda size, seed: "你".encode() * (size // 3),
    "spaces": lambda size, seed: b" " * size,
    "random bytes": lambda size, seed: random.Random(seed).randbytes(size),
    "random letters": letters(b"etaoinshr"),
    "a and b, random": letters(b"ab"),
    "a and b, Thue-Morse": thue_morse,
    "ab repeated": lambda size, seed: b"ab" * (size // 2),
}


def seconds(tokenizer: Tokenizer, texts: list[bytes]) -> float:
    """The best of several calls. Random texts differ, or the caches would know a small one after
    the first call. Every call but the first, which is left out, finds the memory that the one
    before gave back."""
    times = []
    for text in texts:
        began = time.perf_counter()
        ids = tokenizer.encode_batch([text], threads=1)[0]
        times.append(time.perf_counter() - began)
        assert tokenizer.decode_bytes(ids) == text
        del ids
    return min(times[1:])


def measure(path: str, megabytes: float = 10) -> str:
    """A table of all cases with the tokenizer at ``path``."""
    tokenizer = Tokenizer.load(path)
    large = int(megabytes * 1e6)
    rows = []
    for name, make in CASES.items():
        texts = [make(large, seed) for seed in range(CALLS)]
        small = seconds(tokenizer, [text[: large // 10] for text in texts])
        whole = seconds(tokenizer, texts)
        rows.append([name, f"{small:.4f}", f"{whole:.3f}", f"{whole / small:.1f}"])
    head = ["", f"{large / 1e7:g} MB, s", f"{large / 1e6:g} MB, s", "ratio"]
    return harness.table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--megabytes", type=float, default=10)
    options = parser.parse_args()
    if "MALLOC_MMAP_MAX_" not in os.environ:
        # Not above: it imports torch, and `encoding.py` measures the memory of what it starts.
        from cs336lm.training.devices import keep_freed_memory

        keep_freed_memory()
    print(f"{harness.machine()}; tokenizer {options.tokenizer}\n")
    print(measure(options.tokenizer, options.megabytes))


if __name__ == "__main__":
    main()
