"""Tasks on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.launcher import ATTEMPTS, Place, Result, Task, TaskDied


class RayLauncher:
    """At most ``jobs`` Ray tasks at once.

    ``options`` are those of a Ray task: ``num_cpus=2``, ``num_gpus=1``. It joins the cluster that
    ``RAY_ADDRESS`` or ``address`` names, or starts one on this machine. A task whose node dies is
    run again on another by Ray itself.
    """

    def __init__(
        self, jobs: int = 1, options: dict[str, Any] | None = None, address: str | None = None
    ) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--launcher ray needs Ray: pip install 'cs336lm[ray]'") from None
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False)
        self._jobs, self._options = jobs, {"num_cpus": 1, **(options or {})}

    def run(
        self, function: Callable[[Task, Place], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | Exception]]:
        """Yields each task with its result, or what it raised, in the order in which they end."""
        import ray

        def call(task: Task, place: Place) -> Result:  # Ray takes plain functions only
            return function(task, place)

        remote = ray.remote(call).options(
            max_retries=ATTEMPTS - 1, retry_exceptions=[TaskDied], **self._options
        )
        left, running = iter(tasks), dict[Any, Task]()
        try:
            while True:
                for task in islice(left, self._jobs - len(running)):
                    running[remote.remote(task, Place())] = task
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1)
                for reference in done:
                    task = running.pop(reference)
                    try:
                        yield task, ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        yield task, error.cause
                    except ray.exceptions.RayError as error:
                        yield task, error
        finally:
            for reference in running:
                ray.cancel(reference)
