"""One more token for every running sequence, wherever its keys and values are."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.generation.batching.buckets import tile_of, tiled
from cs336lm.generation.batching.pool import Pool
from cs336lm.generation.decoder import FastForward, fits, unlimited_recompilation, unseen_bias
from cs336lm.model.kernels.one_query_attention import attend_by_products
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.softcap import Uncapped
from cs336lm.model.transformer import TransformerLM


class PoolDecoder(Protocol):
    """Reads the last token of every sequence in some pools, none of which is empty."""

    tile: int
    """What the number of a pool's rows must be a multiple of."""

    def __call__(self, pools: Sequence[Pool]) -> Float[Tensor, "sequences vocab"]:
        """The logits of their successors, pool by pool; keys and values are added to the caches."""


def logits_of(model: TransformerLM, hidden: Float[Tensor, "rows d_model"]) -> Tensor:
    """(rows, vocab): the logits, a soft-cap by row, however many numbers a row has."""
    return capped(model, model.lm_head(hidden))


def capped(model: TransformerLM, logits: Float[Tensor, "rows vocab"]) -> Tensor:
    """(rows, vocab): what the model's soft-cap, if it has one, makes of each row by itself."""
    if isinstance(model.softcap, Uncapped):
        return model.softcap(logits)
    return torch.stack([model.softcap(row) for row in logits])


def make_pool_decoder(
    model: TransformerLM, device: torch.device, *, compile: bool = False
) -> PoolDecoder:
    """The fastest that computes what ``model`` does."""
    if compile:
        return CompiledPoolDecoder(model, device)
    return FastPoolDecoder(model, device) if fits(model) else ModelPoolDecoder(model, device)


class ModelPoolDecoder:
    """Any model, by its own forward: a pool at a time."""

    def __init__(self, model: TransformerLM, device: torch.device) -> None:
        self._model = model
        self._device = device
        self.tile = tile_of(model.config, is_fast=False)

    def __call__(self, pools: Sequence[Pool]) -> Float[Tensor, "sequences vocab"]:
        """See :class:`PoolDecoder`."""
        return torch.cat([self._step(pool) for pool in pools])

    def _step(self, pool: Pool) -> Tensor:
        # Rows behind those in use are read as well; what that writes is overwritten before use.
        rows = tiled(len(pool), self.tile)
        token_ids = torch.from_numpy(pool.token_ids[:rows, None]).to(self._device)
        positions = torch.from_numpy(pool.positions[:rows, None]).to(self._device)
        positions = positions.clamp(max=pool.capacity - 1)
        hidden = self._model.hidden_states(token_ids, positions, pool.cache.first(rows))
        return logits_of(self._model, hidden[:, 0])[: len(pool)]


class FastPoolDecoder:
    """A model that fits: products for all sequences together, attention for each pool."""

    def __init__(self, model: TransformerLM, device: torch.device) -> None:
        self._forward = FastForward(model, softcap=partial(capped, model))
        self._device = device
        self.tile = tile_of(model.config, is_fast=True)

    def __call__(self, pools: Sequence[Pool]) -> Float[Tensor, "sequences vocab"]:
        """See :class:`PoolDecoder`."""
        count = sum(map(len, pools))
        rows = tiled(count, self.tile)
        token_ids = self._joined([pool.token_ids[: len(pool)] for pool in pools], rows)
        positions = self._joined([pool.positions[: len(pool)] for pool in pools], rows)
        ends = np.cumsum([len(pool) for pool in pools]).tolist()
        places = [slice(end - len(pool), end) for pool, end in zip(pools, ends, strict=True)]
        kv_heads = self._forward.heads[1]
        biases = [
            unseen_bias(
                pool.cache.layers[0].slots, positions[place], kv_heads, pool.cache.tensor.dtype
            )
            for pool, place in zip(pools, places, strict=True)
        ]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            attended = torch.zeros_like(q).flatten(1)
            for pool, place, bias in zip(pools, places, biases, strict=True):
                one, rows = pool.cache.layers[layer], len(pool)
                one.write(
                    k[place].unsqueeze(2), v[place].unsqueeze(2), positions[place].unsqueeze(1)
                )
                attended[place] = attend_by_products(
                    q[place], one.keys[:rows], one.values[:rows], bias
                )
            return attended

        return self._forward(token_ids, positions, attend)[:count]

    def _joined(self, parts: list[np.ndarray], length: int) -> Tensor:
        """One after the other, and zeros up to ``length``."""
        joined = np.zeros(length, dtype=np.int64)
        np.concatenate(parts, out=joined[: sum(map(len, parts))])
        return torch.from_numpy(joined).to(self._device)


class CompiledPoolDecoder:
    """Any model, a pool at a time with all its rows, by code that is made for each shape."""

    def __init__(self, model: TransformerLM, device: torch.device) -> None:
        self._device = device
        self._model = model
        self.tile = tile_of(model.config, is_fast=False)
        self._forward = FastForward(model) if fits(model) else None
        # Not fullgraph: who knows what stands in the place of a layer.
        self._compiled = torch.compile(
            self._step if self._forward is None else self._fast_step,
            mode="reduce-overhead",
            dynamic=False,
        )

    def __call__(self, pools: Sequence[Pool]) -> Float[Tensor, "sequences vocab"]:
        """See :class:`PoolDecoder`."""
        found = []
        for pool in pools:
            # Of rows behind those in use nothing is known but that they must not be outside.
            positions = np.minimum(pool.positions, pool.capacity - 1)
            with unlimited_recompilation():
                logits = self._compiled(
                    torch.tensor(pool.token_ids, device=self._device),
                    torch.tensor(positions, device=self._device),
                    pool.cache,
                )
            # A copy: on a GPU the next call writes where this one did.
            found.append(logits[: len(pool)].clone())
        return torch.cat(found)

    def _step(self, token_ids: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        logits = self._model(
            token_ids.unsqueeze(1), token_positions=positions.unsqueeze(1), cache=cache
        )
        return logits.squeeze(1)

    def _fast_step(self, token_ids: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        forward = self._forward
        assert forward is not None  # which is when this is called
        first = cache.layers[0]
        bias = unseen_bias(first.slots, positions, forward.heads[1], first.keys.dtype)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            one = cache.layers[layer]
            one.write(k.unsqueeze(2), v.unsqueeze(2), positions.unsqueeze(1))
            return attend_by_products(q, one.keys, one.values, bias)

        return forward(token_ids, positions, attend)
