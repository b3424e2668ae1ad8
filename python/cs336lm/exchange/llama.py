"""What a model of ours and a Llama have in common: names of weights, places of their rows.

A model here is a Llama (Touvron et al. 2023) as long as its configuration chooses nothing that no
Llama has. Two things differ. The names; and RoPE, which turns neighbours (dimensions 2k and 2k + 1)
here, as in the paper, and halves (k and k + d / 2) in Hugging Face's library. Attention does not
see in which order a head's dimensions stand, as long as queries and keys agree: so the rows of
both change places, head by head, and everything computes what it did.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

_OF_A_LAYER = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "ffn.w1": "mlp.gate_proj",
    "ffn.w2": "mlp.down_proj",
    "ffn.w3": "mlp.up_proj",
}

# Fields that any Llama may have in any value; the others must be as they are by default.
_ANY_VALUE = {
    *("vocab_size", "context_length", "d_model", "num_layers", "num_heads", "num_kv_heads", "d_ff"),
    *("rope_theta", "rope_scaling", "rope_scaling_factor", "rope_original_context_length"),
    *("rope_low_freq_factor", "rope_high_freq_factor", "rms_norm_eps", "tie_embeddings"),
    "zero_init",  # only how weights begin
}


def hugging_face_names(config: ModelConfig) -> dict[str, str]:
    """Our name of each weight -> its name in ``LlamaForCausalLM``."""
    names = {"token_embeddings.weight": "model.embed_tokens.weight"}
    for layer in range(config.num_layers):
        for ours, theirs in _OF_A_LAYER.items():
            names[f"layers.{layer}.{ours}.weight"] = f"model.layers.{layer}.{theirs}.weight"
    return names | {"ln_final.weight": "model.norm.weight", "lm_head.weight": "lm_head.weight"}


def is_rotated(name: str) -> bool:
    """Whether RoPE turns what the weight of our ``name`` makes."""
    return name.endswith(("attn.q_proj.weight", "attn.k_proj.weight"))


def neighbours_to_halves(weight: Tensor, d_head: int) -> Tensor:
    """Rows (heads * d_head, in): in each head 0, 1, 2, 3, ... become 0, 2, ..., then 1, 3, ..."""
    heads = weight.view(-1, d_head // 2, 2, weight.shape[-1])
    return heads.transpose(1, 2).reshape(weight.shape)


def halves_to_neighbours(weight: Tensor, d_head: int) -> Tensor:
    """The inverse of :func:`neighbours_to_halves`."""
    heads = weight.view(-1, 2, d_head // 2, weight.shape[-1])
    return heads.transpose(1, 2).reshape(weight.shape)


def refuse_what_no_llama_has(config: ModelConfig, format: str) -> None:
    """Raises ``UsageError`` naming every choice that a Llama in ``format`` could not hold."""
    odd = [
        f"model.{field.name} = {getattr(config, field.name)!r}"
        for field in dataclasses.fields(config)
        if field.name not in _ANY_VALUE and getattr(config, field.name) != field.default
    ]
    if odd:
        raise UsageError(
            f"no Llama has {' or '.join(odd)}, so there is no {format} of this model; "
            "--format safetensors writes the weights alone"
        )
