"""Uniform draws with an address: a hash of (seed, purpose, epoch, document, number of the draw).

Nothing is consumed from a stream, so the draws of a whole epoch are one vector operation, and
those of one document are the same on any rank, in any process, in any order. `rng.generator` gives
streams for what is drawn seldom; this is for what is drawn for every span.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["draw_bits", "permuted_ranks", "sort_keys", "uniform_draws"]

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
UInt64 = npt.NDArray[np.uint64]

KEY_BITS = 32
"""Bits of a sorting key; a batch sorts (example, key, rank) as one integer."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draw_bits(
    documents: Int64 | np.int64, draws: Int64 | np.int64, seed: int, *address: str | int
) -> UInt64:
    """Draw 64 random bits for each document and draw number.

    A stream of splitmix64 (Steele et al. 2014) for each document, started at a hash of its number.

    Args:
        documents: `[n]` document (or piece) numbers, or one of them.
        draws: `[n]` number of each draw, or one for all documents.
        seed: the run's seed.
        address: what is drawn, such as `"lengths", epoch`.

    Returns:
        `[n]`; an entry depends on its document and draw number alone.
    """
    text = "\x1f".join(map(str, (seed, *address)))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    bits = _mixed(np.atleast_1d(documents).astype(np.uint64) ^ np.uint64(key))
    return _mixed(bits + np.atleast_1d(draws).astype(np.uint64) * _GOLDEN)


def uniform_draws(
    documents: Int64 | np.int64, draws: Int64 | np.int64, seed: int, *address: str | int
) -> Float64:
    """Draw numbers in [0, 1), 53 bits each; arguments as those of `draw_bits`."""
    bits = draw_bits(documents, draws, seed, *address)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sort_keys(
    documents: Int64 | np.int64, draws: Int64 | np.int64, seed: int, *address: str | int
) -> npt.NDArray[np.int64]:
    """Draw integer keys below `2**KEY_BITS` whose order is a random permutation."""
    bits = draw_bits(documents, draws, seed, *address)
    return (bits >> np.uint64(64 - KEY_BITS)).astype(np.int64)


def permuted_ranks(owner: Int64, rank: Int64, keys: Int64) -> Int64:
    """Put the members of each group into the order of their keys, ties in the order they stand.

    Args:
        owner: `[s]` group of each member, ascending from 0.
        rank: `[s]` number of the member in its group, from 0.
        keys: `[s]` from `sort_keys`.

    Returns:
        `[s]` for each group the ranks of its members in their new order.
    """
    if not len(owner):
        return rank
    bits = int(rank.max()).bit_length()
    assert int(owner[-1]).bit_length() + KEY_BITS + bits < 64
    # Sorting whole integers is faster than sorting an index by them.
    order = (((owner << KEY_BITS) | keys) << bits) | rank
    order.sort()
    return order & ((1 << bits) - 1)


def _mixed(x: UInt64) -> UInt64:
    """Scramble 64 bits; changes no argument."""
    x = x + _GOLDEN
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
