"""Training on many devices: one process a device, started by ``torchrun``.

Every process runs the same loop on its share of each global batch; what they must agree on passes
through a ``World``. Two ways of holding the weights:

    ddp    every device holds everything and averages gradients (Li et al. 2020)
    fsdp   every device holds a slice of each weight, of its gradient and of the optimizer's state,
           and gathers a layer when it is its turn (Rajbhandari et al. 2019, ZeRO stage 3)

A process that fails ends with an error, upon which torchrun ends the job; with ``--max-restarts``
it starts it again, and the run goes on from its last checkpoint. ``docs/distributed.md`` shows how.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cs336lm.errors import UsageError
from cs336lm.model.transformer import TransformerLM
from cs336lm.training.devices import LateValues

Mode = Literal["ddp", "fsdp"]

_dist: Any = dist  # PyTorch's type hints leave out part of it


@dataclass(frozen=True)
class World:
    """This process among the processes of the job; alone, every method is a no-op."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> World:
        """What torchrun says in the environment; without it, a process alone."""
        try:
            return cls(*(int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
        except KeyError:
            return cls()

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def join(self, device: torch.device) -> None:
        """Meets the other processes."""
        if self.size == 1 or dist.is_initialized():
            return
        store, rank, size = next(_dist.rendezvous("env://"))
        # After a restart torchrun may serve the same store: what the dead left there is stale.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = _dist.PrefixStore(f"attempt-{attempt}", store)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            dist.init_process_group(
                "nccl", store=store, rank=rank, world_size=size, device_id=device
            )
        else:
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size)

    def leave(self) -> None:
        """Parts from the others, when all is done."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over all processes, a new tensor; does not wait for a GPU."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size


class StopVote:
    """Lets all processes stop at the same step, though a signal reaches them at different ones.

    A process alone stops at once. Several add up their wishes at each poll and read the sum at the
    next one, so that no GPU is waited for.
    """

    def __init__(self, world: World, device: torch.device) -> None:
        self._world = world
        self._device = device
        self._votes: LateValues | None = None

    def poll(self, wish: bool, *, due: bool) -> bool:
        """Whether to stop now; all processes must poll at the same steps with the same ``due``."""
        if self._world.size == 1:
            return wish
        if not due:
            return False
        before = self._votes
        self._votes = LateValues([self._world.mean(torch.tensor(float(wish), device=self._device))])
        return before is not None and before.read()[0] > 0


class ParallelModel:
    """A model spread over the processes of ``world``.

    ``module`` is the model itself (with ``fsdp``, its weights have become slices); ``self(x, y)``
    is its loss on this process's share.
    """

    def __init__(self, module: TransformerLM, world: World, mode: Mode, dtype: torch.dtype) -> None:
        self.module = module
        self.is_sharded = world.size > 1 and mode == "fsdp"
        self._forward: Callable[..., Any] = module
        self._ddp: DistributedDataParallel | None = None
        if self.is_sharded:
            _shard(module, dtype)
        elif world.size > 1:
            self._ddp = DistributedDataParallel(module)
            self._forward = self._ddp

    def checkpoint_activations(self) -> None:
        """Keeps a block's input alone for the backward pass, which computes the rest again.

        (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".)
        """
        for layer in self.module.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)

    def compile(self) -> None:
        """Compiles the forward pass (and with it the backward pass)."""
        self._forward = torch.compile(self._forward)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of ``y`` given ``x``, both (sequences, context)."""
        return self._forward(x, y)

    @contextmanager
    def round(self, *, is_last: bool) -> Iterator[None]:
        """Around forward and backward: only the last round of a step exchanges gradients."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(is_last)
        if self._ddp is None or is_last:
            yield
        else:
            with self._ddp.no_sync():
                yield


def _shard(model: TransformerLM, dtype: torch.dtype) -> None:
    """Slices every layer's weights over the processes, in place; gradients add up in float32."""
    if dtype == torch.float16:
        raise UsageError("train.parallel=fsdp needs bfloat16 or float32: it scales no gradients")
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32
    )
    for layer in model.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


def gather_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The whole of a sharded model's weights; every process must call it."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }
