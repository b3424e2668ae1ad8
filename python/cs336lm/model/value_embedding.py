"""Vectors by token that attention adds to its values."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from cs336lm.model.config import ModelConfig
from cs336lm.model.embedding import Embedding
from cs336lm.model.initial import Device
from cs336lm.model.linear import Linear


class ValueEmbedding(Module):
    """v + 2 sigmoid(gate x) * table[token], with a gate for each head of values.

    What a token is then reaches later tokens however much the stream has been written over (after
    Zhou et al. 2024, "Value Residual Learning", and nanochat, whose gate this is). The gate looks
    at the first few numbers of x and starts at 1; the table starts as small as a ``v_proj``.
    """

    def __init__(
        self, config: ModelConfig, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        assert config.vocab_size is not None  # the model has checked it
        d_kv = config.d_kv
        std = (2 / (config.d_model + d_kv)) ** 0.5
        self.table = Embedding(config.vocab_size, d_kv, device, dtype, std=std)
        self.gate_width = config.value_gate_width
        self.gate = Linear(config.value_gate_width, config.kv_heads, device, dtype, std=0)
        self.gate.role = "scalar"

    def forward(
        self,
        v: Float[Tensor, "... heads seq d_head"],
        x: Float[Tensor, "... seq d_model"],
        token_ids: Int[Tensor, "... seq"],
    ) -> Float[Tensor, "... heads seq d_head"]:
        """Values with the tokens' own added; ``x`` is what the values were projected from."""
        gate = 2 * torch.sigmoid(self.gate(x[..., : self.gate_width]))
        vectors = rearrange(
            self.table(token_ids), "... seq (heads d) -> ... heads seq d", d=v.shape[-1]
        )
        return v + rearrange(gate, "... seq heads -> ... heads seq 1") * vectors
