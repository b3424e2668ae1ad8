"""The same bits again: whatever the number of threads, and whether a run was killed or not."""

from __future__ import annotations

import time
from collections.abc import Callable

from .contents import contents
from .findings import Tally
from .jobs import EOT
from .process import Place, start

_TEXT_JOBS = {
    "train-bpe": f"train-bpe in/a.txt in/b.txt --vocab-size 320 --special-token {EOT} "
    "--out out/tok",
    "count-pretokens": f"count-pretokens in/a.txt in/b.txt --special-token {EOT} "
    "--out out/c.counts",
    "tokenize": "tokenize in/a.txt in/b.txt --tokenizer in/tok --val-fraction 0.2 --out out/t.npy",
    "tokenize shards": "tokenize in/a.txt in/b.txt --tokenizer in/tok --val-fraction 0.2 "
    "--shard-tokens 5000 --out out/t.npy",
}
_TRAIN = "train --config in/run.toml --run-dir out/run --resume"
# Compiled for several threads, the embedding's gradient is a sum of atomic additions, in any order.
_KINDS: dict[str, tuple[list[str], int]] = {
    "float32": ([], 1),
    "bfloat16": (["--train.dtype", "bfloat16"], 1),
    "two threads": ([], 2),
    "bfloat16, two threads": (["--train.dtype", "bfloat16"], 2),
    "compiled": (["--train.compile"], 1),
    "compiled, bfloat16": (["--train.compile", "--train.dtype", "bfloat16"], 1),
}


def same(place: Place, *, compiled: bool) -> Tally:
    """Every text job with 1 to 7 threads; training of each kind twice, and killed and resumed."""
    tally = Tally("same")
    for name, command in _TEXT_JOBS.items():
        found = []
        for threads in (1, 2, 3, 7):
            place.clear()
            ended = start([*command.split(), "--threads", str(threads)], place).end()
            found.append((ended.status, contents(place.out)))
        wrong = None if all(one == found[0] for one in found) else "differs by threads"
        tally.case(name, wrong, place)
    for name, (flags, threads) in _KINDS.items():
        if "compiled" in name and not compiled:
            continue
        argv = [*_TRAIN.split(), *flags]
        first, seconds = _whole(argv, place, threads)
        again, _ = _whole(argv, place, threads)
        tally.case(f"train {name}, twice", None if again == first else "differs", place)
        place.clear()
        running = start(argv, place, main=_with_threads(threads))
        _wait_for_checkpoint(place, seconds)
        running.kill()
        running.end()
        ended = start(argv, place, main=_with_threads(threads)).end()
        resumed = contents(place.out) if ended.status == 0 else {"said": ended.said}
        tally.case(f"train {name}, resumed", None if resumed == first else "differs", place)
    tally.close()
    return tally


def _whole(argv: list[str], place: Place, threads: int) -> tuple[dict[str, str], float]:
    place.clear()
    ended = start(argv, place, main=_with_threads(threads)).end(300)
    assert ended.status == 0, ended.said
    return contents(place.out), ended.seconds


def _with_threads(number: int) -> Callable[[list[str]], int | None]:
    def main(argv: list[str]) -> int | None:
        import torch
        from cs336lm.cli.main import main as command

        torch.set_num_threads(number)
        return command(argv)

    return main


def _wait_for_checkpoint(place: Place, seconds: float) -> None:
    until = time.monotonic() + 3 * seconds
    while time.monotonic() < until:
        if list(place.out.glob("run/checkpoints/step-*.pt")):
            return
        time.sleep(0.005)
