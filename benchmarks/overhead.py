"""How much of a training step is not the model: data, logging, checkpoints.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --device cuda --compile

Trains the model of training_step.py as `cs336lm train` does, with a line of metrics every step and
a checkpoint every fourth, and with the defaults. The clock runs from the start of one step to the
start of the next; what lies between the end of the model's work (forward, backward, clipping,
optimizer) and the next start is everything else. The first steps are left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import torch
from cs336lm.training.config import TrainConfig
from cs336lm.training.device_events import DeviceEvent
from cs336lm.training.devices import choose_device, keep_freed_memory
from harness import machine, table
from steps import random_trainer
from torch import Tensor
from training_step import BATCH, SHAPE

STEPS, WARM_UP = 32, 4


def measure(device: str, **train: Any) -> tuple[float, float]:
    """Seconds a step, and those of them outside the model."""
    spans: list[tuple[DeviceEvent, DeviceEvent]] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = random_trainer(SHAPE, BATCH, Path(folder), device=device, steps=STEPS, **train)
        update = trainer.update

        def timed(*batch: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
            began = DeviceEvent(trainer.device)
            result = update(*batch, rounds=rounds)
            spans.append((began, DeviceEvent(trainer.device)))
            return result

        trainer.update = timed  # type: ignore[method-assign]
        trainer.train()
    spans = spans[WARM_UP:]
    spans[-1][1].wait()
    steps = len(spans) - 1
    whole = spans[-1][0].seconds_since(spans[0][0])
    inside = sum(end.seconds_since(began) for began, end in spans[:-1])
    return whole / steps, (whole - inside) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if choose_device(options.device).type == "cpu":
        keep_freed_memory()
    rows = []
    for name, train in (
        ("metrics every step, a checkpoint every 4", {"log_every": 1, "checkpoint_every": 4}),
        (f"defaults (metrics every {TrainConfig().log_every})", {}),
    ):
        whole, outside = measure(options.device, compile=options.compile, **train)
        rows.append([name, f"{whole * 1e3:.1f} ms", f"{outside / whole:.2%}"])
    print(f"{machine()}, torch {torch.__version__}, {options.device}; {time.strftime('%Y-%m-%d')}")
    print(table(["", "step", "outside the model"], rows))


if __name__ == "__main__":
    main()
