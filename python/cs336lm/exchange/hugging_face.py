"""A run as a directory that Hugging Face's transformers opens as a Llama.

    config.json  generation_config.json  model.safetensors
    tokenizer.json  tokenizer_config.json  vocab.json  merges.txt

``AutoModelForCausalLM.from_pretrained`` gives the same logits to float32's rounding, as long as a
text fits in the context; a longer one, which ``generate`` here sees through a window, goes on there
with positions that the model never saw.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.exchange.llama import (
    hugging_face_names,
    is_rotated,
    neighbours_to_halves,
    refuse_what_no_llama_has,
)
from cs336lm.exchange.weights import converted, write_weights
from cs336lm.files import atomic_write, new_directory
from cs336lm.generation.engine import END_OF_TEXT, check_vocabularies

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cs336lm.model.config import ModelConfig
    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer


def write_hugging_face(
    model: TransformerLM, tokenizer: Tokenizer | None, out: Path, dtype: torch.dtype
) -> None:
    """Writes the directory ``out``, which must not be there yet, with weights in ``dtype``.

    Raises:
        UsageError: the model is no Llama (every choice that makes it none is named), or ``out`` is
            there already.
        ValueError: the tokenizer has ids that the model does not know, or a weight is too large
            for ``dtype``.
        OSError: a file cannot be written.
    """
    refuse_what_no_llama_has(model.config, "Hugging Face directory")
    if tokenizer is not None:
        check_vocabularies(model, tokenizer)
    with new_directory(out) as folder:
        weights = converted(hugging_face_weights(model), dtype)
        write_weights(weights, folder / "model.safetensors")
        _write_json(folder / "config.json", hugging_face_config(model.config, tokenizer, dtype))
        _write_json(folder / "generation_config.json", _generation_config(model.config, tokenizer))
        if tokenizer is not None:
            tokenizer.save(folder, with_checksums=False)


def hugging_face_weights(model: TransformerLM) -> dict[str, Tensor]:
    """The weights by the names of ``LlamaForCausalLM``, with rows where its RoPE wants them."""
    config, weights = model.config, model.state_dict()
    names = hugging_face_names(config)
    if config.tie_embeddings:  # the head is the embedding, and is not written twice
        del names["lm_head.weight"]
    return {
        theirs: neighbours_to_halves(weights[ours], config.d_head)
        if is_rotated(ours)
        else weights[ours]
        for ours, theirs in names.items()
    }


def hugging_face_config(
    config: ModelConfig, tokenizer: Tokenizer | None, dtype: torch.dtype
) -> dict[str, Any]:
    """``config.json``. What transformers would fill in otherwise (ids of Llama 2's) is said."""
    end = end_of_text_id(tokenizer)
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.d_head,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_embeddings,
        # transformers 5 reads the first, transformers 4 the other two.
        "rope_parameters": {"rope_theta": config.rope_theta, **_rope_scaling(config)},
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling == "none" else _rope_scaling(config),
        # Likewise.
        "dtype": name,
        "torch_dtype": name,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": None,
    }


def _rope_scaling(config: ModelConfig) -> dict[str, Any]:
    """How RoPE is stretched, in transformers' words."""
    scaling: dict[str, Any] = {"rope_type": config.rope_scaling.replace("none", "default")}
    if config.rope_scaling != "none":
        scaling["factor"] = config.rope_scaling_factor
    if config.rope_scaling == "llama3":
        scaling |= {
            "low_freq_factor": config.rope_low_freq_factor,
            "high_freq_factor": config.rope_high_freq_factor,
            "original_max_position_embeddings": config.rope_original_context_length,
        }
    return scaling


def end_of_text_id(tokenizer: Tokenizer | None) -> int | None:
    """The id between documents: it ends one, and the next begins after it."""
    if tokenizer is None or END_OF_TEXT not in tokenizer.special_tokens:
        return None
    return tokenizer.token_to_id(END_OF_TEXT)


def _generation_config(config: ModelConfig, tokenizer: Tokenizer | None) -> dict[str, Any]:
    end = end_of_text_id(tokenizer)
    settings: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None}
    if tokenizer is not None and config.vocab_size is not None:
        # Ids that stand for no text: a vocabulary may be wider than its tokenizer.
        unused = sorted(set(range(config.vocab_size)) - tokenizer.vocab.keys())
        if unused:
            settings["suppress_tokens"] = unused
    return settings


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")
