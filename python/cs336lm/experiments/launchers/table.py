"""The launchers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cs336lm.errors import UsageError

if TYPE_CHECKING:  # its data classes are not for ``tokenize`` to wait for
    from pathlib import Path

    from cs336lm.experiments.launchers.launcher import Launcher


def _local(folder: Path, jobs: int, options: dict[str, Any]) -> Launcher:
    from cs336lm.experiments.launchers.local import LocalLauncher

    if options:
        raise UsageError("--launcher-option is for slurm and ray: local has --jobs alone")
    return LocalLauncher(jobs)


def _slurm(folder: Path, jobs: int, options: dict[str, Any]) -> Launcher:
    from cs336lm.experiments.launchers.slurm import SlurmLauncher

    return SlurmLauncher(folder, jobs, options)


def _ray(folder: Path, jobs: int, options: dict[str, Any]) -> Launcher:
    from cs336lm.experiments.launchers.ray import RayLauncher

    return RayLauncher(jobs, options)


LAUNCHERS: dict[str, Callable[[Path, int, dict[str, Any]], Launcher]] = {
    "local": _local,
    "slurm": _slurm,
    "ray": _ray,
}
"""``LAUNCHERS[name](folder for logs, tasks at once, options)``."""
