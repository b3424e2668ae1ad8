"""Work on whole matrices, shared out among the processes that train together.

An optimizer that works element by element has nothing to share: where every process holds all
parameters each must update all of them, and where each holds slices it updates its own. But a
function of whole matrices, as Muon's, costs as much as many steps of the other kind. So every
matrix has one owner, which computes it for all.

    Alone       one process: it computes everything
    Replicas    all hold all (DDP): each computes its share, then they exchange the results
    Slices      each holds some rows of every matrix (FSDP2): the rows go to the owner, and the
                result's rows come back

Owners are chosen such that each has about the same work. Results do not depend on how many there
are, but for the order in which a product of several matrices adds up.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from cs336lm.optim.newton_schulz import orthogonalization_flops

_dist: Any = dist  # PyTorch's type hints leave out part of it

Work = Callable[[Sequence[Tensor]], list[Tensor]]
"""Whole matrices, each by itself, to results of the same shapes."""


class Sharing(Protocol):
    """How a matrix that one process sees (wholly, or its rows) relates to those of the others."""

    def apply(self, work: Work, parts: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """This process's part of what ``work`` makes of the whole matrices; all must call it.

        What travels between processes is in ``dtype``, which ``work`` returns.
        """

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over the parts of a matrix."""


class Alone:
    """One process, or one that does not know of others."""

    def apply(self, work: Work, parts: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """``work`` of all there is."""
        return work(parts)

    def total(self, values: Tensor) -> Tensor:
        """The part is the whole."""
        return values


class Replicas:
    """All processes of ``group`` hold the same matrices."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._rank, self._size = dist.get_rank(group), dist.get_world_size(group)

    def apply(self, work: Work, parts: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Every process works on its own, and all of them gather the results."""
        owners = share_out([part.shape for part in parts], self._size)
        mine = work(
            [part for part, owner in zip(parts, owners, strict=True) if owner == self._rank]
        )
        sizes = [0] * self._size
        places = []
        for part, owner in zip(parts, owners, strict=True):
            places.append((owner, slice(sizes[owner], sizes[owner] + part.numel())))
            sizes[owner] += part.numel()
        # All send alike, though not all have alike: what is left over is filled with anything.
        sent = torch.empty(max(sizes), dtype=dtype, device=parts[0].device)
        if mine:
            torch.cat([result.reshape(-1) for result in mine], out=sent[: sizes[self._rank]])
        gathered = sent.new_empty(self._size, max(sizes))
        _dist.all_gather_into_tensor(gathered.view(-1), sent, group=self._group)
        return [gathered[place].view(part.shape) for place, part in zip(places, parts, strict=True)]

    def total(self, values: Tensor) -> Tensor:
        """The part is the whole."""
        return values


class Slices:
    """Each process of ``group`` holds some rows of every matrix, as ``torch.chunk`` cuts them."""

    def __init__(self, group: Any, shapes: Sequence[Sequence[int]]) -> None:
        """``shapes`` are those of the whole matrices."""
        self._group = group
        self._rank, self._size = dist.get_rank(group), dist.get_world_size(group)
        self._shapes = shapes
        owners = share_out(shapes, self._size)
        self._owned = [[i for i, o in enumerate(owners) if o == rank] for rank in range(self._size)]

    def apply(self, work: Work, parts: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """The rows go to the owners; what these make of the whole goes back."""
        everybody, mine = range(self._size), self._owned[self._rank]
        empty = parts[0].new_empty(0, dtype=dtype)
        arrived = self._exchange(
            [[parts[i].to(dtype) for i in self._owned[rank]] for rank in everybody],
            [[self._part(i, rank) for i in mine] for rank in everybody],
            empty,
        )
        results = work([torch.cat(rows) for rows in zip(*arrived, strict=True)])
        cut = [
            result.split([self._part(i, rank)[0] for rank in everybody])
            for i, result in zip(mine, results, strict=True)
        ]
        returned = self._exchange(
            [[rows[rank] for rows in cut] for rank in everybody],
            [[self._part(i, self._rank) for i in self._owned[rank]] for rank in everybody],
            empty,
        )
        by_index = {
            i: rows
            for owned, received in zip(self._owned, returned, strict=True)
            for i, rows in zip(owned, received, strict=True)
        }
        return [by_index[i] for i in range(len(parts))]

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        total = values.clone()
        dist.all_reduce(total, group=self._group)
        return total

    def _part(self, index: int, rank: int) -> tuple[int, int]:
        """The shape of what a process holds of a matrix."""
        rows, columns = self._shapes[index]
        most = -(-rows // self._size)
        return max(0, min(most, rows - rank * most)), columns

    def _exchange(
        self, outgoing: list[list[Tensor]], incoming: list[list[tuple[int, int]]], empty: Tensor
    ) -> list[list[Tensor]]:
        """Sends each process its tensors and returns those from each, of the shapes expected."""
        sent = torch.cat([empty, *(tensor.reshape(-1) for to in outgoing for tensor in to)])
        sizes = [[rows * columns for rows, columns in source] for source in incoming]
        received = sent.new_empty(sum(map(sum, sizes)))
        _dist.all_to_all_single(
            received,
            sent,
            [sum(source) for source in sizes],
            [sum(tensor.numel() for tensor in to) for to in outgoing],
            group=self._group,
        )
        flat = iter(received.split(list(itertools.chain(*sizes))))
        return [[next(flat).view(shape) for shape in source] for source in incoming]


def share_out(shapes: Sequence[Sequence[int]], processes: int) -> list[int]:
    """The owner of each matrix: the dearest first, each to whoever has the least work so far.

    (Graham 1969: the busiest then has at most a third more than in the best of all ways.)
    """
    costs = [orthogonalization_flops(*shape) for shape in shapes]
    owners = [0] * len(costs)
    work = [(0, rank) for rank in range(processes)]
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        done, rank = heapq.heappop(work)
        owners[index] = rank
        heapq.heappush(work, (done + costs[index], rank))
    return owners
