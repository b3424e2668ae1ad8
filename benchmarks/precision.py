"""Do fewer bits learn as much? Losses in float32, in bfloat16 and in eight bits on the same data.

    python benchmarks/precision.py
    python benchmarks/precision.py --steps 2000 --device cuda --out curves.png

Trains the demo's model on the built-in stories once per format and seed; runs of one seed have the
same first weights and the same batches. What the formats differ by is to be read beside what the
seeds differ by. `fp8` is bfloat16 with the blocks' products in eight bits. On a CPU, which has
none, PyTorch computes them with the same rounding: the losses can be trusted, the times not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from cs336lm.cli.demo import SIZES
from cs336lm.cli.main import main as cs336lm
from cs336lm.experiments.plots import read_curve
from cs336lm.training.devices import choose_device
from harness import machine, table
from steps import fp8_on_cpu

FORMATS = {
    "float32": ["--train.dtype", "float32"],
    "bfloat16": ["--train.dtype", "bfloat16"],
    "fp8": ["--train.dtype", "bfloat16", "--train.fp8"],
}
SEEDS = (1, 2)
DEMO = SIZES["small"]


def command(*arguments: str | Path) -> None:
    """What one would type."""
    if status := cs336lm([str(argument) for argument in arguments]):
        sys.exit(status)


def prepare(folder: Path) -> Path:
    """What the demo trains from: stories as token ids. Returns its configuration."""
    text, val_text, tokenizer = folder / "train.txt", folder / "val.txt", folder / "tokenizer"
    command("stories", "--megabytes", f"{DEMO.megabytes:g}", "--seed", "1", "--out", text)
    command("stories", "--megabytes", f"{DEMO.val_megabytes:g}", "--seed", "2", "--out", val_text)
    vocabulary = ("--vocab-size", str(DEMO.vocab_size), "--special-token", "<|endoftext|>")
    command("train-bpe", text, *vocabulary, "--out", tokenizer)
    command("tokenize", text, "--tokenizer", tokenizer, "--out", folder / "train.npy")
    command("tokenize", val_text, "--tokenizer", tokenizer, "--out", folder / "val.npy")
    config = folder / "run.toml"
    config.write_text(DEMO.config)
    return config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="draw the curves into this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, fp8_on_cpu(choose_device(options.device)):
        folder = Path(name)
        shared = ["--config", prepare(folder), "--train.steps", str(options.steps)]
        shared += ["--train.device", options.device, "--train.eval-batches", "20"]
        shared += ["--train.eval-every", str(max(1, options.steps // 10))]
        runs = {}
        for seed in SEEDS:
            for format, flags in FORMATS.items():
                run = folder / f"{format}, seed {seed}"
                command("train", *shared, *flags, "--train.seed", str(seed), "--run-dir", run)
                runs[format, seed] = run
        losses = [read_curve(run).val for run in runs.values()]
        if options.out:
            command("plot", *runs.values(), "--out", options.out)
    print(f"{machine()}, torch {torch.__version__}, {options.device}; {time.strftime('%Y-%m-%d')}")
    by_step = zip(losses[0].steps, *(val.losses for val in losses), strict=True)
    rows = [[f"step {step}", *(f"{loss:.4f}" for loss in found)] for step, *found in by_step]
    print(table(["validation loss", *(f"{format}, seed {seed}" for format, seed in runs)], rows))


if __name__ == "__main__":
    main()
