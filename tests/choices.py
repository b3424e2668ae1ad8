"""Every choice of the model, one at a time and together, as changes to a small configuration."""

import dataclasses

import torch
from cs336lm.model import ModelConfig, TransformerLM

BASE = ModelConfig(
    vocab_size=50, context_length=12, d_model=32, num_layers=3, num_heads=4, rope_theta=100.0
)

CHOICES = {
    "default": {},
    "post-norm": {"norm": "post"},
    "no-norm": {"norm": "none"},
    "nope": {"positions": "none"},
    "silu": {"ffn": "silu"},
    "relu2": {"ffn": "relu2"},
    "tied": {"tie_embeddings": True},
    "two-kv-heads": {"num_kv_heads": 2},
    "one-kv-head": {"num_kv_heads": 1},
    "qk-norm": {"qk_norm": True},
    "softcap": {"logit_softcap": 2.0},
    "zero-init": {"zero_init": True},
    "residual-scalars": {"residual_scalars": True},
    "value-embeddings": {"value_embeddings": True},
    "linear-rope": {"rope_scaling": "linear", "rope_scaling_factor": 4.0},
    "llama3-rope": {
        "rope_scaling": "llama3",
        "rope_scaling_factor": 8.0,
        "rope_original_context_length": 64,
    },
    "many": {
        "ffn": "relu2",
        "num_kv_heads": 2,
        "qk_norm": True,
        "logit_softcap": 2.0,
        "zero_init": True,
        "residual_scalars": True,
        "value_embeddings": True,
        "tie_embeddings": True,
        "rope_scaling": "linear",
        "rope_scaling_factor": 2.0,
    },
    "many-for-the-fast-decoder": {
        "ffn": "silu",
        "num_kv_heads": 2,
        "qk_norm": True,
        "logit_softcap": 2.0,
        "zero_init": True,
        "tie_embeddings": True,
        "positions": "none",
    },
    "many-with-post-norm": {
        "norm": "post",
        "num_kv_heads": 1,
        "qk_norm": True,
        "residual_scalars": True,
        "value_embeddings": True,
    },
    "many-without-norms": {
        "norm": "none",
        "num_kv_heads": 1,
        "rope_scaling": "llama3",
        "rope_scaling_factor": 8.0,
        "rope_original_context_length": 64,
    },
}

# Between them they have every value of every choice: for what is slow.
TOGETHER = [choice for choice in CHOICES if choice.startswith("many")]

# What only the model's own forward decodes.
NOT_FAST = {"post-norm", "residual-scalars", "value-embeddings", "many", "many-with-post-norm"}


def config_of(choice: str, base: ModelConfig = BASE) -> ModelConfig:
    return dataclasses.replace(base, **CHOICES[choice])


def model_of(
    choice: str, dtype: torch.dtype = torch.float64, seed: int = 0, **sizes: int
) -> TransformerLM:
    """A model all of whose parameters are random: at its start a choice may change nothing."""
    torch.manual_seed(seed)
    model = TransformerLM(dataclasses.replace(config_of(choice), **sizes), dtype=dtype).to(dtype)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)
    return model
