"""Training on many devices: one process a device, started by ``torchrun``.

Every process runs the same loop on its share of each global batch; what they must agree on passes
through a ``World``.

A process that fails ends with an error, upon which torchrun ends the job; with ``--max-restarts``
it starts it again, and the run continues from its last checkpoint (see ``docs/distributed.md``).
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.training.device_events import PendingScalars
from cs336lm.training.stop_signals import StopSignals

_dist: Any = dist  # PyTorch's type hints leave out part of it

_LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
"""Who is called what: torchrun, Slurm's srun, Open MPI, MPICH and Intel MPI."""


@dataclass(frozen=True)
class World:
    """This process among the processes of the job; alone, every method is a no-op."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> World:
        """What torchrun, or whatever else starts the job, says in the environment.

        Without it, a process alone. Raises ``UsageError`` if only a part is said, since processes
        that each believed to be alone would all write as the first.
        """
        said = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE") if name in os.environ}
        if not said or said == {"WORLD_SIZE": "1"}:
            return cls()
        local = next((os.environ[name] for name in _LOCAL_RANKS if name in os.environ), None)
        said |= {} if local is None else {"LOCAL_RANK": local}
        if said.get("WORLD_SIZE") == "1":
            said = {"RANK": "0", "LOCAL_RANK": "0"} | said
        missing = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name not in said]
        if missing:
            raise UsageError(
                f"the environment says {' and '.join(said)}, but not {' and '.join(missing)}: "
                "start all processes with torchrun, or set the three of them for each"
            )
        try:
            rank, size, local_rank = (int(said[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        except ValueError:
            rank, size, local_rank = -1, 0, 0
        if not (0 <= rank < size and 0 <= local_rank < size):
            table = ", ".join(f"{name}={value}" for name, value in said.items())
            raise UsageError(
                f"{table} in the environment cannot be: ranks count from 0 to size - 1"
            )
        return cls(rank, size, local_rank)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    @property
    def group(self) -> Any:
        """The processes of the job, as PyTorch's operations take them; None for one alone."""
        return dist.group.WORLD if self.size > 1 else None

    def join(self, device: torch.device, peer_timeout: float) -> None:
        """Meets the other processes; ``peer_timeout``: after how many seconds one is given up."""
        if self.size == 1 or dist.is_initialized():
            return
        timeout = timedelta(seconds=peer_timeout)
        # The first has the store in its own process: there PyTorch's own limits hold.
        limit = None if self.rank == 0 else peer_timeout
        if self.rank != 0:
            _wait_for_first(peer_timeout)
        meet = partial(_dist.rendezvous, "env://", timeout=timeout)
        store, rank, size = _in_time(lambda: next(meet()), limit)
        # After a restart torchrun may serve the same store: what the dead left there is stale.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = _dist.PrefixStore(f"attempt-{attempt}", store)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            dist.init_process_group(
                "nccl",
                store=store,
                rank=rank,
                world_size=size,
                device_id=device,
                timeout=timeout,
            )
        else:
            begin = partial(
                dist.init_process_group,
                "gloo",
                store=store,
                rank=rank,
                world_size=size,
                timeout=timeout,
            )
            _in_time(begin, limit)

    def leave(self) -> None:
        """Parts from the others, when all is done."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Everybody's ``value``, by rank: plain data, few; every process must call it."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def mean(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over all processes, a new tensor; does not wait for a GPU."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def least(self, number: int, device: torch.device) -> int:
        """The least of the processes' numbers."""
        if self.size == 1:
            return number
        least = torch.tensor(number, device=device)
        dist.all_reduce(least, op=dist.ReduceOp.MIN)
        return int(least.item())


def gather_rows(world: World, mine: Tensor) -> Tensor:
    """The rows of all processes, equally many each, by rank, on the host."""
    if world.size == 1:
        return mine.cpu()
    everybody = [torch.empty_like(mine) for _ in range(world.size)]
    dist.all_gather(everybody, mine.contiguous())
    return torch.cat(everybody).cpu()


class FirstSays:
    """Numbers that the first process decides for all of them; every process must ask.

    They travel from host to host, past the devices, which need not be waited for.
    """

    def __init__(self, world: World) -> None:
        self._size = world.size
        self._group: Any = None  # the processes' own, where that is on hosts
        if world.size > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")

    def __call__(self, *numbers: float) -> list[float]:
        """The first process's ``numbers``."""
        if self._size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.broadcast(values, src=0, group=self._group)
        return values.tolist()


class StopRequested(Exception):
    """What was under way ends here, unfinished: all processes have agreed to stop."""


class StopVote:
    """Lets all processes stop at the same place, though a signal reaches them at different ones.

    A process alone stops at once. Several add up their votes at each poll and read the sum at the
    next one, so that no GPU is waited for. What they have agreed on stays. While ``signals`` is not
    open, nobody is asked.
    """

    def __init__(self, world: World, device: torch.device, signals: StopSignals) -> None:
        self._world = world
        self._device = device
        self._signals = signals
        self._votes: PendingScalars | None = None
        self._agreed = False

    def begin(self) -> None:
        """Forgets what was agreed on before: a trainer that was stopped may be told to go on."""
        self._votes, self._agreed = None, False

    def poll(self, *, due: bool = True) -> bool:
        """Whether to stop now; all processes must poll at the same places with the same ``due``."""
        if not self._signals.is_open:
            return False
        wants_to_stop = self._signals.received is not None
        if self._world.size == 1:
            return wants_to_stop
        if self._agreed or not due:
            return self._agreed
        before = self._votes
        vote = torch.tensor(float(wants_to_stop), device=self._device)
        self._votes = PendingScalars([self._world.mean(vote)])
        self._agreed = before is not None and before.read()[0] > 0
        return self._agreed

    def check(self) -> None:
        """A poll amid something long; raises ``StopRequested`` if all are to stop."""
        if self.poll():
            raise StopRequested


def _wait_for_first(seconds: float) -> None:
    """Waits until somebody answers where all processes meet, or raises ``DistNetworkError``.

    PyTorch's own client, told the same, tries for three times as long and ends with a stack of C++.
    """
    place = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not (place[0] and place[1].isdecimal()):
        return  # PyTorch says what is missing
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            socket.create_connection((place[0], int(place[1])), timeout=left).close()
            return
        except OSError:
            time.sleep(min(0.1, left))
    raise _dist.DistNetworkError(f"nobody answered at {':'.join(place)} for {seconds:g} seconds")


def _in_time(work: Callable[[], Any], seconds: float | None) -> Any:
    """What ``work`` returns, or ``DistNetworkError`` if it is not done in time.

    PyTorch's client of a store waits without an end for a process that was stopped after it had
    begun to listen. The thread that waits is then left behind. Without a limit there is none.
    """
    if seconds is None:
        return work()
    ends: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ends.put((work(), None))
        except BaseException as error:
            ends.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = ends.get(timeout=seconds)
    except queue.Empty:
        raise _dist.DistNetworkError(f"no answer for {seconds:g} seconds") from None
    if error is not None:
        raise error
    return result
