"""Batch sizes from one sequence to what memory holds, at equal tokens.

A batch b times as large averages away noise: its gradient is worth a larger step. How the learning
rate follows is a rule that must be stated (McCandlish et al. 2018; Malladi et al. 2022):

    sqrt      lr x sqrt(b / base): for Adam and its like, whose steps do not grow with the gradient
    linear    lr x b / base: for SGD (Goyal et al. 2017)
    none      the same learning rate for all
"""

from __future__ import annotations

from collections.abc import Callable

from cs336lm.errors import UsageError
from cs336lm.experiments.space import Overrides
from cs336lm.training.config import Config

RULES: dict[str, Callable[[float], float]] = {
    "sqrt": lambda ratio: ratio**0.5,
    "linear": lambda ratio: ratio,
    "none": lambda ratio: 1.0,
}
"""By how much the learning rates grow where the batch grows by a ratio."""

_RATES = ("lr", "min_lr", "matrix_lr", "embedding_lr", "head_lr", "scalar_lr")


def batch_size_variants(
    base: Config, tokens: int, largest: int, rule: str, smallest: int = 1
) -> list[Overrides]:
    """``smallest``, twice that ... up to ``largest`` sequences a step, each with its own rates.

    All learn from as many of ``tokens`` as whole steps of the largest batch take, so that none
    learns from more. Raises ``UsageError`` if that is not one step.
    """
    context = base.model.context_length
    sizes = [smallest]
    while sizes[-1] * 2 <= largest:
        sizes.append(sizes[-1] * 2)
    budget = tokens // (sizes[-1] * context) * sizes[-1] * context
    if budget == 0:
        raise UsageError(
            f"{tokens:,} tokens are less than a step of {sizes[-1]:,} sequences of {context:,}: "
            "raise --tokens or lower --largest"
        )
    return [_variant(base, size, budget, RULES[rule]) for size in sizes]


def _variant(base: Config, size: int, budget: int, grows: Callable[[float], float]) -> Overrides:
    factor = grows(size / base.data.batch_size)
    rates = {
        f"optim.{name}": getattr(base.optim, name) * factor
        for name in _RATES
        if getattr(base.optim, name, None) is not None
    }
    # Warm-up is left open: it then is the same share of every run.
    return {
        "data.batch_size": size,
        "train.steps": None,
        "train.max_tokens": budget,
        "train.grad_accumulation": 1,
        "optim.warmup_steps": None,
        **rates,
    }
