"""Standard errors of scores over blanks, several of which may stand in one document.

Blanks of one document are not independent of each other, so a document is one observation: a
cluster. A score is a ratio of two sums, such as nats over characters; its error is that of the
linearised ratio, clusters as drawn at random (Cochran 1977, section 6; for evaluations Miller 2024,
"Adding error bars to evals", section 2.2).

Shapes: n blanks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from blankfill.runs.evaluation import Estimate

__all__ = ["ratio_of_sums"]


def ratio_of_sums(
    values: npt.ArrayLike, sizes: npt.ArrayLike, clusters: Sequence[str] | npt.NDArray[np.int64]
) -> Estimate:  # fmt: skip
    """Divide the sum of values by the sum of sizes.

    Args:
        values: `[n]` such as nats of each blank.
        sizes: `[n]` such as its characters; all one for a mean over blanks.
        clusters: `[n]` which document each blank stands in.

    Returns:
        The ratio, with the standard error of clusters; without one where there is one cluster.
    """
    above, below = np.asarray(values, np.float64), np.asarray(sizes, np.float64)
    ratio = float(above.sum() / below.sum())
    _, owner = np.unique(np.asarray(clusters), return_inverse=True)
    residuals = np.bincount(owner, above - ratio * below)
    count = len(residuals)
    if count < 2:
        return Estimate(value=ratio)
    spread = float((residuals**2).sum()) * count / (count - 1)
    return Estimate(value=ratio, standard_error=math.sqrt(spread) / float(below.sum()))
