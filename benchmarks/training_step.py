"""A step of training beside transformers: tokens a second of both, eager and compiled.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --steps 20 --only compiled

Both train a Llama of 5.3 million parameters on the CPU in float32: forward, backward, clipping of
the gradient's norm, AdamW. On transformers' side stand its best settings: SDPA, torch.compile,
torch.optim.AdamW(fused=True). First it is checked that both compute the same loss from the same
weights. Then they take turns, step by step, so that what disturbs the machine disturbs all of them;
the median counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cs336lm.config import Config, DataConfig, TrainConfig
from cs336lm.model import ModelConfig
from cs336lm.trainer import Trainer
from harness import machine, named, table
from llama import check_same_loss, twin
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]

SHAPE = ModelConfig(
    vocab_size=4096, context_length=256, d_model=256, num_layers=4, num_heads=8, d_ff=704
)
BATCH = 16
WAYS = {"eager": False, "compiled": True}


def trainer(config: ModelConfig, batch: int, folder: Path, **train: object) -> Trainer:
    """Our side, as `cs336lm train` would set it up, on random tokens."""
    assert config.vocab_size is not None
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 64 * config.context_length)
    np.save(folder / "train.npy", tokens.astype(np.uint16))
    data = DataConfig(folder / "train.npy", batch_size=batch)
    return Trainer(
        Config(data=data, model=config, train=TrainConfig(**train)),  # type: ignore[arg-type]
        folder / "run",
    )


def our_step(trainer: Trainer) -> Step:
    """What the training loop calls."""
    return lambda x, y: trainer.update(x, y, rounds=1)[0]


def their_step(llama: torch.nn.Module, dtype: torch.dtype, *, compiled: bool) -> Step:
    """The loop that transformers' users write, with what PyTorch has that is fastest."""
    parameters = list(llama.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    forward = torch.compile(llama) if compiled else llama
    device = parameters[0].device.type

    def step(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss: Tensor = forward(input_ids=x, labels=y, shift_labels=y, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def race(steps: dict[str, Step], x: Tensor, y: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, all contestants in turn, after three steps each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 3):
        for name, step in steps.items():
            began = time.perf_counter()
            step(x, y)
            if number >= 3:
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10, help="steps of each (default: 10)")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"sequences (default: {BATCH})")
    parser.add_argument("--only", choices=tuple(WAYS), help="eager or compiled (default: both)")
    arguments = parser.parse_args()

    ways = [arguments.only] if arguments.only else list(WAYS)
    x, y = torch.randint(0, SHAPE.vocab_size, (2, arguments.batch, SHAPE.context_length))
    steps: dict[str, Step] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            ours = trainer(
                SHAPE, arguments.batch, Path(folder), device="cpu", compile=WAYS[way]
            )
            llama = twin(ours.model)
            print(check_same_loss(ours.model, llama, x, y), file=sys.stderr)
            steps[f"cs336lm, {way}"] = our_step(ours)
            steps[f"transformers, {way}"] = their_step(llama, torch.float32, compiled=WAYS[way])
        times = race(steps, x, y, arguments.steps)
    print(
        f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"{named('cs336lm')}, {named('transformers')}; {time.strftime('%Y-%m-%d')}"
    )
    rows = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        theirs = statistics.median(times[f"transformers, {name.split(', ')[1]}"])
        rows.append(
            [
                name,
                f"{median * 1e3:.0f} ms",
                f"{min(seconds) * 1e3:.0f} ms",
                f"{x.numel() / median:,.0f}",
                f"{theirs / median:.2f} x",
            ]
        )
    print(table(["step", "median", "least", "tokens/s", "to transformers"], rows))


if __name__ == "__main__":
    main()
