"""Generation for many at once: sequences join and leave the batch at any step.

    add -> waiting -> read (prefill) -> [ decode -> choose ] ... -> ended
                        ^                   |
                        +-- window moved ---+

A :class:`BatchEngine` holds a model and the sequences that are being continued. Each call of its
``step`` reads some prompts, gives every other sequence one more token, and says what has happened.
A server calls it for as long as there is work (:mod:`cs336lm.generation.batching.engine`).
"""

from cs336lm.generation.batching.engine import BatchEngine
from cs336lm.generation.batching.request import PromptToken, Request, Token

__all__ = ["BatchEngine", "PromptToken", "Request", "Token"]
