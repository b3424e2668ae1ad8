"""The training loop, top to bottom.

    a step:        batch(seed, step) -> loss -> gradients (in rounds) -> clip -> optimizer, at the
                   learning rate of its share of the budget
    now and then:  a line of metrics, a validation, a checkpoint (the callbacks)

A step is a pure function of the weights, the optimizer's state, the step's number and the
configuration, and a checkpoint holds the first three: a run that was killed and resumed computes
what it would have computed, bit for bit on the CPU. (Where time is the budget, the learning rate
depends on the clock as well.) Steps count from 1; the record of step s holds the loss of the batch
that step s learned from, and the validation loss after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from torch import Tensor
from torch.profiler import record_function

from cs336lm.data import BatchLoader
from cs336lm.training.callbacks import Callback, StepResult, is_due
from cs336lm.training.distributed import StopVote
from cs336lm.training.learning_rate import StepSettings
from cs336lm.training.profiling import StepProfiler
from cs336lm.training.setup import Setup

Update = Callable[..., tuple[Tensor, Tensor]]
"""``update(x, y, rounds=...)`` -> loss and gradient norm: one optimizer step."""


def run_steps(
    setup: Setup,
    update: Update,
    callbacks: Sequence[Callback],
    stop: StopVote,
    profiler: StepProfiler | None = None,
) -> None:
    """Takes the steps that are left, or those until ``stop`` says so."""
    progress, train = setup.progress, setup.config.train
    settings = StepSettings(setup.config, setup.optimizer)
    progress.start_clock()
    for callback in callbacks:
        callback.before_training()
    for step, x, y in _batches(setup):
        place = setup.budget.place(step)
        lr = settings.apply(step, place)
        for callback in callbacks:
            callback.before_step(step, x, y)
        loss, norm = update(x, y, rounds=train.grad_accumulation)
        progress.step, progress.tokens = step, progress.tokens + setup.tokens_per_step
        progress.read_clock()
        stopping = stop.poll(due=is_due(step, train.log_every))
        with record_function("report"):
            result = StepResult(
                step, lr, loss, norm, setup.world, is_final=place.is_last, is_stopping=stopping
            )
            for callback in callbacks:
                callback.after_step(result)
        if profiler is not None:
            profiler.step()
        if place.is_last or result.is_stopping:
            break
    if profiler is not None:
        profiler.close()
    for callback in callbacks:
        callback.after_training()


def _batches(setup: Setup) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(step, x, y) of each step that is left."""
    config, world = setup.config, setup.world
    loader = BatchLoader(
        setup.data.train,
        config.data.batch_size,
        config.model.context_length,
        seed=config.train.seed,
        device=setup.device,
        rank=world.rank,
        world_size=world.size,
        plan=setup.data.plan,
    )
    steps = setup.budget.steps_left()
    with closing(loader.iterate(steps)) as batches:
        for step in steps:
            with record_function("wait for data"):
                x, y = next(batches)
            yield step, x, y
