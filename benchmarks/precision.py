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
import json
import sys
import tempfile
import time
from pathlib import Path

import cs336lm.trainer
import torch
from cs336lm.cli.main import main as cs336lm_command
from harness import machine, table

FORMATS = {
    "float32": ["--train.dtype", "float32"],
    "bfloat16": ["--train.dtype", "bfloat16"],
    "fp8": ["--train.dtype", "bfloat16", "--train.fp8"],
}
SEEDS = (1, 2)
MODEL = ["--model.d-model", "128", "--model.num-layers", "2", "--model.num-heads", "4"]


def command(*arguments: str | Path) -> None:
    """What one would type."""
    if status := cs336lm_command([str(argument) for argument in arguments]):
        sys.exit(status)


def make_data(folder: Path) -> list[str | Path]:
    """Stories as token ids; returns the flags that name them."""
    tokenizer = folder / "tokenizer"
    for part, megabytes, seed in (("train", "10", "1"), ("val", "0.25", "2")):
        text = folder / f"{part}.txt"
        command("stories", "--megabytes", megabytes, "--seed", seed, "--out", text)
        if part == "train":
            vocabulary = ("--vocab-size", "2000", "--special-token", "<|endoftext|>")
            command("train-bpe", text, *vocabulary, "--out", tokenizer)
        command("tokenize", text, "--tokenizer", tokenizer, "--out", folder / f"{part}.npy")
    named = ("--data.train", folder / "train.npy", "--data.val", folder / "val.npy")
    return [*named, "--data.tokenizer", tokenizer, "--data.batch-size", "8"]


def val_losses(run: Path) -> dict[int, float]:
    """Validation loss by step."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: r["val_loss"] for r in records if "val_loss" in r}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="draw the curves into this file")
    options = parser.parse_args()
    if options.device == "cpu":  # rounding is what is looked at, not speed
        cs336lm.trainer.require_fp8 = lambda device: None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        steps = ["--train.steps", str(options.steps), "--train.device", options.device]
        steps += ["--train.eval-every", str(max(1, options.steps // 10)), "--optim.lr", "8e-3"]
        runs = {}
        for seed in SEEDS:
            for format, flags in FORMATS.items():
                run = folder / f"{format}, seed {seed}"
                shown = (*MODEL, *steps, *flags, "--train.seed", str(seed), "--run-dir", run)
                command("train", *data, *shown)
                runs[format, seed] = run
        losses = {key: val_losses(run) for key, run in runs.items()}
        if options.out:
            command("plot", *runs.values(), "--out", options.out)
    print(f"{machine()}, torch {torch.__version__}, {options.device}; {time.strftime('%Y-%m-%d')}")
    rows = [
        [f"step {step}", *(f"{losses[key][step]:.4f}" for key in runs)]
        for step in losses["float32", SEEDS[0]]
    ]
    print(table(["validation loss", *(f"{format}, seed {seed}" for format, seed in runs)], rows))


if __name__ == "__main__":
    main()
