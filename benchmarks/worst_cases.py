"""Texts made to be slow to encode: is ten times the text at most fifteen times the work?

python benchmarks/worst_cases.py --tokenizer tokenizer/ --megabytes 10

Pretokens of megabytes (one letter, one ideograph, spaces, two letters in an order that merges
badly) and bytes without any order. Times are the best of three calls of `Tokenizer.encode_batch`
with one thread, which makes no Python list of the ids.
"""

from __future__ import annotations

import argparse
import random
import time

import harness
from cs336lm import Tokenizer


def thue_morse(size: int) -> bytes:
    """No part of it comes three times in a row: merges find few equal neighbours."""
    return bytes(b"ab"[index.bit_count() & 1] for index in range(size))


CASES = {
    "one letter": lambda size: b"a" * size,
    "one ideograph": lambda size: "你".encode() * (size // 3),
    "spaces": lambda size: b" " * size,
    "random bytes": lambda size: random.Random(1).randbytes(size),
    "random letters": lambda size: bytes(random.Random(1).choices(b"etaoinshr", k=size)),
    "a and b, random": lambda size: bytes(random.Random(1).choices(b"ab", k=size)),
    "a and b, Thue-Morse": thue_morse,
    "ab repeated": lambda size: b"ab" * (size // 2),
}


def seconds(tokenizer: Tokenizer, text: bytes) -> float:
    began = time.perf_counter()
    ids = tokenizer.encode_batch([text], threads=1)[0]
    elapsed = time.perf_counter() - began
    assert tokenizer.decode_bytes(ids) == text
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--megabytes", type=float, default=10)
    options = parser.parse_args()
    tokenizer = Tokenizer.load(options.tokenizer)
    large = int(options.megabytes * 1e6)
    rows = []
    for name, make in CASES.items():
        text = make(large)
        small = min(seconds(tokenizer, text[: large // 10]) for _ in range(3))
        whole = min(seconds(tokenizer, text) for _ in range(3))
        rows.append([name, f"{small:.3f}", f"{whole:.3f}", f"{whole / small:.1f}"])
    print(f"{harness.machine()}; tokenizer {options.tokenizer}\n")
    head = ["", f"{large / 1e7:g} MB, s", f"{large / 1e6:g} MB, s", "ratio"]
    print(harness.table(head, rows))


if __name__ == "__main__":
    main()
