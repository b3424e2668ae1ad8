"""Random numbers that depend on nothing but (seed, sample, position).

A generator has a state, so what it draws next depends on what was drawn before, and by whom. Here a
number is a hash of where it is used: whoever else is in the batch, in whatever order sequences come
and go, the same sequence draws the same. The hash is SplitMix64 (Steele, Lea and Flood 2014, "Fast
Splittable Pseudorandom Number Generators"), whose n-th output is a function of seed + n * gamma.
"""

import numpy as np
from numpy.typing import NDArray

_GAMMA = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_BITS = 48  # few enough that one less than all of them, in float64, is below 1


def stream_key(seed: int, sample: int) -> int:
    """The number that stands for sample ``sample`` of a prompt with ``seed``: 64 bits."""
    # Hashed twice, so that neighbouring seeds and samples have nothing in common.
    key = _mixed(np.array([seed & _WORD], dtype=np.uint64))
    return int(_mixed(key + np.uint64(sample * _GAMMA & _WORD))[0])


def uniforms(keys: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number for each key at its position, strictly between 0 and 1."""
    bits = _mixed(keys + positions * np.uint64(_GAMMA)) >> np.uint64(64 - _BITS)
    return (bits.astype(np.float64) + 0.5) / float(1 << _BITS)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number's hash; arithmetic is modulo 2^64."""
    x = x + np.uint64(_GAMMA)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
