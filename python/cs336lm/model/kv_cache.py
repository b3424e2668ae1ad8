"""Keys and values of the tokens a model has already seen, so that each is computed once.

A cache is static: made for a fixed number of sequences and positions, it never grows, so that a
compiled model or a captured CUDA graph can reuse the same memory every step. The token at position
p of a sequence is kept in slot p, and a query at position p may look at slots 0 to p. Nothing else
is needed for sequences of different lengths: pad on the right, and what the padding wrote lies
behind every real query until a real token takes its slot.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cs336lm.model.config import ModelConfig


class LayerCache:
    """The keys and values of one layer: (batch, kv_heads, slots, d_head) each."""

    def __init__(self, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        self.keys = keys
        self.values = values
        self.slots = slots

    def append(
        self,
        k: Float[Tensor, "batch heads seq d_head"],
        v: Float[Tensor, "batch heads seq d_head"],
        token_positions: Int[Tensor, "batch seq"],
    ) -> tuple[
        Float[Tensor, "batch heads slots d_head"],
        Float[Tensor, "batch heads slots d_head"],
        Bool[Tensor, "batch 1 seq slots"],
    ]:
        """Stores the tokens' keys and values at their positions.

        Returns all keys, all values, and which of them each of the tokens may attend to.
        """
        self.write(k, v, token_positions)
        mask = self.slots <= token_positions[:, None, :, None]
        return self.keys, self.values, mask

    def write(self, k: Tensor, v: Tensor, token_positions: Tensor) -> None:
        """Stores keys and values, shaped as for :meth:`append`, at their positions."""
        # As an assignment by indices: the compiler makes it in place, where for a scatter it copies
        # the whole cache there and back.
        rows = torch.arange(len(k), device=k.device).unsqueeze(1)
        self.keys[rows, :, token_positions] = k.transpose(1, 2).to(self.keys.dtype)
        self.values[rows, :, token_positions] = v.transpose(1, 2).to(self.values.dtype)


class KVCache:
    """One :class:`LayerCache` a layer, for ``batch_size`` sequences of up to ``length`` tokens."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        length: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (2, config.num_layers, batch_size, config.kv_heads, length, config.d_head)
        # Zeros, not empty: an unused slot is masked, but 0 * NaN would not be 0.
        self._of(torch.zeros(shape, device=device, dtype=dtype))

    def _of(self, tensor: Tensor) -> None:
        self.tensor: Float[Tensor, "2 layers batch kv_heads length d_head"] = tensor
        """All keys and all values."""
        self.batch_size, self.length = tensor.shape[2], tensor.shape[4]
        slots = torch.arange(self.length, device=tensor.device)
        self.layers = [LayerCache(k, v, slots) for k, v in zip(*tensor, strict=True)]

    def first(self, batch_size: int) -> "KVCache":
        """The first sequences of this cache, in the same memory."""
        if batch_size == self.batch_size:
            return self
        view = object.__new__(KVCache)
        view._of(self.tensor[:, :, :batch_size])
        return view

    def __iter__(self) -> Iterator[LayerCache]:
        return iter(self.layers)
