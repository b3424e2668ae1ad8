"""One token of one sequence by the kernels of :mod:`cs336lm.model.kernels.one_token`, on a GPU.

It reads the model's own weights where they lie and needs nothing prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from cs336lm.model.blocks import TransformerBlock
from cs336lm.model.feed_forward import ReLUSquaredFeedForward, SiLUFeedForward, SwiGLU
from cs336lm.model.kernels.triton_trial import on_device_of, triton_works
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.norm import RMSNorm
from cs336lm.model.positions import RotaryPositionalEmbedding
from cs336lm.model.transformer import TransformerLM

_ACTIVATIONS: dict[type[Module], str] = {
    SwiGLU: "swiglu",
    SiLUFeedForward: "silu",
    ReLUSquaredFeedForward: "relu2",
}


def suits(model: TransformerLM, cache: KVCache) -> bool:
    """Whether the kernels are for this model (one that the fast decoder fits) and this cache."""
    config = model.config
    return (
        cache.tensor.device.type == "cuda"
        and cache.batch_size == 1
        and cache.tensor.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and triton_works(cache.tensor.device)
        and _within_limits(config.d_model, config.ffn_width, config.d_head)
        and all(p.is_contiguous() for p in model.parameters())
    )


def _within_limits(d_model: int, d_ff: int, d_head: int) -> bool:
    from cs336lm.model.kernels.one_token import WIDEST, WIDEST_HEAD

    return max(d_model, d_ff) <= WIDEST and d_head <= WIDEST_HEAD


class KernelDecoder:
    """A :class:`~cs336lm.generation.decoder.Decoder` of one sequence."""

    is_replayable = True

    def __init__(self, model: TransformerLM, cache: KVCache) -> None:
        from cs336lm.model.kernels import one_token

        self.kernels = one_token
        self.model = model
        self.cache = cache
        self.blocks = cast("Sequence[TransformerBlock]", model.layers)
        attn, ffn = self.blocks[0].attn, self.blocks[0].ffn
        device = model.lm_head.weight.device
        self.overlaps = one_token.can_overlap(device)
        self.eps = model.config.rms_norm_eps
        kv_heads, d_head = attn.num_kv_heads, model.config.d_head
        self.attend = one_token.Attention(attn.num_heads, d_head, cache.length, device)
        self.activation = one_token.ACTIVATIONS[_ACTIVATIONS[type(ffn)]]
        positions = attn.positions
        self.tables = (
            (positions.cos, positions.sin)
            if isinstance(positions, RotaryPositionalEmbedding)
            else None
        )

        def vector(length: int) -> Tensor:
            return torch.empty(length, device=device, dtype=torch.float32)

        self.qkv = vector((attn.num_heads + 2 * kv_heads) * d_head)
        self.attended = vector(model.config.d_model)
        self.inner = vector(ffn.w2.weight.shape[1])
        self.logits = vector(model.lm_head.weight.shape[0])

    def compiled(self) -> Callable[[Tensor, Tensor], Tensor]:
        """It is compiled already."""
        return self.step

    def step(
        self,
        token_ids: Int[Tensor, " 1"],
        positions: Int[Tensor, " 1"],
        common_position: int | None = None,
    ) -> Float[Tensor, "1 vocab"]:
        """See :class:`~cs336lm.generation.decoder.Decoder`; the logits are float32."""
        with on_device_of(token_ids):
            return self._step(token_ids, positions)

    def _step(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        x = self.model.token_embeddings(token_ids).float().flatten()
        for block, cache in zip(self.blocks, self.cache, strict=True):
            attn, ffn = block.attn, block.ffn
            qkv = (attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight)
            self._project(x, qkv, self.qkv, block.ln1)
            self.attend(
                self.qkv,
                cache.keys,
                cache.values,
                positions,
                self.attended,
                tables=self.tables,
                gains=_gains(attn.q_norm, attn.k_norm),
                eps=self.eps,
                overlaps=self.overlaps,
            )
            self._project(self.attended, (attn.output_proj.weight,), x, adds=True)
            up = (ffn.w1.weight, ffn.w3.weight) if isinstance(ffn, SwiGLU) else (ffn.w1.weight,)
            self._project(x, up, self.inner, block.ln2, activation=self.activation)
            self._project(self.inner, (ffn.w2.weight,), x, adds=True)
        self._project(x, (self.model.lm_head.weight,), self.logits, self.model.ln_final)
        logits: Tensor = self.model.softcap(self.logits.unsqueeze(0))
        return logits

    def _project(
        self,
        x: Tensor,
        weights: tuple[Tensor, ...],
        out: Tensor,
        norm: Module | None = None,
        *,
        activation: int = 0,
        adds: bool = False,
    ) -> None:
        self.kernels.project(
            x,
            weights,
            out,
            gain=norm.weight if isinstance(norm, RMSNorm) else None,
            eps=self.eps,
            activation=activation,
            adds=adds,
            overlaps=self.overlaps,
        )


def _gains(q_norm: Module, k_norm: Module) -> tuple[Tensor, Tensor] | None:
    """Of queries' and keys' norms, if they have any."""
    if isinstance(q_norm, RMSNorm) and isinstance(k_norm, RMSNorm):
        return q_norm.weight, k_norm.weight
    return None
