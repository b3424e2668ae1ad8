"""Shapes of known models by name, as tables of a configuration. It imports no PyTorch.

GPT-2's shapes (Radford et al. 2019) are those of the CS336 handouts, which give them this package's
blocks: SwiGLU, RMSNorm, RoPE, no biases, a head of its own. The handout of 2025 keeps GPT-2's
d_ff = 4 d_model, that of 2026 takes 8/3 d_model to a multiple of 64.
"""

from __future__ import annotations

import difflib
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig

Tables = dict[str, dict[str, Any]]
"""{section: {field: value}}, as a TOML file holds it."""


def _gpt2(d_model: int, num_layers: int, num_heads: int, d_ff: int | None) -> Tables:
    shape: dict[str, Any] = {
        "vocab_size": 50_257,
        "context_length": 1024,
        "d_model": d_model,
        "num_layers": num_layers,
        "num_heads": num_heads,
    }
    return {"model": shape if d_ff is None else {**shape, "d_ff": d_ff}}


PRESETS: dict[str, Tables] = {
    "tinystories": {
        "model": {
            "vocab_size": 10_000,
            "context_length": 256,
            "d_model": 512,
            "num_layers": 4,
            "num_heads": 16,
            "d_ff": 1344,
            "rope_theta": 10_000.0,
        }
    },
    "gpt2-small": _gpt2(768, 12, 12, 3072),
    "gpt2-medium": _gpt2(1024, 24, 16, 4096),
    "gpt2-large": _gpt2(1280, 36, 20, 5120),
    "gpt2-xl": _gpt2(1600, 48, 25, 6400),
    # Without a d_ff: it is the default, and follows where another width or network is asked for.
    "gpt2-small-2026": _gpt2(768, 12, 12, None),
    "gpt2-medium-2026": _gpt2(1024, 24, 16, None),
    "gpt2-large-2026": _gpt2(1280, 36, 20, None),
    "gpt2-xl-2026": _gpt2(1600, 48, 25, None),
}
"""Each says only what makes it that shape; everything else is as by default."""


def preset_tables(name: str) -> Tables:
    """What the preset ``name`` says, a copy to change.

    Raises ``UsageError``, naming those there are, if there is none of this name.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(PRESETS)}"
        raise UsageError(f"there is no preset {name!r}; {hint}")
    return {section: dict(table) for section, table in PRESETS[name].items()}


def preset_model(name: str) -> ModelConfig:
    """The model of a preset; errors as for :func:`preset_tables`."""
    return ModelConfig(**preset_tables(name)["model"])
