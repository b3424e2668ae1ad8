"""Tasks as Slurm jobs, through submitit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.launcher import ATTEMPTS, Place, Result, Task, TaskDied

_POLL_SECONDS = 1.0


class SlurmLauncher:
    """At most ``jobs`` Slurm jobs at once, each one task.

    ``options`` are submitit's parameters: ``timeout_min=60``, ``slurm_partition="gpu"``,
    ``gpus_per_node=1``. ``cluster="local"`` runs the same scripts as processes of this machine.
    """

    def __init__(
        self,
        folder: Path,
        jobs: int = 1,
        options: dict[str, Any] | None = None,
        cluster: str = "slurm",
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise UsageError(
                "--launcher slurm needs submitit: pip install 'cs336lm[experiments]'"
            ) from None
        self._jobs = jobs
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=cluster)
            self.executor.update_parameters(**{"name": "cs336lm", **(options or {})})
        except (RuntimeError, NameError, TypeError) as error:
            raise UsageError(f"--launcher slurm: {error}") from None

    def run(
        self, function: Callable[[Task, Place], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | Exception]]:
        """Yields each task with its result, or what it raised, in the order in which they end."""
        left, running = iter(tasks), dict[Any, tuple[Task, int]]()
        try:
            while True:
                for task in islice(left, self._jobs - len(running)):
                    running[self.executor.submit(function, task, Place())] = (task, 1)
                if not running:
                    return
                for job in [job for job in running if job.done()]:
                    task, attempt = running.pop(job)
                    error = job.exception()
                    if _has_died(error) and attempt < ATTEMPTS:
                        again = self.executor.submit(function, task, Place())
                        running[again] = (task, attempt + 1)
                    else:
                        yield task, error or job.result()
                time.sleep(_POLL_SECONDS)
        finally:
            for job in running:
                job.cancel(check=False)


def _has_died(error: BaseException | None) -> bool:
    """Whether a job ended without a word: its node failed, or it was killed or preempted."""
    import submitit

    return isinstance(error, TaskDied | submitit.core.utils.UncompletedJobError)
