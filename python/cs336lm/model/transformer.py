"""The language model: token ids in, logits of the next token (or the loss) out.

    ids (batch, seq) -> token_embeddings -> num_layers x TransformerBlock -> ln_final -> lm_head

Its ``state_dict`` has the names and shapes of CS336's first assignment. What a choice adds
(:class:`~cs336lm.model.config.ModelConfig`) has a name of its own, what it leaves out has none:

    layers.{i}.attn.q_norm.weight, .k_norm.weight           qk_norm             (d_head,) each
    layers.{i}.attn.value_embedding.table.weight            value_embeddings    (vocab, d_kv)
    layers.{i}.attn.value_embedding.gate.weight                                 (kv_heads, 32)
    layers.{i}.residual.weight                              residual_scalars    (2,)

With ``tie_embeddings`` both names, ``token_embeddings.weight`` and ``lm_head.weight``, stand for
one tensor; a state dict that has only one of them is loaded as well.
"""

from collections.abc import Callable
from typing import Any, Self

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
from cs336lm.model.norm import FINAL_NORMS, RMSNorm
from cs336lm.model.positions import POSITIONS
from cs336lm.model.residual import ResidualScalars
from cs336lm.model.softcap import Softcap, Uncapped

__all__ = ["ModelConfig", "TransformerBlock", "TransformerLM"]


class TransformerLM(Module):
    """A decoder-only Transformer language model of the shape that ``config`` says.

    Args:
        config: the shape; its ``vocab_size`` must be filled in.
        device: where the weights are made ("meta" and ``to_empty`` + ``reset_parameters`` work).
        dtype: of the weights.

    Examples:
        >>> config = ModelConfig(
        ...     vocab_size=100, context_length=16, d_model=32, num_layers=2, num_heads=4
        ... )
        >>> model = TransformerLM(config)
        >>> model(torch.zeros(3, 16, dtype=torch.long)).shape
        torch.Size([3, 16, 100])
        >>> next(iter(model.state_dict()))
        'token_embeddings.weight'
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
            block.from_config(config, layer, positions, device, dtype)
            for layer in range(config.num_layers)
        )
        self.ln_final = FINAL_NORMS[config.norm](config.d_model, config.rms_norm_eps, device, dtype)
        head_std = 0 if config.zero_init and not config.tie_embeddings else None
        self.lm_head = Linear(config.d_model, config.vocab_size, device, dtype, std=head_std)
        self.lm_head.role = "head"
        self.softcap = Softcap(config.logit_softcap) if config.logit_softcap else Uncapped()
        if config.tie_embeddings:
            self._tie()
            self.register_load_state_dict_pre_hook(_load_tied)

    def _tie(self) -> None:
        """Makes the embedding the head's matrix, drawn as the head's is."""
        self.token_embeddings.std = self.lm_head.std
        self.token_embeddings.weight = self.lm_head.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Keeps together what is tied: leaving "meta", each module gets a parameter of its own."""
        super()._apply(fn, recurse)
        if self.config.tie_embeddings and type(self.lm_head) is Linear:
            self._tie()
        return self

    def reset_parameters(self) -> None:
        """Draws every weight anew, in the order of construction."""
        for module in self.modules():
            if isinstance(module, Linear | Embedding | RMSNorm | ResidualScalars):
                module.reset_parameters()

    def use_fp8(self, fp8: bool) -> None:
        """Whether the blocks' projections multiply in eight bits (not ``lm_head``, nor a gate)."""
        for module in self.layers.modules():
            if isinstance(module, Linear) and module.role == "matrix":
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
            return self.logits(hidden)
        assert self.config.vocab_size is not None  # checked above
        return head_cross_entropy(
            self.lm_head,
            hidden,
            targets,
            vocab_size=self.config.vocab_size,
            softcap=self.softcap,
        )

    def logits(self, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """What the head makes of :meth:`hidden_states`."""
        logits: Tensor = self.softcap(self.lm_head(hidden))
        return logits

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
        x = embedded = self.token_embeddings(token_ids)
        layer_caches = [None] * len(self.layers) if cache is None else cache.layers
        for layer, layer_cache in zip(self.layers, layer_caches, strict=True):
            x = layer(x, token_positions, layer_cache, token_ids, embedded)
        return self.ln_final(x)


def _load_tied(
    module: Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Before a tied model is loaded: one of the two names is enough, and both must be the same."""
    embedding, head = prefix + "token_embeddings.weight", prefix + "lm_head.weight"
    found = [state_dict[name] for name in (embedding, head) if name in state_dict]
    for name in (embedding, head) if found else ():
        state_dict.setdefault(name, found[0])
    if len(found) == 2 and found[0] is not found[1] and not torch.equal(*found):
        error_msgs.append(
            f"{embedding} and {head} differ, but model.tie_embeddings makes them one tensor"
        )
