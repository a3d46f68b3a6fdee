"""`blankfill export` and `blankfill resize`: a run for other software, or another vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.parameters import CheckpointName, PathLike, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Range
from blankfill.errors import ConversionError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.interop.export_parity import Parity
    from blankfill.interop.export_released import Released
    from blankfill.text.tokenizer import TextTokenizer, Tokenizer

__all__ = ["ExportResult", "ResizeResult", "export", "resize"]


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
    has_tokenizer: bool
    """Whether the vocabulary is among them: blankfill's own in hf, a published one everywhere."""
    parity: Parity
    """How far the export, read back, is from the run."""
    notes: list[str]
    """Where the released code computes something else than the run; empty for hf, whose code is
    part of the export."""
    released_logit_difference: float
    """How far that code's logits are from the run's, at most, on prompts of a fixed seed."""

    __repr__ = short_repr


@checks_arguments
def export(
    run: PathLike,
    /,
    *,
    to: Literal["hf", "glm", "sat"],
    out: PathLike,
    checkpoint: CheckpointName | None = None,
    max_shard_gb: Annotated[float, Range(1e-6, 1e6)] = 5.0,
) -> ExportResult:
    """Export a trained run to other software, and prove that it computes the same there.

    hf is a folder for transformers with its own code and tokenizer. glm is the layout of the
    released GLM models on Hugging Face, sat that of SwissArmyTransformer: weights only, for the
    architectures that these know.

    What was written is read back and compared with the run on 100 prompts. Above the tolerance
    nothing is written.

    Example:
        blankfill export runs/mine --to hf --out exported

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        to: the layout: hf, glm or sat.
        out: the new folder.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        max_shard_gb: largest file of weights, in billions of bytes (hf).

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConversionError: the layout cannot hold this architecture, or what was written differs.
        OutputError: the folder at --out is taken or cannot be written.
    """
    out = as_path(out)
    from blankfill import progress
    from blankfill.disk.publish import require_free
    from blankfill.generate import LanguageModel
    from blankfill.interop.export import export_foreign, export_hf
    from blankfill.interop.export_parity import NUM_PROMPTS
    from blankfill.text.tokenizer import Tokenizer
    from blankfill.text.vocabularies import is_published

    require_free(out)
    lm = LanguageModel.load(as_path(run), checkpoint=checkpoint, dtype="float32", needs_text=False)
    max_bytes = int(max_shard_gb * 1e9)
    released: Released | None = None
    with progress.bar("compare", NUM_PROMPTS, "prompts") as meter:
        if to == "hf":
            parity = export_hf(lm, out, max_shard_bytes=max_bytes, advance=meter.advance)
        else:
            parity, released = export_foreign(
                to, lm, out, max_shard_bytes=max_bytes, advance=meter.advance
            )
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return ExportResult(
        run=str(lm.path), step=lm.step, to=to, out=str(out),
        files=[str(path.relative_to(out)) for path in files],
        num_bytes=sum(path.stat().st_size for path in files),
        has_tokenizer=is_published(lm.tokenizer)
        or (to == "hf" and isinstance(lm.tokenizer, Tokenizer)),
        parity=parity, notes=[] if released is None else list(released.notes),
        released_logit_difference=0.0 if released is None else released.max_logit_difference,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ResizeResult:
    """What became of the vocabulary."""

    run: str
    """The run that was read."""
    out: str
    """The run that was written."""
    num_tokens: tuple[int, int]
    """Ids of the old and of the new tokenizer."""
    num_rows: tuple[int, int]
    """Rows of the old and of the new embedding."""
    num_kept: int
    """Pieces that both know; their rows are the old ones, bit for bit."""
    num_mean: int
    """New pieces that start from the mean of their old pieces."""
    num_from_file: int
    """New pieces whose rows the file at --embeddings holds."""
    num_dropped: int
    """Pieces that only the old tokenizer knows."""
    num_parameters: tuple[int, int]
    """Weights of the old and of the new model."""

    __repr__ = short_repr


@checks_arguments
def resize(
    run: PathLike, /, *, tokenizer: PathLike, out: PathLike,
    checkpoint: CheckpointName | None = None, embeddings: PathLike | None = None,
) -> ResizeResult:  # fmt: skip
    """Give a trained run another vocabulary, and write it as a new run.

    Rows of pieces that both tokenizers know are kept, special tokens by their role; a new piece
    starts as the mean of the pieces that the old tokenizer cuts it into. Rows are rounded up to a
    multiple of 64. `fill` and `evaluate` read the new run; `pretrain --init` trains it on.

    Example:
        blankfill resize runs/mine --tokenizer new_tok --out runs/grown

    Args:
        run: folder of a pretrained run, or of one of its checkpoints; it is only read.
        tokenizer: folder of the new tokenizer.
        out: the new run's folder.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        embeddings: safetensors file of rows for new pieces: ids, embed.word.weight, and head.weight
            where the output layer is its own.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        DataError: the tokenizer cannot be read.
        ConversionError: the embeddings do not fit.
        OutputError: the folder at --out is taken or cannot be written.
    """
    out = as_path(out)
    from blankfill.disk.publish import new_folder, require_free
    from blankfill.generate import LanguageModel
    from blankfill.interop.resize import plan_rows, read_new_rows, resized, write_resized
    from blankfill.runs import read_run
    from blankfill.runs.record import ResizedFrom
    from blankfill.text.tokenizer import Tokenizer

    require_free(out)
    new = Tokenizer.load(as_path(tokenizer))
    lm = LanguageModel.load(as_path(run), checkpoint=checkpoint, dtype="float32")
    assert lm.path is not None
    weights = lm.model.state_dict()
    plan = plan_rows(_own(lm.path, lm.tokenizer), new)
    new_rows = None
    if embeddings is not None:
        new_rows = read_new_rows(
            Path(embeddings), plan, lm.cfg.model.hidden_size, has_head="head.weight" in weights
        )
    num_from_file = 0 if new_rows is None else len(new_rows["ids"])
    grown = resized(weights, plan, new_rows)
    with new_folder(out) as folder:
        write_resized(
            folder, read_run(lm.path), grown, new,
            ResizedFrom(
                run=str(lm.path), step=lm.step, tokenizer=lm.tokenizer.fingerprint,
                num_kept=plan.num_kept, num_from_file=num_from_file,
            ),
        )  # fmt: skip
    return ResizeResult(
        run=str(lm.path), out=str(out), num_tokens=(lm.tokenizer.vocab_size, new.vocab_size),
        num_rows=(lm.cfg.model.vocab_size, plan.num_rows), num_kept=plan.num_kept,
        num_mean=len(plan.new) - num_from_file, num_from_file=num_from_file,
        num_dropped=plan.num_dropped,
        num_parameters=(
            sum(tensor.numel() for tensor in weights.values()),
            sum(tensor.numel() for tensor in grown.values()),
        ),
    )  # fmt: skip


def _own(run: Path, tokenizer: TextTokenizer) -> Tokenizer:
    """Give a run's tokenizer, which must be one that blankfill trained."""
    from blankfill.text.tokenizer import Tokenizer

    if not isinstance(tokenizer, Tokenizer):
        raise ConversionError(
            f"{run} has the vocabulary of a published model, which stays as it is; resize "
            "takes runs with a tokenizer of blankfill"
        )
    return tokenizer
