"""A job on text spread over processes or machines that share a file system.

    job -> plan -> parts, by a launcher -> join -> the files that one process writes, bit for bit

Parts lie in a folder beside the output, which holds a lock, the plan, what each part has made and
said, and is removed when all is joined. A task that dies is run again; if this process dies, the
same call goes on with the parts that are not done.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.launcher import Launcher, Place, TaskDied
from cs336lm.files import exclusive_lock, remove_directory, remove_unfinished
from cs336lm.text.options import Progress
from cs336lm.text.parts import (
    PLAN,
    CountingJob,
    EncodingJob,
    Part,
    PartsJob,
    is_done,
    plan_parts,
    read_plan,
    write_plan,
)
from cs336lm.text.tokenizer import EncodedFile

_POLL_SECONDS = 0.2
_LEAST_BYTES, _MOST_BYTES = 16_000_000, 1_000_000_000
_PARTS_A_JOB = 4  # so that none waits long for another at the end
_MOST_PARTS = 250  # for large files: each is open when counts are added

Joined = TypeVar("Joined")


@dataclass(frozen=True)
class PartTask:
    """One part of the plan in a folder."""

    folder: Path
    number: int


def run_part(task: PartTask, place: Place) -> None:
    """Does a part in a process of its own, which may be killed without harm to this one.

    Raises ``TaskDied`` if it was killed; ``UsageError`` or ``ValueError`` with what it said if it
    failed.
    """
    command = [sys.executable, "-m", "cs336lm.text.parts", str(task.folder), str(task.number)]
    log = task.folder / f"{task.number:05}.log"
    with log.open("wb") as file:
        process = place.start(command, file)
        try:
            while process.poll() is None:
                if place.stopping():
                    raise TaskDied(f"part {task.number} was stopped")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()  # what is half-written has no name yet
                process.wait()
    if process.returncode < 0:
        raise TaskDied(f"part {task.number} was killed by signal {-process.returncode}")
    if process.returncode:
        said = log.read_text(errors="replace").strip().splitlines()
        message = said[-1] if said else f"part {task.number} failed without a word: see {log}"
        raise (UsageError if process.returncode == 2 else ValueError)(message)


def spread_encoding(
    job: EncodingJob,
    out: str,
    launcher: Callable[[Path], Launcher],
    *,
    jobs: int = 1,
    part_bytes: int | None = None,
    progress: Progress | None = None,
) -> EncodedFile:
    """Encodes files into ``out`` as :meth:`Tokenizer.encode_files` does, in parts.

    Args:
        launcher: makes one, given the folder for its own files.
        jobs: how many tasks there are at once, for the size of parts.
        part_bytes: about how much text a part holds; a size is chosen if nothing is said. Files
            that cannot be divided are a part each, or several small ones are.
        progress: told ``"encoding"``, bytes done, bytes in all.

    Raises:
        UsageError: the folder of parts is another job's, or in use.
        ValueError, OSError: as ``encode_files``, and a task that died again and again.
    """
    folder = Path(out.removesuffix(".npy") + ".parts")
    job.check(out)
    return _spread(
        job, folder, launcher, jobs, part_bytes, progress, lambda p: job.join(folder, p, out)
    )


def spread_counting(
    job: CountingJob,
    out: str,
    launcher: Callable[[Path], Launcher],
    *,
    jobs: int = 1,
    part_bytes: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Counts pretokens into ``out`` as ``count_pretokens`` does, in parts.

    The arguments are those of :func:`spread_encoding`; returns how many distinct pretokens there
    are.
    """
    folder = Path(f"{out}.parts")
    job.check(out)
    return _spread(
        job, folder, launcher, jobs, part_bytes, progress, lambda p: job.join(folder, p, out)
    )


def _spread(
    job: PartsJob,
    folder: Path,
    launcher: Callable[[Path], Launcher],
    jobs: int,
    part_bytes: int | None,
    progress: Progress | None,
    join: Callable[[list[Part]], Joined],
) -> Joined:
    folder = folder.absolute()
    with ExitStack() as stack:
        is_new = _take(folder, stack)
        try:
            parts = _planned(job, folder, jobs, part_bytes)
            at = launcher(folder / "launcher")
        except BaseException:
            if is_new:
                remove_directory(folder)
            raise
        _run_parts(job, folder, parts, at, progress)
        joined = join(parts)
        remove_directory(folder)
    return joined


def _take(folder: Path, stack: ExitStack) -> bool:
    """Makes ``folder``, if need be, and holds it on ``stack``; returns whether it is new."""
    while True:
        is_new = not folder.exists()
        folder.mkdir(exist_ok=True)
        # Another process that was at this job may remove the folder, when it is done with it.
        with suppress(FileNotFoundError):
            if not (folder / PLAN).exists() and any(
                name.name[0] != "." for name in folder.iterdir()
            ):
                raise UsageError(
                    f"{folder} exists and holds no parts of a job: move it, or name another"
                )
            stack.enter_context(exclusive_lock(folder / ".lock", str(folder)))
            remove_unfinished(folder)
            return is_new


def _planned(job: PartsJob, folder: Path, jobs: int, part_bytes: int | None) -> list[Part]:
    """The parts of an interrupted job, or new ones."""
    if (folder / PLAN).exists():
        before, now = read_plan(folder)["job"], job.settings()
        differ = [name for name in now if before.get(name) != now[name]]
        if differ or before.keys() != now.keys():
            raise UsageError(
                f"{folder} holds parts of another job ({', '.join(differ) or 'its kind'} differ): "
                "finish that, or remove the folder"
            )
        parts: list[Part] = read_plan(folder)["parts"]
    else:
        parts = plan_parts(job, part_bytes or _part_bytes(job, jobs))
    write_plan(folder, job, parts)  # threads and memory may be others now
    return parts


def _part_bytes(job: PartsJob, jobs: int) -> int:
    sizes = [Path(path).stat().st_size for path in job.source.paths if Path(path).is_file()]
    wanted = min(max(sum(sizes) // (_PARTS_A_JOB * jobs), _LEAST_BYTES), _MOST_BYTES)
    return max(wanted, sum(sizes) // _MOST_PARTS)


def _run_parts(
    job: PartsJob,
    folder: Path,
    parts: list[Part],
    launcher: Launcher,
    progress: Progress | None,
) -> None:
    total = sum(part.bytes for part in parts)
    left = [number for number in range(len(parts)) if not is_done(folder, job.kind, number)]
    done = total - sum(parts[number].bytes for number in left)
    if len(left) < len(parts):
        there = len(parts) - len(left)
        print(f"going on: {there} of {len(parts)} parts are done", file=sys.stderr, flush=True)
    phase = "encoding" if isinstance(job, EncodingJob) else "counting"
    for task, ended in launcher.run(run_part, (PartTask(folder, number) for number in left)):
        if isinstance(ended, TaskDied):
            raise ValueError(f"{ended} again and again: the same command tries what is left")
        if isinstance(ended, Exception):
            raise ended
        if not is_done(folder, job.kind, task.number):
            raise ValueError(
                f"part {task.number} is done, but {folder} has nothing of it: do all machines "
                "share that folder?"
            )
        done += parts[task.number].bytes
        if progress is not None:
            progress(phase, done, total)
