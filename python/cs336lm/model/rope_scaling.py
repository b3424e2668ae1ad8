"""How RoPE is stretched, so that a model can look further than it was trained to."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cs336lm.model.config import ModelConfig

Scaling = Callable[[Float[Tensor, " half"]], Float[Tensor, " half"]]
"""The angles by which a step of one position turns each pair -> the angles to turn by instead."""


def unscaled(frequencies: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
    """The same."""
    return frequencies


def linear(factor: float) -> Scaling:
    """All angles over ``factor``, as if positions were that much closer (Chen et al. 2023)."""
    return lambda frequencies: frequencies / factor


def llama3(factor: float, low: float, high: float, original_context_length: int) -> Scaling:
    """Wavelengths that the training context held many times stay, those it did not are stretched.

    A pair that turned more than ``high`` times within ``original_context_length`` stays as it is,
    one that turned less than ``low`` times is slowed down by ``factor``, and those in between by
    something in between, linear in the number of turns (as in the code that came with Llama 3.1,
    Grattafiori et al. 2024).
    """

    def scale(frequencies: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
        turns = original_context_length * frequencies / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return torch.lerp(frequencies / factor, frequencies, kept)

    return scale


ROPE_SCALINGS: dict[str, Callable[[ModelConfig], Scaling]] = {
    "none": lambda config: unscaled,
    "linear": lambda config: linear(config.rope_scaling_factor),
    "llama3": lambda config: llama3(
        config.rope_scaling_factor,
        config.rope_low_freq_factor,
        config.rope_high_freq_factor,
        config.rope_original_context_length,
    ),
}
"""By ``ModelConfig.rope_scaling``."""
