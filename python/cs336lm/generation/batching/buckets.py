"""The sizes that tensors come in, so that few shapes exist and rounding depends on nobody else.

What a row of a tensor becomes must not depend on how many rows there are. A library's product
rounds as its kernel does, and which kernel that is depends on the rows: of a multiple of 8 all are
computed alike, wherever they stand (a test says so; on Intel's processors after the library has
been asked for it, ``model/processor.py``). A function like the exponential is computed for 32
numbers at once, and for the few at a tensor's end in another way: so there must be none. And
attention sums over all slots of a cache: how many those are is decided by the sequence's own
length.

With a number of threads that is no power of two, a tensor is cut at places where some numbers are
again few; then bits may differ, as they may on other devices than a CPU.
"""

import math

from cs336lm.model.config import ModelConfig

_PRODUCT = 8
_VECTOR = 32


def tile_of(config: ModelConfig, *, is_fast: bool) -> int:
    """What the number of rows must be a multiple of; ``is_fast``: where only d_ff matters.

    By its own forward a model may have a gate a head, and a head alone.
    """
    width = config.ffn_width if is_fast else 1
    return max(_PRODUCT, _VECTOR // math.gcd(_VECTOR, width))


_SMALLEST = {False: 16, True: 64}
"""The shortest length, without and with a compiler: 0 to 15 more of padding cost next to nothing,
a compilation ten seconds."""


def tiled(rows: int, tile: int) -> int:
    """``rows``, up to a multiple of ``tile``."""
    return -(-rows // tile) * tile


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
    """The fewest, at least ``rows``, of ``length`` tokens each that together leave no odd few."""
    return tiled(rows, _VECTOR // math.gcd(_VECTOR, length))


def row_steps(most: int, tile: int, *, compile: bool = False) -> list[int]:
    """The numbers of rows that a cache may have, in tiles, up to at least ``most``.

    Every tile more is one; for a compiler only those twice as large as the one before.
    """
    found = [tile]
    while found[-1] < most:
        found.append(2 * found[-1] if compile else found[-1] + tile)
    return found
