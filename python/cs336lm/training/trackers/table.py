"""The trackers that ``train.track`` can name. A new one is a file in this room and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.training.trackers.tensorboard import TensorBoardTracker
from cs336lm.training.trackers.tracker import Tracker
from cs336lm.training.trackers.trackio import TrackioTracker
from cs336lm.training.trackers.wandb import WandbTracker

# Each under the name of the package that it needs, which is also that of our extra. It is called
# with the run's directory, its configuration, and the step that the run goes on from.
TRACKERS: dict[str, Callable[[Path, dict[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "trackio": TrackioTracker,
    "wandb": WandbTracker,
}


def require_installed(names: Iterable[str]) -> None:
    """Raises ``UsageError`` if a tracker's package is missing."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(
                f"train.track={name} needs an extra package: pip install 'cs336lm[{name}]'"
            )
