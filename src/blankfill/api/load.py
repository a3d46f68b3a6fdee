"""`blankfill.load`: a trained model to keep in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from blankfill.api.parameters import CheckpointName, PathLike, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.train import DeviceKind, WeightType

if TYPE_CHECKING:
    from blankfill.generate import LanguageModel

__all__ = ["load"]


@checks_arguments
def load(
    run: PathLike,
    /,
    *,
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
    dtype: WeightType = "stored",
) -> LanguageModel:
    """Load a trained or imported model once, to fill and continue many texts.

    Example:
        lm = blankfill.load("runs/mine")
        lm.fill("The [MASK] fox jumps over the [MASK] dog.").text
        lm.fill(["a [MASK]", "b [MASK]"], num_candidates=3)[0].blanks[0].candidates

    It may be called from several threads; they take turns.

    Args:
        run: folder of a run: pretrained, imported or resized; or of one of its checkpoints.
        checkpoint: last, best (lowest validation loss), or a step; the folder's own, or the last,
            where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.
        dtype: what the matrices are kept in: stored, float32, bfloat16 or float16. On a CPU those
            of 16 bits take half the memory, and products are computed in float32, or in bfloat16
            where the weights are kept in it and the processor multiplies it sooner; on a GPU they
            are computed in this type. What is quantised is loaded as it is stored.

    Raises:
        CheckpointError: the folder is not a run, or holds no such checkpoint or no average.
        ConfigError: there is no such device.
    """
    from blankfill.generate import LanguageModel

    return LanguageModel.load(
        as_path(run), checkpoint=checkpoint, weights=weights, device=device, dtype=dtype
    )
