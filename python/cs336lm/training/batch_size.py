"""The largest batch that a device can hold at once, by trying.

On a GPU real training steps of growing size run until memory is out; then bisection. A CPU gives no
such answer before the whole machine suffers, so there a few small steps show how much memory a
sequence takes, and the rest is arithmetic.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from cs336lm.training.trainer import Trainer

_LARGEST = 1 << 16
_ENOUGH_GROWTH = 256 << 20  # bytes between two trials that make noise small
_CPU_SHARE = 0.9  # of the free memory; the rest is for what else the machine does


@dataclass(frozen=True)
class LargestBatch:
    """The answer: ``sequences`` of the model's context length fit at once."""

    sequences: int
    is_estimate: bool

    def rounds_for(self, share: int) -> int:
        """The fewest equal rounds in which a batch of ``share`` sequences fits."""
        return next(
            r for r in range(1, share + 1) if share % r == 0 and share // r <= self.sequences
        )


def find_batch_size(trainer: Trainer) -> LargestBatch:
    """Trains a few steps on made-up tokens; the trainer's weights are of no use afterwards.

    Raises ``ValueError`` if not even one sequence fits.
    """
    if trainer.device.type == "cuda":
        largest = largest_that(lambda batch: _fits_on_cuda(trainer, batch), _LARGEST)
        found = LargestBatch(largest, is_estimate=False)
    else:
        found = LargestBatch(_estimate_on_cpu(trainer), is_estimate=True)
    if found.sequences < 1:
        context = trainer.config.model.context_length
        raise ValueError(
            f"not even one sequence of {context} tokens fits on {trainer.device}; a smaller model, "
            "a shorter --model.context-length or --train.activation-checkpointing may help"
        )
    return found


def largest_that(fits: Callable[[int], bool], limit: int) -> int:
    """The largest size up to ``limit`` that fits, to an eighth of itself; 0 if not even 1 does.

    ``fits`` must not become true again once it is false.
    """
    size, too_large = 0, limit + 1
    while size < limit:
        larger = min(max(1, 2 * size), limit)
        if not fits(larger):
            too_large = larger
            break
        size = larger
    while too_large - size > max(1, size // 8):
        middle = (size + too_large) // 2
        if fits(middle):
            size = middle
        else:
            too_large = middle
    return size


def _train_two_steps(trainer: Trainer, batch: int) -> None:
    """On made-up tokens; the first step also makes the optimizer's state."""
    shape = (2, batch, trainer.config.model.context_length)
    for _ in range(2):
        x, y = torch.zeros(shape, dtype=torch.int64, device=trainer.device)
        trainer.update(x, y, rounds=1)


def _fits_on_cuda(trainer: Trainer, batch: int) -> bool:
    try:
        _train_two_steps(trainer, batch)
        torch.cuda.synchronize(trainer.device)
        return True
    except torch.OutOfMemoryError:
        trainer.optimizer.zero_grad(set_to_none=True)
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def _estimate_on_cpu(trainer: Trainer) -> int:
    _train_two_steps(trainer, 1)
    batch, before = 1, _peak_growth(partial(_train_two_steps, trainer, 1))
    while True:
        batch *= 2
        growth = _peak_growth(partial(_train_two_steps, trainer, batch))
        if growth - before > _ENOUGH_GROWTH or batch >= _LARGEST:
            break
        before = growth
    a_sequence = max(1.0, (growth - before) / (batch / 2))
    return int(_free_memory() * _CPU_SHARE / a_sequence)


def _peak_growth(work: Callable[[], None]) -> int:
    """Bytes by which this process's resident memory rises at most during ``work``."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
        before = _kilobytes("/proc/self/status", "VmRSS")
        work()
        return 1024 * (_kilobytes("/proc/self/status", "VmHWM") - before)
    except OSError:
        raise ValueError("--find-batch-size needs a CUDA device, or Linux on a CPU") from None


def _free_memory() -> int:
    """Bytes that the machine, or the container, can still give."""
    free = 1024 * _kilobytes("/proc/meminfo", "MemAvailable")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def _kilobytes(file: str, field: str) -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"{file} does not contain {field}")
