"""Token ids in, logits and loss out: the Transformer, from its parts.

``ModelConfig`` is plain data and needs no PyTorch; the other names import it when first used.
"""

from typing import TYPE_CHECKING

from cs336lm.lazy import lazy_names

if TYPE_CHECKING:
    from cs336lm.model.blocks import TransformerBlock
    from cs336lm.model.config import ModelConfig
    from cs336lm.model.transformer import TransformerLM

__all__ = ["ModelConfig", "TransformerBlock", "TransformerLM"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "config": ("ModelConfig",),
        "blocks": ("TransformerBlock",),
        "transformer": ("TransformerLM",),
    },
)
