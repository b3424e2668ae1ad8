"""The flags of the commands on text that may run in parts, elsewhere."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cs336lm.cli.options import memory, positive
from cs336lm.experiments.launchers.table import LAUNCHERS

if TYPE_CHECKING:
    from pathlib import Path

    from cs336lm.experiments.launchers.launcher import Launcher

SPREADING_HELP = """\
--jobs N and --launcher do the work in parts, each a process of its own on this machine (local), a
Slurm job or a Ray task on machines that share the file system. The result is that of one process,
bit for bit. Parts lie in a folder beside --out that ends in .parts; a task that dies is run again,
and after an interruption the same command goes on. Plain text is divided at safe places, other
files are read whole; standard input and pipes are for one process."""


def add_spreading(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where parts are done."""
    add = parser.add_argument
    add("--jobs", type=positive, metavar="N", help="do the work in parts, N at once")
    add(
        "--launcher",
        choices=tuple(LAUNCHERS),
        help="where parts are done: processes of this machine (default), Slurm jobs, Ray tasks",
    )
    add(
        "--launcher-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="submitit's parameters for slurm (timeout_min=60), a task's for ray (num_cpus=4)",
    )
    add(
        "--part-size",
        type=memory,
        metavar="SIZE",
        help="about how much text a part holds, e.g. 500MB (default: by size and --jobs)",
    )


def is_spread(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    """Whether the work is to be done in parts; flags that are for that alone are refused."""
    if arguments.launcher or arguments.jobs:
        return True
    if arguments.launcher_option or arguments.part_size:
        parser.error("--launcher-option and --part-size are for parts: say --jobs or --launcher")
    return False


def text_launcher(arguments: argparse.Namespace, folder: Path) -> Launcher:
    """The launcher that the flags ask for; no GPU is looked for, which would import PyTorch."""
    arguments.jobs, arguments.launcher = arguments.jobs or 1, arguments.launcher or "local"
    if arguments.launcher == "local" and not arguments.launcher_option:
        from cs336lm.experiments.launchers.local import LocalLauncher

        return LocalLauncher(arguments.jobs, gpus=[])
    from cs336lm.cli.experiment import launcher_from

    return launcher_from(arguments, folder.parent)
