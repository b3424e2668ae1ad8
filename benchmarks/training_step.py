"""A step of training beside transformers: tokens a second of both, eager and compiled.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --steps 20 --only compiled --dtype bfloat16

Both train a Llama of 5.3 million parameters on the CPU: forward, backward, clipping of the
gradient's norm, AdamW. On transformers' side stand its best settings: SDPA, torch.compile,
torch.optim.AdamW(fused=True); with --dtype bfloat16, autocast on both. First it is checked that
both compute the same loss from the same weights, in float32. Each contestant is a process; they
take turns, step by step, so that what disturbs the machine disturbs all of them, and the median
counts.

`cs336lm train` on a CPU keeps the memory that a step frees for the next one, which transformers
leaves to its user to arrange. `kept` among the contestants is transformers with that arranged, too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from cs336lm.cli.options import spin_briefly
from cs336lm.model import ModelConfig
from cs336lm.training.devices import keep_freed_memory
from harness import machine, named, peak_megabytes, table
from llama import loss_of, twin
from steps import Step, our_step, random_trainer, their_step

SHAPE = ModelConfig(
    vocab_size=4096, context_length=256, d_model=256, num_layers=4, num_heads=8, d_ff=704
)
BATCH = 16
WARM_UP = 3
CONTESTANTS = ("cs336lm", "transformers", "transformers kept")


def contestant(name: str, way: str, dtype: str) -> None:
    """Prints the loss of the first weights, then the seconds of a step for every line it reads."""
    compiled = way == "compiled"
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours = random_trainer(
            SHAPE, BATCH, Path(folder), device="cpu", compile=compiled, dtype=dtype
        )
        torch.manual_seed(1)
        x, y = torch.randint(0, SHAPE.vocab_size, (2, BATCH, SHAPE.context_length))
        step: Step
        if name == "cs336lm":
            keep_freed_memory()
            print(loss_of(ours.model, x, y), flush=True)
            step = our_step(ours)
        else:
            if name.endswith("kept"):
                keep_freed_memory()
            llama = twin(ours.model)
            del ours
            print(loss_of(llama, x, y), flush=True)
            step = their_step(llama, getattr(torch, dtype), compiled=compiled)
    for _ in range(WARM_UP):
        step(x, y)
    for line in sys.stdin:
        if not line.strip():
            break
        began = time.perf_counter()
        step(x, y)
        print(time.perf_counter() - began, flush=True)
    print(peak_megabytes(), flush=True)


class Process:
    """A contestant in a process of its own, which takes a step when asked."""

    def __init__(self, name: str, way: str, dtype: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--contestant", name, "--only", way, "--dtype", dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.loss = self._read()
        self.seconds: list[float] = []
        self.peak_megabytes = 0.0

    def _read(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(self._process.wait() or 1)
        return float(line)

    def step(self) -> None:
        self._write("step\n")
        self.seconds.append(self._read())

    def close(self) -> None:
        self._write("\n")
        self.peak_megabytes = self._read()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()


def check_equal(processes: dict[str, Process]) -> None:
    losses = {name: process.loss for name, process in processes.items()}
    if max(losses.values()) - min(losses.values()) > 1e-5 * max(losses.values()):
        sys.exit(f"the models differ: {losses}")
    print(f"same weights, same batch, same loss: {max(losses.values()):.5f}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10, help="steps of each (default: 10)")
    parser.add_argument("--only", choices=("eager", "compiled"), help="default: both")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        contestant(arguments.contestant, arguments.only, arguments.dtype)
        return
    spin_briefly()  # as the commands do; for the processes to come
    ways = [arguments.only] if arguments.only else ["eager", "compiled"]
    processes = {
        f"{name}, {way}": Process(name, way, arguments.dtype)
        for way in ways
        for name in CONTESTANTS
    }
    check_equal(processes)
    for _ in range(arguments.steps):
        for process in processes.values():
            process.step()
    for process in processes.values():
        process.close()
    print(
        f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"{named('cs336lm')}, {named('transformers')}; {arguments.dtype}; "
        f"{time.strftime('%Y-%m-%d')}"
    )
    rows = []
    for name, process in processes.items():
        median = statistics.median(process.seconds)
        theirs = statistics.median(processes[f"transformers, {name.split(', ')[1]}"].seconds)
        rows.append(
            [
                name,
                f"{median * 1e3:.0f} ms",
                f"{min(process.seconds) * 1e3:.0f} ms",
                f"{BATCH * SHAPE.context_length / median:,.0f}",
                f"{theirs / median:.2f} x",
                f"{process.peak_megabytes:,.0f} MB",
            ]
        )
    head = ["step", "median", "least", "tokens/s", "to transformers", "peak memory"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
