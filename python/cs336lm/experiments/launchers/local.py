"""Tasks on this machine: several at once, each with its share of the cores and a GPU of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from queue import SimpleQueue

from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.launcher import ATTEMPTS, Place, Result, Task, TaskDied


class LocalLauncher:
    """``jobs`` tasks at once.

    GPUs (those of ``CUDA_VISIBLE_DEVICES``, else all) are handed out one to a job, in turn.
    """

    def __init__(self, jobs: int = 1, gpus: list[str] | None = None) -> None:
        if jobs < 1:
            raise UsageError(f"--jobs {jobs} is impossible: at least one job at once")
        self._jobs = jobs
        self._gpus = visible_gpus() if gpus is None else gpus

    def run(
        self, function: Callable[[Task, Place], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | Exception]]:
        """Yields each task with its result, or what it raised, in the order in which they end."""
        stop = threading.Event()
        places: SimpleQueue[Place] = SimpleQueue()
        for job in range(self._jobs):
            places.put(Place(self._environment(job), stop.is_set))

        def call(task: Task) -> Result:
            place = places.get()
            try:
                return _with_attempts(function, task, place)
            finally:
                places.put(place)

        left, running = iter(tasks), dict[Future[Result], Task]()
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                while True:
                    for task in islice(left, self._jobs - len(running)):
                        running[pool.submit(call, task)] = task
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        error = future.exception()
                        if error is not None and not isinstance(error, Exception):
                            raise error
                        yield running.pop(future), error or future.result()
            finally:
                stop.set()  # whatever interrupts us: tasks save and end, then the pool does

    def _environment(self, job: int) -> dict[str, str]:
        shared = {}
        if self._jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
            shared["OMP_NUM_THREADS"] = str(max(1, _cores() // self._jobs))
        if self._gpus:
            shared["CUDA_VISIBLE_DEVICES"] = self._gpus[job % len(self._gpus)]
        return shared


def _with_attempts(function: Callable[[Task, Place], Result], task: Task, place: Place) -> Result:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return function(task, place)
        except TaskDied:
            if attempt == ATTEMPTS or place.stopping():
                raise
    raise AssertionError("unreachable")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [name.strip() for name in said.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
