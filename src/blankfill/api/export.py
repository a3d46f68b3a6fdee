"""`blankfill export` and `blankfill resize`: a run for other software, or with another vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blankfill.errors import ConfigError

if TYPE_CHECKING:
    from blankfill.interop.export import Fill
    from blankfill.interop.export_parity import Parity
    from blankfill.objective.batch import Int32
    from blankfill.objective.special import SpecialIds
    from blankfill.train import Run

__all__ = ["ExportResult", "export"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """What was exported, and the proof that it is the run."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that was exported."""
    to: str
    """The layout."""
    out: str
    """The folder that was written."""
    files: list[str]
    """What it holds."""
    num_bytes: int
    """Size of all files."""
    parity: Parity
    """How far the export, read back, is from the run."""


def export(
    run: Path, /, *, to: Literal["hf", "glm", "sat"], out: Path, max_shard_gb: float = 5.0
) -> ExportResult:
    """Export a trained run to other software, and prove that it computes the same there.

    hf is a folder for transformers with its own code and tokenizer. glm is the layout of the
    released GLM models on Hugging Face, sat that of SwissArmyTransformer: weights only, for the
    architectures that these know.

    What was written is read back and compared with the run on 100 prompts. Above the tolerance
    nothing is left behind.

    Example:
        blankfill export runs/mine --to hf --out exported

    Args:
        run: folder of a pretrained run.
        to: the layout: hf, glm or sat.
        out: the new folder.
        max_shard_gb: largest file of weights, in billions of bytes (hf).

    Raises:
        CheckpointError: the folder is not a run.
        ConversionError: the layout cannot hold this architecture, or what was written differs.
    """
    if not max_shard_gb > 0:
        raise ConfigError(f"max_shard_gb={max_shard_gb} must be above 0")
    from blankfill.runtime import tune_process

    tune_process()
    from blankfill import progress
    from blankfill.interop.export import export_hf
    from blankfill.interop.export_parity import NUM_PROMPTS
    from blankfill.train import load_run

    loaded = load_run(Path(run))
    with progress.bar("compare", NUM_PROMPTS, "prompts") as meter:
        parity = export_hf(
            loaded.cfg, loaded.model, loaded.tokenizer, Path(out), fill=_fill_with(loaded),
            origin={"step": loaded.step}, max_shard_bytes=int(max_shard_gb * 1e9),
            advance=meter.advance,
        )  # fmt: skip
    files = sorted(path for path in Path(out).iterdir())
    return ExportResult(
        run=str(run), step=loaded.step, to=to, out=str(out), files=[path.name for path in files],
        num_bytes=sum(path.stat().st_size for path in files), parity=parity,
    )  # fmt: skip


def _fill_with(run: Run) -> Fill:
    """Fill prompts greedily by the run's own rules, in the form that the comparison takes."""
    from blankfill.generate import fill_tokens
    from blankfill.model import GLM

    ids: SpecialIds = run.tokenizer.ids

    def fill(model: GLM, prompts: Sequence[Int32], max_new_tokens: int) -> list[list[int]]:
        filled = fill_tokens(
            model, prompts, ids, max_new_tokens=max_new_tokens, scheme=run.cfg.objective.positions,
            num_real_tokens=run.tokenizer.vocab_size,
        )  # fmt: skip
        rows: list[list[int]] = []
        for text in filled:
            row: list[int] = []
            for blank in text.blanks:
                row += [ids.sop, *map(int, blank.tokens)]
                if not blank.ended:
                    break
                row.append(ids.eop)
            rows.append(row[1:])
        return rows

    return fill
