"""The sizes that tensors come in, so that few shapes exist and rounding depends on nobody else.

A library's product rounds a row as its kernel does, and which kernel that is depends on how many
rows there are. Of a multiple of :data:`TILE` rows (and so of 8, 16, 256) PyTorch's CPU libraries
compute each alike, wherever it stands; a test says so. And attention sums over all slots of a
cache: how many those are is decided by the sequence's own length.
"""

import math

TILE = 8
"""Rows come in multiples of this."""

_SMALLEST = {False: 16, True: 64}
"""The shortest length, without and with a compiler: 0 to 15 more of padding cost next to nothing,
a compilation ten seconds."""


def tiled(rows: int) -> int:
    """``rows``, up to a multiple of :data:`TILE`."""
    return -(-rows // TILE) * TILE


def lengths(longest: int, *, compile: bool = False) -> list[int]:
    """The lengths that caches and prompts are padded to, up to ``longest``, itself the last.

    Powers of two, and what lies in the middle between two of them; for a compiler the powers alone.
    """
    found, length = [], _SMALLEST[compile]
    while length < longest:
        found.append(length)
        if not compile and length * 3 // 2 < longest and length >= 32:
            found.append(length * 3 // 2)
        length *= 2
    return [*found, longest]


def rows_for(rows: int, length: int) -> int:
    """The fewest, at least ``rows``, of ``length`` tokens each that are a multiple of tiles."""
    step = TILE // math.gcd(TILE, length)
    return -(-rows // step) * step
