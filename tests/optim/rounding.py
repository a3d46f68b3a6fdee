"""How far rounding may move the result of Muon's products."""

import numpy as np
import torch

from blankfill.optim.muon import NEWTON_SCHULZ

SIGMAS = 12
"""Six standard deviations leave out one entry in 500 million. Twice as many, as roundings are not
quite independent (a Gram matrix's are the same on both sides of its diagonal), and as bfloat16's
are so large that their second order counts."""


def rounding_of_muon(matrix, dtype):
    """Bound the rounding errors of `orthogonalize(matrix, dtype)`.

    To first order, and taking single roundings as independent: each is off by a share that is
    uniform up to the unit roundoff, and spreads evenly over the entries in another basis. In the
    basis of the matrix's singular vectors, with singular values s and G = X X^T, an iteration
    p(s) = a s + b s^3 + c s^5 multiplies what was off before by (p_i - p_j) / (s_i - s_j) where it
    is symmetric and by (p_i + p_j) / (s_i + s_j) where it is not. It adds the roundings of G, which
    reach its result as (b + c (s_i^2 + s_j^2)) s_j; of b G + c G^2, as s_j; and of the result.
    Products are summed in float32, which counts in float32 alone: as the root of the summands.

    Args:
        matrix: `[m, n]`.
        dtype: of the products.

    Returns:
        `[k, k]` float64 with k the smaller side: the bound of each entry of U^T result V.
    """
    rows, columns = sorted(matrix.shape)
    unit = torch.finfo(dtype).eps / 2 / 3**0.5
    unit *= columns**0.5 if dtype == torch.float32 else 1
    s = torch.linalg.svdvals(matrix.double()).numpy()
    s = s / (s**4).sum() ** 0.25
    # The matrix itself, divided by its norm, and by the root of its Gram matrix's.
    spread = np.linalg.norm(s) / (rows * columns) ** 0.5
    variance = np.full((rows, rows), 3 * (unit * spread) ** 2)
    variance += np.diag(2 * (unit * s) ** 2)  # both norms
    for a, b, c in NEWTON_SCHULZ:
        made = a * s + b * s**3 + c * s**5
        s_i, s_j, made_i, made_j = s[:, None], s, made[:, None], made
        level = (made_i + made_j) / (s_i + s_j)
        # (p_i - p_j) / (s_i - s_j), which is the derivative where both are the same.
        steep = (
            a + b * (s_i**2 + s_i * s_j + s_j**2)
            + c * (s_i**4 + s_i**3 * s_j + s_i**2 * s_j**2 + s_i * s_j**3 + s_j**4)
        )  # fmt: skip
        variance = ((steep + level) ** 2 * variance + (steep - level) ** 2 * variance.T) / 4
        gram = np.linalg.norm(s**2) / rows
        factor = np.linalg.norm(b * s**2 + c * s**4) / rows
        result = np.linalg.norm(made) / (rows * columns) ** 0.5
        added = ((b + c * (s_i**2 + s_j**2)) * s_j * gram) ** 2 + (s_j * factor) ** 2 + result**2
        variance += unit**2 * added
        s = made
    return SIGMAS * np.sqrt(variance)
