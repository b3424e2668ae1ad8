"""The language model: token ids in, logits of the next token (or the loss) out.

    ids (batch, seq) -> token_embeddings -> num_layers x TransformerBlock -> ln_final -> lm_head

Its ``state_dict`` has the names and shapes of CS336's first assignment.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module, ModuleList

from cs336lm.errors import UsageError
from cs336lm.model.attention import (
    Device,
    Embedding,
    Linear,
    MultiHeadSelfAttention,
    RMSNorm,
    RotaryPositionalEmbedding,
    SwiGLU,
)
from cs336lm.model.config import ModelConfig
from cs336lm.model.kernels.cross_entropy import linear_cross_entropy
from cs336lm.model.kv_cache import KVCache, LayerCache

__all__ = ["ModelConfig", "TransformerBlock", "TransformerLM"]


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (pre-norm; Xiong et al. 2020)."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int | None = None,
        rope: RotaryPositionalEmbedding | None = None,
        eps: float = 1e-5,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.ln1 = RMSNorm(d_model, eps, device, dtype)
        self.attn = MultiHeadSelfAttention(d_model, num_heads, rope, device, dtype)
        self.ln2 = RMSNorm(d_model, eps, device, dtype)
        self.ffn = SwiGLU(d_model, d_ff, device, dtype)

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """(..., seq, d_model) -> the same; arguments as for the attention."""
        x = x + self.attn(self.ln1(x), token_positions, cache)
        return x + self.ffn(self.ln2(x))


class TransformerLM(Module):
    """A decoder-only Transformer language model of the shape that ``config`` says.

    Args:
        config: the shape; its ``vocab_size`` must be filled in.
        device: where the weights are made ("meta" and ``to_empty`` + ``reset_parameters`` work).
        dtype: of the weights.
    """

    def __init__(
        self, config: ModelConfig, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise UsageError("model.vocab_size is not set: say how many token ids there are")
        self.config = config
        rope = RotaryPositionalEmbedding(
            config.rope_theta, config.d_head, config.context_length, device
        )
        self.token_embeddings = Embedding(config.vocab_size, config.d_model, device, dtype)
        self.layers = ModuleList(
            TransformerBlock(
                config.d_model,
                config.num_heads,
                config.ffn_width,
                rope,
                config.rms_norm_eps,
                device,
                dtype,
            )
            for _ in range(config.num_layers)
        )
        self.ln_final = RMSNorm(config.d_model, config.rms_norm_eps, device, dtype)
        self.lm_head = Linear(config.d_model, config.vocab_size, device, dtype)

    def reset_parameters(self) -> None:
        """Draws every weight anew, in the order of construction."""
        for module in self.modules():
            if isinstance(module, Linear | Embedding | RMSNorm):
                module.reset_parameters()

    def use_fp8(self, fp8: bool) -> None:
        """Whether the blocks' projections multiply in eight bits (not ``lm_head``'s)."""
        for module in self.layers.modules():
            if isinstance(module, Linear):
                module.fp8 = fp8

    def forward(
        self,
        token_ids: Int[Tensor, "... seq"],
        targets: Int[Tensor, "... seq"] | None = None,
        *,
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "... seq vocab"] | Float[Tensor, ""]:
        """Logits (..., seq, vocab) of each token's successor, or with ``targets`` the mean loss.

        Args:
            token_ids: at most ``context_length`` of them per sequence.
            targets: the successors' ids. Then the mean cross-entropy in nats is returned, as a
                scalar, and the logits never exist all at once.
            token_positions: None means 0, 1, 2, ...
            cache: earlier tokens' keys and values, see :mod:`cs336lm.model.kv_cache`.
        """
        hidden = self.hidden_states(token_ids, token_positions, cache)
        if targets is None:
            return self.lm_head(hidden)
        return linear_cross_entropy(hidden, self.lm_head.weight, targets)

    def hidden_states(
        self,
        token_ids: Int[Tensor, "... seq"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """What ``lm_head`` sees: (..., seq, d_model), normalised."""
        if token_ids.shape[-1] > self.config.context_length:
            raise ValueError(
                f"{token_ids.shape[-1]} tokens are more than the model's context_length of "
                f"{self.config.context_length}"
            )
        x = self.token_embeddings(token_ids)
        layer_caches = [None] * len(self.layers) if cache is None else cache.layers
        for layer, layer_cache in zip(self.layers, layer_caches, strict=True):
            x = layer(x, token_positions, layer_cache)
        return self.ln_final(x)
