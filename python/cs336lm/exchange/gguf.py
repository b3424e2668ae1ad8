"""A run as one GGUF file, for llama.cpp and its family: weights, configuration and tokenizer.

The architecture is ``llama``, whose RoPE turns neighbours as ours does, so weights go over as they
are. Written by the package ``gguf``, tensor by tensor. llama.cpp's own converter could not do it:
it knows a tokenizer by a hash of what it makes of a certain text, and knows none that is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.errors import UsageError
from cs336lm.exchange.gguf_tokenizer import add_tokenizer
from cs336lm.exchange.llama import refuse_what_no_llama_has
from cs336lm.files import atomic_write
from cs336lm.generation.engine import check_vocabularies

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cs336lm.model.config import ModelConfig
    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer

# By --dtype: what matrices are stored in, and what the file says of itself.
TYPES = {
    "float32": ("F32", "ALL_F32"),
    "float16": ("F16", "MOSTLY_F16"),
    "bfloat16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}

_OF_A_LAYER = {
    "ln1": "attn_norm",
    "attn.q_proj": "attn_q",
    "attn.k_proj": "attn_k",
    "attn.v_proj": "attn_v",
    "attn.output_proj": "attn_output",
    "ln2": "ffn_norm",
    "ffn.w1": "ffn_gate",
    "ffn.w2": "ffn_down",
    "ffn.w3": "ffn_up",
}


def write_gguf(
    model: TransformerLM, tokenizer: Tokenizer | None, out: Path, dtype: str
) -> list[str]:
    """Writes the file ``out``; gains are in float32, matrices in ``dtype`` (of ``TYPES``).

    Returns what the user should know, a line each.

    Raises:
        UsageError: the model is no Llama (every choice that makes it none is named), or llama.cpp
            knows no such pattern; the package is missing.
        ValueError: the tokenizer is of another size, or one that the format cannot hold; a weight
            is too large for ``dtype``.
        OSError: the file cannot be written.
    """
    gguf = _library()
    refuse_what_no_llama_has(model.config, "GGUF")
    if tokenizer is not None:
        check_vocabularies(model, tokenizer)
    # llama.cpp would generate ids of no token: those above the tokenizer's are left out.
    vocab_size = model.token_embeddings.num_embeddings
    if tokenizer is not None:
        vocab_size = tokenizer.vocab_size
    tensors = list(_tensors(model, vocab_size))
    kind, file_type = TYPES[dtype]
    kinds = {name: _type_of(gguf, weight, kind) for name, weight in tensors}
    with atomic_write(out) as file:
        writer = gguf.GGUFWriter(file.name, "llama")  # the same file, opened once more
        _add_config(gguf, writer, model.config, vocab_size)
        writer.add_file_type(gguf.LlamaFileType[file_type])
        if kind == "Q8_0":
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        notes = add_tokenizer(gguf, writer, tokenizer)
        for name, weight in tensors:
            block, size = gguf.GGML_QUANT_SIZES[kinds[name]]
            bytes = weight.numel() // block * size
            writer.add_tensor_info(name, weight.shape, _float32(), bytes, raw_dtype=kinds[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, weight in tensors:
            writer.write_tensor_data(_stored(gguf, name, weight, kinds[name]))
        writer.close()
    wide = sorted(name for name in kinds if kind == "Q8_0" and kinds[name].name == "F16")
    if wide:
        notes.append(
            f"{wide[0]}{f' and {len(wide) - 1} more' if len(wide) > 1 else ''} in float16: q8_0 "
            "takes rows of a multiple of 32"
        )
    return notes


def _tensors(model: TransformerLM, vocab_size: int) -> Iterator[tuple[str, Tensor]]:
    """The weights by GGUF's names, in the order in which a text meets them."""
    config, weights = model.config, model.state_dict()
    yield "token_embd.weight", weights["token_embeddings.weight"][:vocab_size]
    if config.rope_scaling == "llama3":
        yield "rope_freqs.weight", _stretches(config)
    for layer in range(config.num_layers):
        for ours, theirs in _OF_A_LAYER.items():
            yield f"blk.{layer}.{theirs}.weight", weights[f"layers.{layer}.{ours}.weight"]
    yield "output_norm.weight", weights["ln_final.weight"]
    if not config.tie_embeddings:  # without one, the embedding is taken
        yield "output.weight", weights["lm_head.weight"][:vocab_size]


def _stretches(config: ModelConfig) -> Tensor:
    """(d_head / 2,): by what Llama 3's scaling divides the angle of each pair."""
    import torch

    from cs336lm.model.rope_scaling import ROPE_SCALINGS

    exponents = torch.arange(0, config.d_head, 2, dtype=torch.float64) / config.d_head
    frequencies = config.rope_theta**-exponents
    scaled = ROPE_SCALINGS[config.rope_scaling](config)(frequencies)
    return (frequencies / scaled).float()


def _add_config(gguf: Any, writer: Any, config: ModelConfig, vocab_size: int) -> None:
    writer.add_vocab_size(vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.d_head)
    writer.add_value_length(config.d_head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.d_head)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling_factor)


def _type_of(gguf: Any, weight: Tensor, kind: str) -> Any:
    """What a tensor is stored in: gains in float32, as every tool expects."""
    types = gguf.GGMLQuantizationType
    if weight.ndim == 1:
        return types.F32
    block, _ = gguf.GGML_QUANT_SIZES[types[kind]]
    return types[kind] if weight.shape[-1] % block == 0 else types.F16


def _stored(gguf: Any, name: str, weight: Tensor, kind: Any) -> Any:
    import numpy as np

    values = weight.detach().float().cpu().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        stored = gguf.quantize(values, kind)
        back = gguf.dequantize(stored, kind) if kind.name in ("F16", "Q8_0") else None
    # What float16 cannot hold became infinite; so did the scale of a block in eight bits.
    if back is not None and np.isfinite(values).all() and not np.isfinite(back).all():
        raise ValueError(
            f"{name} holds {np.abs(values).max():.4g}, which {kind.name.lower()} cannot: use "
            "another --dtype"
        )
    return stored


def _float32() -> np.dtype[Any]:
    import numpy as np

    return np.dtype(np.float32)


def _library() -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise UsageError("it needs the package gguf: pip install 'cs336lm[gguf]'") from None
    return gguf
