"""Randomness with an address: anything drawn once can be drawn again, anywhere, in any order.

A generator is made from a seed and an address (`generator(seed, "example", epoch, index)`), never
consumed from a shared stream. So an example is the same on any rank, in any process and after any
resume, and two epochs differ because the epoch is part of the address.

`permute` is a pseudo-random permutation that is computed per index, not stored: shuffling a billion
documents costs no memory.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["generator", "permute"]

_FEISTEL_ROUNDS = 6


def _key(seed: int, address: tuple[str | int, ...]) -> bytes:
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in address)])
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


def generator(seed: int, *address: str | int) -> np.random.Generator:
    """Make the generator that belongs to one address.

    Args:
        seed: the run's seed; any integer.
        address: what is drawn, most general first, such as `"spans", epoch, index`.

    Returns:
        A Philox generator keyed by a 128-bit hash of seed and address; equal addresses give equal
        streams on every platform that numpy supports.
    """
    key = np.frombuffer(_key(seed, address)[:16], dtype="<u8").astype(np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def permute(
    index: npt.NDArray[np.int64], size: int, seed: int, *address: str | int
) -> npt.NDArray[np.int64]:
    """Map each index to its place in a pseudo-random permutation of `range(size)`.

    A balanced Feistel network over the next even power of two, walked until it lands inside
    (cycle walking; Black and Rogaway 2002). Nothing of length `size` is stored.

    Args:
        index: `[n]` values in `[0, size)`.
        size: length of the permuted range.
        seed: the run's seed.
        address: which permutation, such as `"order", epoch`.

    Returns:
        `[n]` values in `[0, size)`; a bijection over the whole range.
    """
    index = np.asarray(index, dtype=np.int64)
    assert size >= 1
    assert index.size == 0 or 0 <= index.min() <= index.max() < size
    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    keys = np.frombuffer(
        hashlib.blake2b(_key(seed, address), digest_size=8 * _FEISTEL_ROUNDS).digest(), dtype="<u8"
    )
    out = index.astype(np.uint64)
    todo = np.ones(out.shape, dtype=bool)
    while todo.any():
        value = out[todo]
        left, right = value >> shift, value & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        out[todo] = (left << shift) | right
        todo[todo] = out[todo] >= np.uint64(size)
    return out.astype(np.int64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64 bits (the finaliser of splitmix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
