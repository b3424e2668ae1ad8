"""cs336lm: raw text in, a trained Transformer language model and generated text out.

Every public name is importable from here and loaded when first used, so that
``import cs336lm`` costs nothing and the tokenizer works without importing PyTorch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Which room each public name lives in.
_ROOMS = {
    "text.tokenizer": ("Tokenizer",),
    "text.training": ("count_pretokens", "train_bpe"),
    "data": ("BatchLoader", "TokenDataset", "get_batch"),
    "model.functional": (
        "cross_entropy",
        "perplexity",
        "scaled_dot_product_attention",
        "silu",
        "softmax",
    ),
    "model.layers": (
        "Embedding",
        "Linear",
        "MultiHeadSelfAttention",
        "RMSNorm",
        "RotaryPositionalEmbedding",
        "SwiGLU",
    ),
    "model": ("ModelConfig", "TransformerBlock", "TransformerLM"),
    "optim": ("SGD", "AdaGrad", "AdamW", "clip_gradients"),
    "optim.schedules": ("lr_cosine_schedule",),
    "training.checkpoints.checkpoint": ("load_checkpoint", "save_checkpoint"),
    "training.config": ("Config",),
    "training.trainer": ("Trainer",),
    "generation": ("generate",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *sorted(_ROOM_OF)]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'cs336lm' has no attribute {name!r}")
    value = getattr(import_module(f"cs336lm.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOM_OF])
