"""Learning rates over time: pure functions of the iteration, listed in one table.

All share the warm-up and the signature of the assignment's cosine schedule,
``(it, max_learning_rate, min_learning_rate, warmup_iters, cosine_cycle_iters)``: from 0 up to the
maximum in ``warmup_iters`` steps, down to the minimum at ``cosine_cycle_iters``, and the minimum
from there on.
"""

import math
from collections.abc import Callable

WSD_DECAY_SHARE = 0.2  # Hägele et al. 2024: a cooldown of a fifth does as well as a cosine


def lr_cosine_schedule(
    it: int,
    max_learning_rate: float,
    min_learning_rate: float,
    warmup_iters: int,
    cosine_cycle_iters: int,
) -> float:
    """Half a cosine wave after the warm-up (Loshchilov and Hutter 2016; Touvron et al. 2023)."""
    return _warm_up_then(
        lambda progress: (1 + math.cos(math.pi * progress)) / 2,
        it,
        max_learning_rate,
        min_learning_rate,
        warmup_iters,
        cosine_cycle_iters,
    )


def lr_linear_schedule(
    it: int,
    max_learning_rate: float,
    min_learning_rate: float,
    warmup_iters: int,
    cosine_cycle_iters: int,
) -> float:
    """A straight line from the maximum to the minimum after the warm-up."""
    return _warm_up_then(
        lambda progress: 1 - progress,
        it,
        max_learning_rate,
        min_learning_rate,
        warmup_iters,
        cosine_cycle_iters,
    )


def lr_wsd_schedule(
    it: int,
    max_learning_rate: float,
    min_learning_rate: float,
    warmup_iters: int,
    cosine_cycle_iters: int,
) -> float:
    """Warm-up, stable, decay: the maximum until the last fifth, then a line to the minimum.

    (Hu et al. 2024, "MiniCPM", section 4.) A run can be prolonged from before its decay.
    """
    return _warm_up_then(
        lambda progress: min(1.0, (1 - progress) / WSD_DECAY_SHARE),
        it,
        max_learning_rate,
        min_learning_rate,
        warmup_iters,
        cosine_cycle_iters,
    )


def lr_constant_schedule(
    it: int,
    max_learning_rate: float,
    min_learning_rate: float,
    warmup_iters: int,
    cosine_cycle_iters: int,
) -> float:
    """The maximum for ever, after the warm-up; the last two arguments mean nothing here."""
    return max_learning_rate * min(1.0, it / warmup_iters if warmup_iters else 1.0)


def _warm_up_then(
    shape: Callable[[float], float],
    it: int,
    max_learning_rate: float,
    min_learning_rate: float,
    warmup_iters: int,
    cosine_cycle_iters: int,
) -> float:
    """The common frame; ``shape`` falls from 1 to 0 as the progress goes from 0 to 1."""
    if it < warmup_iters:
        return max_learning_rate * it / warmup_iters
    if it > cosine_cycle_iters:
        return min_learning_rate
    # A cycle that ends where the warm-up does has one iteration, at the maximum.
    length = max(1, cosine_cycle_iters - warmup_iters)
    height = shape((it - warmup_iters) / length)
    return min_learning_rate + height * (max_learning_rate - min_learning_rate)


Schedule = Callable[[int, float, float, int, int], float]

SCHEDULES: dict[str, Schedule] = {
    "cosine": lr_cosine_schedule,
    "linear": lr_linear_schedule,
    "wsd": lr_wsd_schedule,
    "constant": lr_constant_schedule,
}
