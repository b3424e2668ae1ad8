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
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cs336lm.errors import UsageError
from cs336lm.model.transformer import TransformerLM
from cs336lm.training.distributed import World

Mode = Literal["ddp", "fsdp"]


class ParallelModel:
    """A model spread over the processes of ``world``.

    ``module`` is the model itself (with ``fsdp``, its weights have become slices); ``self(x, y)``
    is its loss on this process's share, with matrix products in ``dtype``.
    """

    def __init__(self, module: TransformerLM, world: World, mode: Mode, dtype: torch.dtype) -> None:
        self.module = module
        self.is_sharded = world.size > 1 and mode == "fsdp"
        self._dtype = dtype
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


def gather_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The whole of a sharded model's weights; every process must call it."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }
