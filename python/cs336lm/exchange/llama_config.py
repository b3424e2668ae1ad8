"""What ``config.json`` of a Llama says, as a :class:`~cs336lm.model.config.ModelConfig`.

transformers 5 keeps all about RoPE in ``rope_parameters``, transformers 4 in ``rope_theta`` and
``rope_scaling``; a file may have both. What a file leaves out is as in transformers'
``LlamaConfig``, but for the sizes, which it must say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cs336lm.json_files import read_json
from cs336lm.model.config import ModelConfig

_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}

# Keys and the only values of them that are what our model does (None: or left out).
_ONLY = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "sliding_window": (None,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1,),
    "quantization_config": (None,),
    "auto_map": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_qk_norm": (False,),
    "qk_norm": (False,),
}

_SCALINGS = ("default", "linear", "llama3")


def read_llama_config(path: Path, context_length: int | None = None) -> ModelConfig:
    """The model that a ``config.json`` describes, with another context if one is said.

    Raises ``OSError`` if the file cannot be read and ``ValueError`` if it is no configuration of a
    Llama, or of one that a model here cannot be: then everything that it cannot be is named.
    """
    try:
        values = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not the configuration of a model: it is not a JSON object")
    try:
        return _model_config(values, context_length)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def end_of_text_ids(path: Path) -> list[int]:
    """The ids that end a text, as a readable ``config.json`` says: none, one or several."""
    ids = read_json(path).get("eos_token_id")
    return [token for token in (ids if isinstance(ids, list) else [ids]) if isinstance(token, int)]


def _model_config(values: dict[str, Any], context_length: int | None) -> ModelConfig:
    kind = values.get("model_type")
    architectures = values.get("architectures") or ["LlamaForCausalLM"]
    if kind != "llama" or architectures != ["LlamaForCausalLM"]:
        what = kind if kind != "llama" else ", ".join(map(str, architectures))
        raise ValueError(f"the architecture is {what!r}: only LlamaForCausalLM can be imported")
    missing = [name for name in _SIZES if values.get(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    rope = _rope(values)
    refused = [
        f"{name} = {values[name]!r}"
        for name, allowed in _ONLY.items()
        if values.get(name) is not None and values[name] not in allowed
    ]
    refused += _other_layers(values)
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if (size := values.get("head_dim")) is not None and size * heads != width:
        refused.append(f"head_dim = {size}, which is not hidden_size / num_attention_heads")
    if rope["rope_type"] not in _SCALINGS:
        refused.append(f"rope_type = {rope['rope_type']!r} (of RoPE's {', '.join(_SCALINGS)})")
    if rope.get("partial_rotary_factor", 1) != 1:
        refused.append(f"partial_rotary_factor = {rope['partial_rotary_factor']!r}")
    if refused:
        raise ValueError(f"a model here cannot have {'; nor '.join(refused)}")
    return ModelConfig(
        **{ours: values[theirs] for theirs, ours in _SIZES.items()},
        context_length=context_length or values.get("max_position_embeddings") or 2048,
        num_kv_heads=values.get("num_key_value_heads"),
        rms_norm_eps=values.get("rms_norm_eps", 1e-6),
        tie_embeddings=bool(values.get("tie_word_embeddings")),
        rope_theta=float(rope["rope_theta"]),
        **_scaling(rope, values),
    )


def _rope(values: dict[str, Any]) -> dict[str, Any]:
    """All about RoPE under the names of transformers 5."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ValueError(f"rope_parameters are not those of one RoPE for all layers: {rope!r}")
    return {
        "rope_theta": values.get("rope_theta", 10_000.0),
        "rope_type": rope.get("type", "default"),
        **rope,
    }


def _scaling(rope: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    kind = rope["rope_type"]
    if kind == "default":
        return {}
    try:
        scaling = {"rope_scaling": kind, "rope_scaling_factor": float(rope["factor"])}
        if scaling["rope_scaling_factor"] == 1:
            return {}
        if kind == "llama3":
            before = rope.get("original_max_position_embeddings")
            scaling |= {
                "rope_low_freq_factor": float(rope["low_freq_factor"]),
                "rope_high_freq_factor": float(rope["high_freq_factor"]),
                "rope_original_context_length": before or values["max_position_embeddings"],
            }
    except KeyError as error:
        raise ValueError(f"rope_type {kind} needs {error.args[0]}, which is missing") from None
    return scaling


def _other_layers(values: dict[str, Any]) -> list[str]:
    kinds = sorted(set(values.get("layer_types") or ()) - {"full_attention"})
    return [f"layers of {kind}" for kind in kinds]
