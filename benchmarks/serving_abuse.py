"""A server under attack: is everybody else still served, and what does it hold?

    python benchmarks/serving_abuse.py RUN --seconds 60

starts ``cs336lm serve RUN`` and, all at once: connections that send nothing, bodies without end,
prompts of two megabytes, clients that ask for long texts and leave. Meanwhile a well-behaved client
asks again and again: each of its requests must be served. Printed are its times, and memory,
threads and open files of the server before, in the middle and after. Linux, for ``/proc``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness import table

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Attack:
    """The clients, each in a thread of its own until ``stop`` is set."""

    def __init__(self, url: str) -> None:
        self.url = url
        host, port = url.removeprefix("http://").split(":")
        self.address = host, int(port)
        self.stop = threading.Event()
        self.counts: Counter[str] = Counter()
        self.threads: list[threading.Thread] = []

    def start(self, client: Callable[[], None], count: int) -> None:
        """Lets ``count`` clients do the same again and again."""

        def again() -> None:
            while not self.stop.is_set():
                with suppress(OSError):  # closed on, as it should be
                    client()

        for _ in range(count):
            self.threads.append(threading.Thread(target=again, daemon=True))
            self.threads[-1].start()

    def endless(self) -> None:
        """A body that does not end."""
        with socket.create_connection(self.address, timeout=30) as connection:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            while not self.stop.is_set():
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                self.counts["bytes of bodies without end"] += 65536

    def large(self) -> None:
        """A prompt of nearly as much as a body may be, and more than a prompt may."""
        status, _ = ask(self.url, {"prompt": "the cat " * 240_000})
        self.counts[f"large prompts, answered {status}"] += 1

    def leave(self) -> None:
        """A request for four long texts, and away at the first byte."""
        body = json.dumps({"prompt": "Once", "max_tokens": 4000, "n": 4, "stream": True}).encode()
        with socket.create_connection(self.address, timeout=30) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            connection.recv(1)
        self.counts["clients that left"] += 1


def ask(url: str, fields: dict[str, object]) -> tuple[int, str]:
    """The status of a completion, and its text."""
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(fields).encode(), kind)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)["choices"][0]["text"]
    except urllib.error.HTTPError as error:
        return error.code, ""


def held(process: int) -> list[str]:
    """Memory now and at most (MB), threads, open files."""
    status = Path(f"/proc/{process}/status").read_text()
    names = ("VmRSS", "VmHWM", "Threads")
    now, most, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in names)  # type: ignore[index]
    files = len(os.listdir(f"/proc/{process}/fd"))
    return [str(now // 1024), str(most // 1024), str(threads), str(files)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="run directory to serve")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--silent", type=int, default=1500, help="connections that send nothing")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard) if hard > 0 else 8192, hard))
    server = subprocess.Popen(
        [sys.executable, "-m", "cs336lm", "serve", str(arguments.run), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().rpartition(" at ")[2].strip()
    if not url:
        sys.exit("the server did not start")
    fair = {"prompt": "One day", "max_tokens": 20, "temperature": 0}
    expected = ask(url, fair)
    rows = [["before", *held(server.pid)]]
    attack = Attack(url)
    silent = [socket.create_connection(attack.address) for _ in range(arguments.silent)]
    rows.append([f"{arguments.silent} silent connections", *held(server.pid)])
    attack.start(attack.endless, 8)
    attack.start(attack.large, 2)
    attack.start(attack.leave, 8)
    times, end = [], time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        found = ask(url, fair)
        times.append(time.perf_counter() - began)
        if found != expected:
            sys.exit(f"a fair request got {found}, not {expected}")
    rows.append(["under attack", *held(server.pid)])
    attack.stop.set()
    for thread in attack.threads:
        thread.join()
    for connection in silent:
        connection.close()
    time.sleep(2)
    rows.append(["after", *held(server.pid)])
    with urllib.request.urlopen(f"{url}/health") as answer:
        health = json.load(answer)
    server.terminate()
    print(table(["", "MB", "at most", "threads", "files"], rows))
    print(f"\n{len(times)} fair requests, all served with the same text: ", end="")
    print(f"{statistics.median(times):.2f} s in the median, {max(times):.2f} s at most")
    print("; ".join(f"{name}: {count:,}" for name, count in sorted(attack.counts.items())))
    print(f"then: {health}; exit status {server.wait()}")


if __name__ == "__main__":
    main()
