"""A link that drops between two processes of one run, each in a network namespace of its own.

Needs Linux, root and ``ip`` (iproute2); without them nothing is tried.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .contents import contents
from .findings import Tally
from .process import Ended, Place, Running, start

_ARGV = ["train", "--config", "in/run.toml", "--run-dir", "out/run", "--resume"]
_NETWORK_NAMESPACE = 0x40000000  # CLONE_NEWNET
_PATIENCE, _IMPATIENCE = 60, 4  # seconds: as long as the link is there, and without it


def link(place: Place, cases: int, seed: int) -> Tally:
    """Takes the link down at a random moment, ``cases`` times, and lets the run go on."""
    tally = Tally("link")
    rng = random.Random(seed)
    try:
        with _two_hosts() as hosts:
            place.clear()
            whole = [running.end() for running in _ranks(place, hosts, _PATIENCE)]
            assert [ended.status for ended in whole] == [0, 0], [one.said for one in whole]
            wanted, seconds = contents(place.out), max(ended.seconds for ended in whole)
            for _ in range(cases):
                moment = rng.uniform(0.3, 1) * seconds
                wrong = _drop(place, hosts, moment)
                if wrong is None:
                    again = [running.end() for running in _ranks(place, hosts, _PATIENCE)]
                    failed = [one.said.strip() for one in again if one.status != 0]
                    same = contents(place.out) == wanted
                    wrong = failed[0] if failed else None if same else "another result"
                tally.case(f"down after {moment:.2f} s", wrong, place)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"link: skipped, there are no network namespaces here ({error})")
    tally.close()
    return tally


def _drop(place: Place, hosts: list[str], moment: float) -> str | None:
    running = _ranks(place, hosts, _IMPATIENCE)
    time.sleep(moment)
    _ip("netns", "exec", hosts[0], "ip", "link", "set", "link0", "down")
    ended: list[Ended] = [one.end(60) for one in running]
    _ip("netns", "exec", hosts[0], "ip", "link", "set", "link0", "up")
    return next(filter(None, (one.complaint() for one in ended)), None)


def _ranks(place: Place, hosts: list[str], patience: int) -> list[Running]:
    port = str(random.randrange(20_000, 60_000))  # both hosts are new: nobody else is there
    running = []
    for rank, host in enumerate(hosts):
        environment = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2",
            "MASTER_ADDR": "10.99.0.1", "MASTER_PORT": port,
            "GLOO_SOCKET_IFNAME": f"link{rank}"}  # fmt: skip
        argv = [*_ARGV, "--train.peer-timeout", str(patience)]
        main = _on_host(host)
        running.append(start(argv, place, name=f"rank{rank}", environment=environment, main=main))
    return running


def _on_host(host: str) -> Callable[[list[str]], int | None]:
    def main(argv: list[str]) -> int | None:
        from cs336lm.cli.main import main as command

        with open(f"/var/run/netns/{host}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NETWORK_NAMESPACE):
                raise OSError(ctypes.get_errno(), "no way into the network namespace")
        return command(argv)

    return main


@contextmanager
def _two_hosts() -> Iterator[list[str]]:
    """Two namespaces, 10.99.0.1 and 10.99.0.2, with a link between them."""
    if shutil.which("ip") is None:
        raise OSError("there is no `ip`")
    hosts = [f"faults-{os.getpid()}-{number}" for number in range(2)]
    try:
        for host in hosts:
            _ip("netns", "add", host)
            _ip("-n", host, "link", "set", "lo", "up")
        _ip("-n", hosts[0], "link", "add", "link0", "type", "veth", "peer", "name", "link1",
            "netns", hosts[1])  # fmt: skip
        for number, host in enumerate(hosts):
            _ip("-n", host, "addr", "add", f"10.99.0.{number + 1}/24", "dev", f"link{number}")
            _ip("-n", host, "link", "set", f"link{number}", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
