"""One more token for every running sequence, wherever its keys and values are."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.generation.batching.buckets import tiled
from cs336lm.generation.batching.pool import Pool
from cs336lm.generation.decoder import FastForward, fits, unseen_bias
from cs336lm.model.kernels.one_query_attention import attend_by_products
from cs336lm.model.transformer import TransformerLM


class PoolDecoder(Protocol):
    """Reads the last token of every sequence in some pools, none of which is empty."""

    def __call__(self, pools: Sequence[Pool]) -> Float[Tensor, "sequences vocab"]:
        """The logits of their successors, pool by pool; keys and values are added to the caches."""


def make_pool_decoder(model: TransformerLM, device: torch.device) -> PoolDecoder:
    """The fastest that computes what ``model`` does."""
    return FastPoolDecoder(model, device) if fits(model) else ModelPoolDecoder(model, device)


class ModelPoolDecoder:
    """Any model, by its own forward: a pool at a time."""

    def __init__(self, model: TransformerLM, device: torch.device) -> None:
        self._model = model
        self._device = device

    def __call__(self, pools: Sequence[Pool]) -> Float[Tensor, "sequences vocab"]:
        """See :class:`PoolDecoder`."""
        return torch.cat([self._step(pool) for pool in pools])

    def _step(self, pool: Pool) -> Tensor:
        # Rows behind those in use are read as well; what that writes is overwritten before use.
        rows = tiled(len(pool))
        token_ids = torch.from_numpy(pool.token_ids[:rows, None]).to(self._device)
        positions = torch.from_numpy(pool.positions[:rows, None]).to(self._device)
        positions = positions.clamp(max=pool.capacity - 1)
        logits = self._model(token_ids, token_positions=positions, cache=pool.cache.first(rows))
        return logits[: len(pool), 0]


class FastPoolDecoder:
    """A model that fits: products for all sequences together, attention for each pool."""

    def __init__(self, model: TransformerLM, device: torch.device) -> None:
        self._forward = FastForward(model)
        self._device = device

    def __call__(self, pools: Sequence[Pool]) -> Float[Tensor, "sequences vocab"]:
        """See :class:`PoolDecoder`."""
        count = sum(map(len, pools))
        token_ids = self._joined([pool.token_ids[: len(pool)] for pool in pools], tiled(count))
        positions = self._joined([pool.positions[: len(pool)] for pool in pools], tiled(count))
        ends = np.cumsum([len(pool) for pool in pools]).tolist()
        places = [slice(end - len(pool), end) for pool, end in zip(pools, ends, strict=True)]
        kv_heads = self._forward.heads[1]
        biases = [
            unseen_bias(
                pool.cache.layers[0].slots, positions[place], kv_heads, pool.cache.tensor.dtype
            )
            for pool, place in zip(pools, places, strict=True)
        ]
        caches = [pool.cache.first(len(pool)) for pool in pools]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            attended = torch.zeros_like(q).flatten(1)
            for cache, place, bias in zip(caches, places, biases, strict=True):
                one = cache.layers[layer]
                one.write(
                    k[place].unsqueeze(2), v[place].unsqueeze(2), positions[place].unsqueeze(1)
                )
                attended[place] = attend_by_products(q[place], one.keys, one.values, bias)
            return attended

        return self._forward(token_ids, positions, attend)[:count]

    def _joined(self, parts: list[np.ndarray], length: int) -> Tensor:
        """One after the other, and zeros up to ``length``."""
        joined = np.zeros(length, dtype=np.int64)
        np.concatenate(parts, out=joined[: sum(map(len, parts))])
        return torch.from_numpy(joined).to(self._device)
