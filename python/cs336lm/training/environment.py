"""What a run ran on, for whoever wants to know later why two runs differ.

``environment.jsonl`` in the run directory gets a line at each start of the run::

    {"time": "2026-11-27T02:24:27+00:00", "step": 0, "command": ["cs336lm", "train", ...],
     "versions": {"cs336lm": "0.1.0", "torch": "2.9.0", ...}, "commit": "6b6e690...", ...}
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cs336lm.files import append_line
from cs336lm.training.distributed import World

_PACKAGES = ("cs336lm", "torch", "numpy")


def record_environment(path: Path, device: torch.device, world: World, step: int) -> None:
    """Adds a line to ``path`` about this start, from ``step`` on."""
    append_line(path, json.dumps(describe_environment(device, world, step)).encode())


def describe_environment(device: torch.device, world: World, step: int) -> dict[str, Any]:
    """The versions, the command, the commit, the devices: plain data."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "versions": {"python": platform.python_version()} | _package_versions(),
        "commit": _commit(Path(__file__).parent) or _commit(Path.cwd()),
        "system": platform.platform(),
        "host": socket.gethostname(),
        "device": str(device),
        "device_name": _device_name(device),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "world_size": world.size,
    }


def _package_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions | {"cuda": torch.version.cuda}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _commit(folder: Path) -> str | None:
    """The commit that ``folder`` is at, with "-dirty" if it was changed; None outside of git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        said = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or a slow disk
        return None
    return said.stdout.strip() or None
