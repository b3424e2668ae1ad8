"""A server under load: many clients at once, each with one streamed request after the other.

    python benchmarks/serving_load.py
    python benchmarks/serving_load.py --run runs/a --clients 64 --requests 4 --new-tokens 128
    python benchmarks/serving_load.py --url http://127.0.0.1:8000      # one that is running already

Without ``--run`` or ``--url`` it makes a model of random weights and serves it in a process of its
own; the clients share this one, so on few cores they are part of what is measured. Prompts are ids
of mixed lengths; ends of texts are ignored, so that every answer has all its tokens. A first round
is not counted. First-token times run from the request to its first chunk, per-token times from one
chunk to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness import machine, table


@dataclass
class Times:
    """What the clients saw, in seconds."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: int = 0


async def request(host: str, port: int, body: bytes, times: Times) -> None:
    """One streamed completion over a connection of its own."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    before = time.perf_counter()
    writer.write(head.encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        sys.exit(f"the server answers {status.decode().strip()}: {(await reader.read()).decode()}")
    is_first, is_whole = True, False
    async for line in reader:
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            is_whole = True
            break
        chunk = json.loads(line[6:])
        if not chunk["choices"]:
            times.tokens += chunk["usage"]["completion_tokens"]
            continue
        now = time.perf_counter()
        (times.first if is_first else times.between).append(now - before)
        is_first, before = False, now
    writer.close()
    if not is_whole:
        sys.exit("an answer ended early")


async def visit(host: str, port: int, bodies: list[bytes], times: Times) -> None:
    """One client: its requests one after the other."""
    for body in bodies:
        await request(host, port, body, times)


async def measure(url: str, requests: list[list[bytes]]) -> tuple[Times, float]:
    """All clients at once, each with its own requests; the times, and how long it took."""
    host, port = url.removeprefix("http://").split(":")
    times = Times()
    began = time.perf_counter()
    await asyncio.gather(*(visit(host, int(port), bodies, times) for bodies in requests))
    return times, time.perf_counter() - began


def make_requests(arguments: argparse.Namespace, vocab_size: int) -> list[list[bytes]]:
    """For each client its bodies: prompts from a quarter to seven quarters of the mean length."""
    draw = random.Random(arguments.seed)

    def body() -> bytes:
        mean = arguments.prompt_tokens
        length = draw.randint(max(1, mean // 4), mean * 7 // 4)
        fields = {
            "prompt": [draw.randrange(vocab_size) for _ in range(length)],
            "max_tokens": arguments.new_tokens,
            "seed": draw.randrange(1 << 30),
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return json.dumps(fields).encode()

    return [[body() for _ in range(arguments.requests)] for _ in range(arguments.clients)]


def make_run(folder: Path, arguments: argparse.Namespace) -> Path:
    """A run of random weights and a tokenizer of bytes alone."""
    import torch
    from cs336lm import ModelConfig, Tokenizer, TransformerLM
    from cs336lm.optim import SGD
    from cs336lm.training.checkpoints.state import pack
    from cs336lm.training.config import Config
    from cs336lm.training.run_directory import RunDirectory

    torch.manual_seed(0)
    vocab = {i: bytes([i]) for i in range(256)}
    shape = ModelConfig(
        vocab_size=257,
        context_length=arguments.context,
        d_model=arguments.d_model,
        num_layers=arguments.layers,
        num_heads=arguments.heads,
    )
    model = TransformerLM(shape)
    run = RunDirectory(folder / "random")
    run.prepare(Config(model=model.config), Tokenizer(vocab, [], ["<|endoftext|>"]))
    run.write_checkpoint(pack(model, SGD(model.parameters(), lr=0.1), 1))
    return run.path


@contextlib.contextmanager
def served(arguments: argparse.Namespace) -> Iterator[str]:
    """The address of the server that is asked."""
    if arguments.url is not None:
        yield arguments.url.rstrip("/")
        return
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or make_run(Path(folder), arguments)
        options = ["--port", "0", "--max-sequences", str(arguments.clients), "--max-queue", "1000"]
        options += ["--device", arguments.device]
        options += ["--compile"] if arguments.compile else []
        server = subprocess.Popen(
            [sys.executable, "-m", "cs336lm", "serve", str(run), *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            greeting = server.stdout.readline()
            if " at " not in greeting:
                sys.exit("the server did not start")
            yield greeting.rpartition(" at ")[2].strip()
        finally:
            server.terminate()
            server.wait()


def quantiles(seconds: list[float]) -> list[str]:
    """p50 and p95 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return [f"{1000 * cuts[9]:.1f}", f"{1000 * cuts[18]:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--run", type=Path, help="run directory to serve (default: random weights)")
    add("--url", help="a server that is running already")
    add("--clients", type=int, default=64)
    add("--requests", type=int, default=4, help="of each client")
    add("--prompt-tokens", type=int, default=64, help="on average")
    add("--new-tokens", type=int, default=64)
    add("--device", default="auto")
    add("--compile", action="store_true")
    add("--seed", type=int, default=0)
    add("--context", type=int, default=256, help="of the random model, as what follows")
    add("--d-model", type=int, default=256)
    add("--layers", type=int, default=4)
    add("--heads", type=int, default=4)
    arguments = parser.parse_args()
    with served(arguments) as url:
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            model = json.load(answer)["data"][0]["id"]
        # Ids of the 256 bytes are in every tokenizer of this package.
        requests = make_requests(arguments, 256)
        asyncio.run(measure(url, [bodies[:1] for bodies in requests]))
        times, seconds = asyncio.run(measure(url, requests))
    expected = arguments.clients * arguments.requests * arguments.new_tokens
    if times.tokens != expected:
        sys.exit(f"{times.tokens} tokens came, not {expected}")
    print(machine())
    print(
        f"{model}: {arguments.clients} clients, {arguments.requests} requests each, prompts of "
        f"{arguments.prompt_tokens} tokens on average, {arguments.new_tokens} new ones\n"
    )
    row = [f"{times.tokens / seconds:.0f}", f"{len(times.first) / seconds:.1f}"]
    row += quantiles(times.first) + quantiles(times.between)
    heads = ["tokens/s", "requests/s", "first token p50, ms", "p95", "per token p50, ms", "p95"]
    print(table(heads, [row]))


if __name__ == "__main__":
    main()
