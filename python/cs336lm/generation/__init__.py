"""A trained model in, text out."""

from cs336lm.generation.engine import (
    END_OF_TEXT,
    Piece,
    check_vocabularies,
    continue_prompts,
    encode_prompt,
    generate,
    generate_ids,
    has_end_of_text,
    stream,
    window_start,
)
from cs336lm.generation.sampling import SamplingParams

__all__ = [
    "END_OF_TEXT",
    "Piece",
    "SamplingParams",
    "check_vocabularies",
    "continue_prompts",
    "encode_prompt",
    "generate",
    "generate_ids",
    "has_end_of_text",
    "stream",
    "window_start",
]
