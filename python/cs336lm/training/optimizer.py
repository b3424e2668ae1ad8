"""The optimizer of a configuration."""

from __future__ import annotations

import torch

from cs336lm.optim.optimizers import SGD, AdaGrad, AdamW
from cs336lm.training.config import OptimConfig


def build_optimizer(model: torch.nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer that ``[optim]`` names. Weight decay is for matrices, not for gains."""
    parameters = list(model.parameters())
    if config.name == "sgd":
        return SGD(parameters, lr=config.lr)
    if config.name == "adagrad":
        return AdaGrad(parameters, lr=config.lr, eps=config.eps)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
