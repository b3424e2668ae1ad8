"""One tokenizer, shared by threads and processes: no wrong id, no deadlock, no growth.

    python tests/sharing.py --minutes 60 [--patience 120]

``test_sharing.py`` does a little of it. Every round: threads encode, decode, stream and encode
batches, while processes are forked from among them and do the same; and workers of PyTorch's
``DataLoader`` use a pickled copy. Each result is compared with that of one thread alone. After each
quarter of the time it says how much memory, threads and open files there are: in the first, caches
fill.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import texts
from cs336lm import Tokenizer, train_bpe

THREADS, PROCESSES = 16, 8
EOT = texts.SPECIAL
SECONDS = 20
"""After so long without an answer a process counts as stuck."""


def make_tokenizer(folder: Path) -> Tokenizer:
    (folder / "text.txt").write_text(texts.MULTILINGUAL + texts.CODE, encoding="utf-8")
    vocab, merges = train_bpe(folder / "text.txt", 400, [EOT])
    return Tokenizer(vocab, merges, [EOT])


def make_cases(tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    """Texts and their ids, as one thread sees them."""
    pieces = [texts.MULTILINGUAL[:99], texts.CODE[:300], EOT, texts.EMOJI, "the cat " * 50, ""]
    chosen = random.Random(0)
    cases = ["".join(chosen.choices(pieces, k=4)) for _ in range(12)]
    return [(text, tokenizer.encode(text)) for text in cases]


def use(tokenizer: Tokenizer, cases: list[tuple[str, list[int]]], seed: int) -> None:
    """Everything that a thread can do with a tokenizer, once; ``AssertionError`` if it is wrong."""
    text, ids = cases[seed % len(cases)]
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == text
    cut = seed % (len(text) + 1)
    assert list(tokenizer.encode_iterable([text[:cut], text[cut:]])) == ids
    batch = tokenizer.encode_batch([text for text, _ in cases], threads=2)
    assert [each.tolist() for each in batch] == [ids for _, ids in cases]


def round_of_threads_and_forks(
    tokenizer: Tokenizer, cases: list[tuple[str, list[int]]], forks: int
) -> None:
    """Threads at work while processes are forked, whatever the threads hold at that moment."""
    wrong: list[BaseException] = []
    over = threading.Event()

    def work(seed: int) -> None:
        try:
            while not over.is_set():
                use(tokenizer, cases, seed)
                seed += THREADS
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for first in range(0, forks, PROCESSES):
            children = [
                fork(lambda seed=seed: use(tokenizer, cases, seed))
                for seed in range(first, min(first + PROCESSES, forks))
            ]
            ends = [os.waitpid(child, 0)[1] for child in children]
            assert not any(ends), f"forked processes ended with {ends}"
    finally:
        over.set()
        for thread in threads:
            thread.join(SECONDS)
    assert not wrong, wrong[0]
    assert not any(thread.is_alive() for thread in threads), "a thread is stuck"


def fork(work: Any) -> int:
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


class Encoded:
    """A data set whose items are made by the workers of a ``DataLoader``."""

    def __init__(self, tokenizer: Tokenizer, cases: list[tuple[str, list[int]]]) -> None:
        self.tokenizer, self.cases = tokenizer, cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> int:
        use(self.tokenizer, self.cases, index)
        return index


def load(
    tokenizer: Tokenizer, cases: list[tuple[str, list[int]]], way: str, workers: int
) -> Iterator[int]:
    """What workers started in this way (``fork``, ``spawn``) come to."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Encoded(tokenizer, cases),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=way,
        timeout=3 * SECONDS,
    )
    yield from loader


def sizes() -> tuple[int, int, int]:
    """Memory in KB, threads, open files of this process."""
    status = Path("/proc/self/status").read_text()
    memory = int(status.partition("VmRSS:")[2].split()[0])
    return memory, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def say(minutes: float, rounds: int) -> None:
    memory, threads, files = sizes()
    print(
        f"{minutes:.1f} minutes, {rounds} rounds: {memory} KB, {threads} threads, {files} files",
        flush=True,
    )


def main() -> int:
    global SECONDS
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--patience", type=int, default=SECONDS, help="more of it beside other work: seconds"
    )
    args = parser.parse_args()
    minutes, SECONDS = args.minutes, args.patience
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
    cases = make_cases(tokenizer)
    round_of_threads_and_forks(tokenizer, cases, PROCESSES)
    list(load(tokenizer, cases, "fork", 1))  # PyTorch, and all that is kept, is there from here on
    began, rounds, quarter = time.monotonic(), 0, 0
    while (passed := (time.monotonic() - began) / 60) < minutes:
        if passed >= quarter * minutes / 4:
            say(passed, rounds)
            quarter += 1
        round_of_threads_and_forks(tokenizer, cases, 4 * PROCESSES)
        if rounds % 10 == 0:
            for way in ("fork", "spawn"):
                found = sorted(load(tokenizer, cases, way, PROCESSES))
                assert found == list(range(len(cases)))
        rounds += 1
    say(passed, rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"at most {peak} KB; nothing wrong, nothing stuck")
    return 0


if __name__ == "__main__":
    sys.exit(main())
