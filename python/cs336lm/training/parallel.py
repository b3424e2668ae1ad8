"""A model on all devices of a job. Two ways of holding the weights:

    ddp    every device holds everything and averages gradients (Li et al. 2020)
    fsdp   every device holds a slice of each weight, of its gradient and of the optimizer's state,
           and gathers a layer when it is its turn (Rajbhandari et al. 2019, ZeRO stage 3)

The model's own code knows nothing of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cs336lm.errors import UsageError
from cs336lm.model.norm import RMSNorm
from cs336lm.model.transformer import TransformerLM
from cs336lm.training.checkpoints.state import distinct_weights
from cs336lm.training.distributed import World

Mode = Literal["ddp", "fsdp"]


class ParallelModel:
    """A model spread over the processes of ``world``.

    ``module`` is the model itself (with ``fsdp``, its weights have become slices); ``self(x, y)``
    is its loss on this process's share, with matrix products in ``dtype``. A model on "meta" gets
    its weights here, on ``device``, by ``reset_parameters``.
    """

    def __init__(
        self,
        module: TransformerLM,
        world: World,
        mode: Mode,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.module = module
        self.is_sharded = is_sharded(world, mode)
        self._dtype = dtype
        self._forward: Callable[..., Any] = module
        self._ddp: DistributedDataParallel | None = None
        if self.is_sharded:
            _shard(module, dtype)
            _draw_slices(module, device)
        elif world.size > 1:
            # Gradients live in the buckets that are exchanged, not beside them; buffers (RoPE's
            # tables) are the same everywhere already.
            self._ddp = DistributedDataParallel(
                module, gradient_as_bucket_view=True, broadcast_buffers=False
            )
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
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
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


def is_sharded(world: World, mode: Mode) -> bool:
    """Whether the weights are spread: such a model is built on "meta", as no device has room."""
    return world.size > 1 and mode == "fsdp"


def _shard(model: TransformerLM, dtype: torch.dtype) -> None:
    """Slices every layer's weights over the processes, in place; gradients add up in float32."""
    if dtype == torch.float16:
        raise UsageError(
            "train.parallel=fsdp needs bfloat16 or float32: it does not scale gradients"
        )
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32
    )
    for layer in model.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


@torch.no_grad()
def _draw_slices(model: TransformerLM, device: torch.device) -> None:
    """Gives a sliced model on "meta" the weights that one process would draw.

    Every process draws the whole of one module's weights, in the order of construction and thus
    from the same random numbers, keeps its slice, and goes on to the next.
    """
    model.to_empty(device=device)
    for module in model.modules():
        slices = dict(module.named_parameters(recurse=False))
        if not slices:
            continue
        for name, part in slices.items():
            whole = torch.empty(part.shape, dtype=part.dtype, device=device)
            setattr(module, name, Parameter(whole))
        cast("RMSNorm", module).reset_parameters()
        for name, part in slices.items():
            whole = getattr(module, name)
            setattr(module, name, part)
            part.copy_(_slice_like(whole, part))


def _slice_like(whole: Tensor, part: Tensor) -> Tensor:
    """What this process holds of ``whole``, which every process has: nothing is sent."""
    if not isinstance(part, DTensor):
        return whole
    return distribute_tensor(whole, part.device_mesh, part.placements, src_data_rank=None)


def gather_weights(model: torch.nn.Module, world: World) -> dict[str, Tensor]:
    """The whole of a sharded model's weights on the CPU of the first process; empty elsewhere.

    Every process must call it, and holds no more than one whole weight at a time.
    """
    gathered = {}
    for name, value in distinct_weights(model).items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if world.is_main:
            gathered[name] = whole.detach().to("cpu", copy=True)
        del whole
    return gathered
