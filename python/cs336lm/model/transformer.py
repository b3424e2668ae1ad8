"""The language model: token ids in, logits of the next token (or the loss) out.

    ids (batch, seq) -> token_embeddings -> num_layers x TransformerBlock -> ln_final -> lm_head

Its ``state_dict`` has the names and shapes of CS336's first assignment.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module, ModuleList

from cs336lm.errors import UsageError
from cs336lm.model.blocks import BLOCKS, TransformerBlock
from cs336lm.model.config import ModelConfig
from cs336lm.model.embedding import Embedding
from cs336lm.model.initial import Device
from cs336lm.model.kernels.fp8 import fp8_linear
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.linear import Linear, head_cross_entropy, product
from cs336lm.model.norm import RMSNorm
from cs336lm.model.positions import POSITIONS

__all__ = ["ModelConfig", "TransformerBlock", "TransformerLM"]


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
        positions = POSITIONS[config.positions].from_config(config, device, dtype)
        block = BLOCKS[config.norm]
        self.token_embeddings = Embedding(config.vocab_size, config.d_model, device, dtype)
        self.layers = ModuleList(
            block.from_config(config, positions, device, dtype) for _ in range(config.num_layers)
        )
        self.ln_final = RMSNorm(config.d_model, config.rms_norm_eps, device, dtype)
        self.lm_head = Linear(config.d_model, config.vocab_size, device, dtype)
        self.lm_head.role = "head"

    def reset_parameters(self) -> None:
        """Draws every weight anew, in the order of construction."""
        for module in self.modules():
            if isinstance(module, Linear | Embedding | RMSNorm):
                module.reset_parameters()

    def use_fp8(self, fp8: bool) -> None:
        """Whether the blocks' projections multiply in eight bits (not ``lm_head``'s)."""
        for module in self.layers.modules():
            if isinstance(module, Linear):
                module.multiply = fp8_linear if fp8 else product

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
        assert self.config.vocab_size is not None  # checked above
        return head_cross_entropy(self.lm_head, hidden, targets, vocab_size=self.config.vocab_size)

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
