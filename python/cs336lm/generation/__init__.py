"""A trained model in, text out."""

from cs336lm.generation.engine import (
    END_OF_TEXT,
    Piece,
    check_vocabularies,
    encode_prompt,
    generate,
    generate_ids,
    has_end_of_text,
    stream,
    window_start,
)

__all__ = [
    "END_OF_TEXT",
    "Piece",
    "check_vocabularies",
    "encode_prompt",
    "generate",
    "generate_ids",
    "has_end_of_text",
    "stream",
    "window_start",
]
