"""The same model twice: ours, and transformers' LlamaForCausalLM with its weights.

Both are decoder-only, pre-norm, with RMSNorm, RoPE and SwiGLU, and compute the same function but
for the order of a head's dimensions: RoPE turns neighbours (2k, 2k + 1) here and halves
(k, k + d/2) there, so the rows of the query and key projections are permuted on the way.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from cs336lm.model import ModelConfig, TransformerLM
from torch import Tensor

ATTENTION = "sdpa"


def twin(model: TransformerLM) -> Any:
    """transformers' model of the same shape, device, dtype and weights."""
    from transformers import LlamaForCausalLM

    weight = model.lm_head.weight
    llama = LlamaForCausalLM(llama_config(model.config))
    llama.load_state_dict(_renamed(model))
    return llama.to(device=weight.device, dtype=weight.dtype)


def llama_config(config: ModelConfig) -> Any:
    """The shape in transformers' words."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        intermediate_size=config.ffn_width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        tie_word_embeddings=False,
        attn_implementation=ATTENTION,
        bos_token_id=None,
        eos_token_id=None,
    )


def _renamed(model: TransformerLM) -> dict[str, Tensor]:
    names = {
        "attn.q_proj": "self_attn.q_proj",
        "attn.k_proj": "self_attn.k_proj",
        "attn.v_proj": "self_attn.v_proj",
        "attn.output_proj": "self_attn.o_proj",
        "ffn.w1": "mlp.gate_proj",
        "ffn.w3": "mlp.up_proj",
        "ffn.w2": "mlp.down_proj",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    }
    weights = model.state_dict()
    state = {
        "model.embed_tokens.weight": weights.pop("token_embeddings.weight"),
        "model.norm.weight": weights.pop("ln_final.weight"),
        "lm_head.weight": weights.pop("lm_head.weight"),
    }
    for name, weight in weights.items():
        _, layer, rest = name.split(".", 2)
        part = rest.removesuffix(".weight")
        if part in ("attn.q_proj", "attn.k_proj"):
            weight = _halves(weight, model.config.num_heads)
        state[f"model.layers.{layer}.{names[part]}.weight"] = weight
    return state


def _halves(weight: Tensor, heads: int) -> Tensor:
    """The rows of each head with the even ones first, then the odd ones."""
    rows = weight.unflatten(0, (heads, -1, 2)).transpose(1, 2)
    return rows.reshape(weight.shape)


@torch.no_grad()
def loss_of(model: Any, x: Tensor, y: Tensor) -> float:
    """The mean loss of ``y`` given ``x``, by either of the two."""
    if isinstance(model, TransformerLM):
        return model(x, y).item()
    return model(input_ids=x, labels=y, shift_labels=y, use_cache=False).loss.item()


def check_same_loss(model: TransformerLM, llama: Any, x: Tensor, y: Tensor) -> str:
    """Ends the benchmark unless both models give the same loss; else says how close they are."""
    ours, theirs = loss_of(model, x, y), loss_of(llama, x, y)
    # What half precision rounds away, at most; in float32 they agree to five digits.
    tolerance = 1e-5 if model.lm_head.weight.dtype == torch.float32 else 1e-2
    if not abs(ours - theirs) <= tolerance * abs(theirs):
        sys.exit(f"the models differ: a loss of {ours} here, of {theirs} in transformers")
    return f"same weights, same batch: loss {ours:.6f}, transformers {theirs:.6f}"
