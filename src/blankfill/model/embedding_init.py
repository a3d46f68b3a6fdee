"""A word embedding that begins from the company its tokens keep.

A random embedding has a handful of updates to learn what a rare token is like. Counting neighbours
in the training text takes seconds and says most of it: the truncated singular value decomposition
of positive pointwise mutual information is the closed form of what word vectors are trained to
(Levy and Goldberg 2014, "Neural word embedding as implicit matrix factorization"; the smoothed
context law and the root of the singular values are of Levy, Goldberg and Dagan 2015). Norms stay
those of the random law, so the first steps have the scale that it was chosen for.

Shapes: V vocabulary, C contexts, D hidden.
"""

from __future__ import annotations

import torch

from blankfill.model.init import draw_normal

__all__ = ["embed_neighbours", "neighbour_vectors"]

CONTEXT_POWER = 0.75
"""Contexts weigh by frequency to this power, so that rare ones do not dominate."""
MIN_COUNT = 2
"""Tokens that were read less often keep their random vector."""
OVERSAMPLING, ITERATIONS = 32, 3
"""Of the randomised decomposition (Halko, Martinsson and Tropp 2011)."""


@torch.no_grad()
def embed_neighbours(
    weight: torch.Tensor, counts: torch.Tensor, frequency: torch.Tensor, seed: int
) -> int:
    """Replace a word embedding's random rows by vectors of their tokens' neighbours.

    Args:
        weight: `[V, D]` the embedding with its first values.
        counts: `[V, C]` weighted counts of neighbours, a row for each row of the embedding.
        frequency: `[V]` how often each token was read.
        seed: the run's seed.

    Returns:
        Rows that were replaced.
    """
    size = weight.shape[1]
    vectors = neighbour_vectors(counts, size, seed)
    norms = vectors.norm(dim=1, keepdim=True)
    known = (frequency >= MIN_COUNT) & (norms.squeeze(1) > 0)
    scale = weight.square().mean().sqrt() * size**0.5
    rows = known.nonzero().squeeze(1)
    weight[rows] = (vectors[rows] / norms[rows] * scale).to(weight)
    return len(rows)


def neighbour_vectors(counts: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """Factor the positive pointwise mutual information of counts.

    Args:
        counts: `[V, C]`, not negative, float32 or float64.
        size: D.
        seed: of the decomposition's random start and of the rotation.

    Returns:
        `[V, D]`: centred left singular vectors, each times the root of its singular value, turned
        at random so that no coordinate is special. Where there are fewer contexts than D, the
        vectors lie in a subspace; tokens without neighbours have the zero vector.
    """
    own = counts.sum(1, keepdim=True)
    context = counts.sum(0, keepdim=True) ** CONTEXT_POWER
    expected = own * (context / context.sum())
    information = (counts / expected).log_().clamp_(min=0).nan_to_num_(nan=0.0)  # 0 / 0 is unseen
    left, values = _decompose(information, size, seed)
    vectors = left * values.sqrt()
    seen = own.squeeze(1) > 0
    vectors -= vectors[seen].mean(0) if seen.any() else 0.0
    vectors[~seen] = 0.0
    turn = torch.linalg.qr(_start(size, size, seed, "turn", vectors))[0]
    return vectors @ turn[: vectors.shape[1]]


def _decompose(matrix: torch.Tensor, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the leading left singular vectors and values by subspace iteration."""
    wanted = min(size, *matrix.shape)
    width = min(size + OVERSAMPLING, *matrix.shape)
    basis = matrix @ _start(matrix.shape[1], width, seed, "start", matrix)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(basis)[0]
        basis = matrix @ torch.linalg.qr(matrix.T @ basis)[0]
    basis = torch.linalg.qr(basis)[0]
    left, values, _ = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ left[:, :wanted], values[:wanted]


def _start(rows: int, columns: int, seed: int, name: str, like: torch.Tensor) -> torch.Tensor:
    return draw_normal((rows, columns), 1.0, seed, f"neighbours.{name}").to(like)
