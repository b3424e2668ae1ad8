"""A run small enough for a test: data with something to learn, a model of few weights."""

from pathlib import Path

import numpy as np
import torch
from cs336lm.model.config import ModelConfig
from cs336lm.training.config import Config, DataConfig, OptimConfig, TrainConfig
from cs336lm.training.trackers.jsonl import read_metrics

torch.set_num_threads(1)  # what is this small only suffers from more

VOCAB_SIZE = 40
CONTEXT_LENGTH = 8
MODEL = ModelConfig(
    context_length=CONTEXT_LENGTH, d_model=16, num_layers=1, num_heads=2, vocab_size=VOCAB_SIZE
)


def write_tokens(path: Path, count: int, seed: int = 0) -> Path:
    """A walk over the ids in steps of 0, 1 or 2: the next id has log 3 nats of entropy."""
    walk = np.random.default_rng(seed).integers(0, 3, count).cumsum() % VOCAB_SIZE
    np.save(path, walk.astype(np.uint16))
    return path


def make_config(folder: Path, *, optim=None, model=MODEL, batch_size=8, **train) -> Config:
    for name, count in (("train.npy", 2000), ("val.npy", 300)):
        if not (folder / name).exists():
            write_tokens(folder / name, count, seed=count)
    return Config(
        data=DataConfig(folder / "train.npy", folder / "val.npy", batch_size=batch_size),
        model=model,
        optim=optim or OptimConfig(lr=1e-2),
        train=TrainConfig(
            **{"steps": 12, "log_every": 1, "eval_every": 5, "checkpoint_every": 4} | train,
            device="cpu",
        ),
    )


def curve(run_dir: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    timed = ("seconds", "tokens_per_second")
    return [
        {name: value for name, value in record.items() if name not in timed}
        for record in read_metrics(run_dir / "metrics.jsonl")
    ]
