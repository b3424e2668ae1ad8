"""Learning rates over time: pure functions of the iteration, listed in one table.

All share the warm-up and the signature of the assignment's cosine schedule: from 0 up to the
maximum in ``warmup_iters`` steps, down to the minimum at ``cosine_cycle_iters``, and the minimum
from there on. What is written here of each is the shape of its way down. Two know no end:
``constant`` and ``inverse-sqrt``. Time may be counted in anything: iterations, or seconds.
"""

import math
from collections.abc import Callable
from typing import Protocol

WSD_DECAY_SHARE = 0.2  # Hägele et al. 2024: a cooldown of a fifth does as well as a cosine


class Schedule(Protocol):
    """The learning rate of an iteration."""

    def __call__(
        self,
        it: float,
        max_learning_rate: float,
        min_learning_rate: float,
        warmup_iters: float,
        cosine_cycle_iters: float,
    ) -> float:
        """Iterations count from 0; the learning rates are those of the optimizer."""


def after_warm_up(shape: Callable[[float], float]) -> Schedule:
    """The schedule whose height falls as ``shape`` does, from 1 to 0 while progress goes 0 to 1."""

    def schedule(
        it: float,
        max_learning_rate: float,
        min_learning_rate: float,
        warmup_iters: float,
        cosine_cycle_iters: float,
    ) -> float:
        if it < warmup_iters:
            return max_learning_rate * it / warmup_iters
        if it > cosine_cycle_iters:
            return min_learning_rate
        # A cycle that ends where the warm-up does has one iteration, at the maximum.
        length = cosine_cycle_iters - warmup_iters or 1
        height = shape((it - warmup_iters) / length)
        return min_learning_rate + height * (max_learning_rate - min_learning_rate)

    schedule.__name__ = schedule.__qualname__ = shape.__name__
    schedule.__doc__ = shape.__doc__
    return schedule


@after_warm_up
def lr_cosine_schedule(progress: float) -> float:
    """Half a cosine wave after the warm-up (Loshchilov and Hutter 2016; Touvron et al. 2023).

    Examples:
        Up in 10 iterations, half-way down at 60, at the minimum from 110 on:

        >>> [lr_cosine_schedule(it, 1.0, 0.0, 10, 110) for it in (0, 5, 10, 110, 200)]
        [0.0, 0.5, 1.0, 0.0, 0.0]
        >>> round(lr_cosine_schedule(60, 1.0, 0.0, 10, 110), 6)
        0.5
    """
    return (1 + math.cos(math.pi * progress)) / 2


@after_warm_up
def lr_linear_schedule(progress: float) -> float:
    """A straight line from the maximum to the minimum after the warm-up."""
    return 1 - progress


def wsd_schedule(decay_share: float) -> Schedule:
    """Warm-up, stable, decay: the maximum until the last ``decay_share`` of the way, then a line.

    (Hu et al. 2024, "MiniCPM", section 4.) A run can be prolonged from before its decay. The whole
    way, 1, is the linear schedule.
    """

    @after_warm_up
    def lr_wsd_schedule(progress: float) -> float:
        """Warm-up, stable, decay (Hu et al. 2024); ``wsd_schedule`` makes others."""
        return min(1.0, (1 - progress) / decay_share)

    return lr_wsd_schedule


lr_wsd_schedule = wsd_schedule(WSD_DECAY_SHARE)


def lr_inverse_sqrt_schedule(
    it: float,
    max_learning_rate: float,
    min_learning_rate: float,
    warmup_iters: float,
    cosine_cycle_iters: float,
) -> float:
    """The maximum times sqrt(warmup / it) after the warm-up (Vaswani et al. 2017, section 5.3).

    It knows no end, so a run may be prolonged at any time: the minimum is a floor, and the last
    argument means nothing here. Without a warm-up it falls from iteration 1 on.
    """
    if it < warmup_iters:
        return max_learning_rate * it / warmup_iters
    start = warmup_iters or 1
    return max(min_learning_rate, max_learning_rate * math.sqrt(start / max(it, start)))


def lr_constant_schedule(
    it: float,
    max_learning_rate: float,
    min_learning_rate: float,
    warmup_iters: float,
    cosine_cycle_iters: float,
) -> float:
    """The maximum for ever, after the warm-up; the last two arguments mean nothing here."""
    return max_learning_rate * min(1.0, it / warmup_iters if warmup_iters else 1.0)


SCHEDULES: dict[str, Schedule] = {
    "cosine": lr_cosine_schedule,
    "linear": lr_linear_schedule,
    "wsd": lr_wsd_schedule,
    "inverse-sqrt": lr_inverse_sqrt_schedule,
    "constant": lr_constant_schedule,
}


def build_schedule(name: str, *, decay_share: float = WSD_DECAY_SHARE) -> Schedule:
    """The schedule of that name; ``decay_share`` is of ``wsd`` alone."""
    return wsd_schedule(decay_share) if name == "wsd" else SCHEDULES[name]
