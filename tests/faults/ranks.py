"""Several processes of one training run, over gloo: one dies, hangs, is slow, is told to stop, or
is about to train something else.
"""

from __future__ import annotations

import random
import re
import signal
import socket
import time

from .contents import contents
from .findings import Tally
from .process import Ended, Place, Running, start

_ARGV = ["train", "--config", "in/run.toml", "--run-dir", "out/run", "--resume"]
_PATIENCE = 25  # seconds that one process waits for another, which may die before they have met
_IMPATIENCE = 4  # where one is known to hang


class Ranks:
    """All processes of a run, started like torchrun would."""

    def __init__(
        self,
        place: Place,
        size: int = 2,
        more: dict[int, list[str]] | None = None,
        *,
        patience: int = _PATIENCE,
        other_version: bool = False,
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        self.running: list[Running] = []
        for rank in range(size):
            environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
            argv = [*_ARGV, "--train.peer-timeout", str(patience), *(more or {}).get(rank, [])]
            main = _of_another_version if other_version and rank == 1 else None
            self.running.append(
                start(argv, place, name=f"rank{rank}", environment=environment, main=main)
            )

    def end(self) -> list[Ended]:
        """Waits for all."""
        return [running.end() for running in self.running]


def ranks(place: Place, cases: int, seed: int) -> Tally:
    """Goes through what may happen to a process, ``cases`` times each."""
    tally = Tally("ranks")
    rng = random.Random(seed)
    place.clear()
    whole = Ranks(place).end()
    assert [ended.status for ended in whole] == [0, 0], [ended.said for ended in whole]
    wanted, seconds = contents(place.out), max(ended.seconds for ended in whole)

    def goes_on() -> str | None:
        ended = Ranks(place).end()
        if [one.status for one in ended] != [0, 0]:
            return f"does not go on: {[one.said.strip()[-300:] for one in ended]}"
        found = contents(place.out)
        return None if found == wanted else f"another result: {_differ(found, wanted)}"

    for _ in range(cases):
        for event in ("dies", "hangs", "slow", "SIGTERM to one", "SIGHUP to all"):
            place.clear()
            job = Ranks(place, patience=_IMPATIENCE if event == "hangs" else _PATIENCE)
            moment, rank = rng.uniform(0, seconds), rng.randrange(2)
            time.sleep(moment)
            wrong = _strike(event, job, rank) or goes_on()
            tally.ends[event] += 1
            tally.case(f"rank {rank} after {moment:.2f} s: {event}", wrong, place)
    for what, more, says in _misfits(place):
        place.clear()
        ended = Ranks(place, more={1: more}, other_version=not more).end()
        wrong = next(filter(None, (one.complaint() for one in ended)), None)
        if wrong is None and not all(
            one.status == 2 and re.search(says, one.said) for one in ended
        ):
            wrong = f"not refused: {[(one.status, one.said.strip()[-300:]) for one in ended]}"
        if wrong is None and contents(place.out):
            wrong = f"refused, but wrote {list(contents(place.out))}"
        tally.ends[what] += 1
        tally.case(what, wrong, place)
    tally.close()
    return tally


def _strike(event: str, job: Ranks, rank: int) -> str | None:
    """Makes it happen; what is wrong with how the processes took it."""
    hit, other = job.running[rank], job.running[1 - rank]
    if event == "dies":
        hit.kill()
    elif event == "hangs":
        hit.kill(signal.SIGSTOP)
        ended = other.end()  # before the other comes to life
        hit.kill()
        hit.end()
        return ended.complaint()
    elif event == "slow":
        hit.kill(signal.SIGSTOP)
        time.sleep(0.3)
        hit.kill(signal.SIGCONT)
    elif event == "SIGTERM to one":
        hit.kill(signal.SIGTERM, group=False)
    else:
        for running in job.running:
            running.kill(signal.SIGHUP, group=False)
    all_ended = job.end()
    for ended in all_ended:
        # Before the run has begun a signal ends a process like any other, and then the rest.
        if ended.status in (143, 129, -signal.SIGTERM, -signal.SIGHUP):
            continue
        wrong = ended.complaint()
        if wrong or (event == "slow" and ended.status != 0):
            return wrong or f"ended though it was only slow: {ended.said.strip()}"
    return None


def _misfits(place: Place) -> list[tuple[str, list[str], str]]:
    other = place.inputs / "other"
    other.mkdir(exist_ok=True)
    tokens = bytearray((place.inputs / "tokens.npy").read_bytes())
    tokens[len(tokens) // 2 : len(tokens) // 2 + 2000] = bytes(2000)
    (other / "tokens.npy").write_bytes(tokens)  # without a sidecar, which would tell
    return [
        ("another configuration", ["--optim.lr", "0.5"], r"process 1 .* process 0 in optim\.lr"),
        ("another token file", ["--data.train", "in/other/tokens.npy"],
            r"process 1 .* process 0 in .*the tokens of data\.train"),
        ("another version", [], r"process 1 .* process 0 in the version of cs336lm"),
    ]  # fmt: skip


def _of_another_version(argv: list[str]) -> int | None:
    from cs336lm.cli.main import main
    from cs336lm.training import agreement

    agreement.__version__ = "0.0.1"
    return main(argv)


def _differ(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    return sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )
