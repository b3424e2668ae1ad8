"""How much one server takes on: every queue, body and wait has an end, and each can be set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is refused, and how long is waited. Sizes are bytes, times are seconds."""

    max_prompt_tokens: int
    """Of one prompt."""
    max_new_tokens: int = 4096
    """Of one continuation."""
    max_sequences: int = 64
    """Texts that are continued at once: the batch."""
    max_queue: int = 256
    """Texts that wait for a place; beyond, requests are told to come again (429)."""
    max_body: int = 2_000_000
    """Of one request's body."""
    max_bodies: int = 64_000_000
    """Of all bodies that are being read or understood, together."""
    max_connections: int = 1000
    """Beyond, the connection that has been silent longest gives way to a new one."""
    head_seconds: float = 10.0
    """From a connection, or a request's first byte, to the end of its headers."""
    body_seconds: float = 30.0
    """From a request's headers to the end of its body."""
    idle_seconds: float = 30.0
    """Between two requests of one connection."""
    write_seconds: float = 30.0
    """Until a client has taken what was sent to it."""
    stop_seconds: float = 30.0
    """From a signal to the end of what is running."""

    @property
    def max_outstanding(self) -> int:
        """Texts that run or wait."""
        return self.max_sequences + self.max_queue
