"""A step of training as `cs336lm train` takes it, and as transformers' users write it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from cs336lm.model import ModelConfig
from cs336lm.training.config import Config, DataConfig, TrainConfig
from cs336lm.training.trainer import Trainer
from harness import random_tokens
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
"""x and y, both (batch, context), to the loss."""


def random_trainer(config: ModelConfig, batch: int, folder: Path, **train: Any) -> Trainer:
    """The trainer of `cs336lm train` on random tokens, which it keeps in ``folder``."""
    assert config.vocab_size is not None
    random_tokens(folder / "train.npy", 64 * config.context_length, config.vocab_size)
    data = DataConfig(folder / "train.npy", batch_size=batch)
    return Trainer(Config(data=data, model=config, train=TrainConfig(**train)), folder / "run")


def fp8_on_cpu(device: torch.device) -> AbstractContextManager[object]:
    """Around making a trainer: lets a CPU have eight bits, which it computes right but slowly."""
    return patch("cs336lm.training.setup.require_fp8") if device.type == "cpu" else nullcontext()


def our_step(trainer: Trainer) -> Step:
    """What the training loop calls."""
    return lambda x, y: trainer.update(x, y, rounds=1)[0]


def their_step(llama: Any, dtype: torch.dtype, *, compiled: bool) -> Step:
    """The usual loop, with what PyTorch has that is fastest."""
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
