"""`blankfill import`: weights of other projects as models of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.parameters import PathLike, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.model import Activation
from blankfill.config.ranges import Range
from blankfill.errors import DataError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.interop.importer import Written
    from blankfill.interop.layouts import Source
    from blankfill.interop.plan import ImportPlan
    from blankfill.text.tokenizer import Tokenizer
    from blankfill.text.vocabularies import Vocabulary

__all__ = ["ImportResult", "import_"]

Layout = Literal[
    "glm-megatron", "glm-hf", "sat-glm", "sat-glm-130b", "sat-chatglm", "largescale", "chatglm-hf",
    "blankfill",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportResult:
    """What was imported, and what was not."""

    out: str
    """The folder that was written."""
    layout: str
    """How the checkpoint was laid out."""
    preset: str
    """The published preset whose shapes it has, or ''."""
    model: dict[str, str | int | float | bool | None]
    """The configuration of the model."""
    ranks: int
    """Tensor-parallel ranks that were merged."""
    files: int
    """Files that were read."""
    tensors: int
    """Tensors that were written."""
    parameters: int
    """Weights of the model."""
    num_bytes: int
    """Bytes of the files of weights."""
    dtypes: dict[str, int]
    """How many tensors were written in each dtype."""
    dequantised: int
    """Matrices that were int8 or int4."""
    dropped_rows: int
    """Rows of image codes that were left out."""
    ignored: dict[str, str]
    """Foreign tensors that were not taken, with the reason."""
    missing: list[str]
    """What the checkpoint lacks and may lack, and what stands in its place."""
    notes: list[str]
    """What else is worth knowing."""
    tokenizer: str
    """Kind of the vocabulary that was put beside the weights, or ''."""
    shared_ids: list[str]
    """Special tokens that share an id, as [gMASK] and eop do in glm-10b-chinese."""
    checksum: str
    """SHA-256 over the sorted checksums of the tensors."""

    __repr__ = short_repr


@checks_arguments
def import_(
    path: PathLike,
    /,
    *,
    out: PathLike,
    tokenizer: PathLike | None = None,
    layout: Layout | None = None,
    num_heads: Annotated[int, Range(1, 2**20)] | None = None,
    activation: Activation | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    drop_image_rows: bool = False,
) -> ImportResult:
    """Import a published GLM checkpoint as a model that the other commands can open.

    Reads the files of GLM (Megatron, Hugging Face), SwissArmyTransformer, GLM-130B (also int8 and
    int4), its pretraining code, ChatGLM-6B, and our own, one tensor at a time and without running
    anything of them. Every tensor must be used once or be ignored by name.

    Example:
        blankfill import chatglm-6b/ --out model/

    Args:
        path: the checkpoint's folder, or its only file.
        out: folder to write; new or empty.
        tokenizer: the model's vocabulary: ice_text.model, cog-pretrain.model, vocab.txt, or
            vocab.json beside merges.txt; taken from the checkpoint's folder where it lies there.
        layout: how the checkpoint is laid out, where it is not recognised.
        num_heads: attention heads, where neither config.json nor a preset tells.
        activation: another than the layout's: gelu_tanh, with which GLM was trained, instead of
            the erf form that its Hugging Face code computes.
        dtype: type of the weights on disk; kept as it is where not given.
        drop_image_rows: leave out the vocabulary's first 20,000 rows, which stand for images in
            ChatGLM-6B before April 2023.

    Raises:
        ConversionError: something named in the message cannot be converted; nothing is written.
        OutputError: the folder at --out is taken or cannot be written.
    """
    import torch

    from blankfill import progress
    from blankfill.disk.publish import require_free
    from blankfill.interop.importer import run_import
    from blankfill.interop.layouts import recognise
    from blankfill.interop.plan import NUM_IMAGE_ROWS, plan_import
    from blankfill.interop.rows import check_vocabulary, vocabulary_notes

    require_free(as_path(out))
    source = recognise(as_path(path), layout)
    plan = plan_import(
        source, num_heads=num_heads, activation=activation, drop_image_rows=drop_image_rows,
        dtype=None if dtype is None else getattr(torch, dtype),
    )  # fmt: skip
    vocabulary, notes = _vocabulary(source, plan, None if tokenizer is None else as_path(tokenizer))
    if vocabulary is not None:
        check_vocabulary(vocabulary, plan)
        notes += vocabulary_notes(vocabulary, plan)
    with progress.bar("import", len(plan.taken), "tensors") as meter:
        written = run_import(plan, as_path(out), vocabulary, advance=meter.advance)
    notes += [
        f"{name} differs between ranks; the first rank's was taken" for name in written.differing
    ]
    return _result(
        str(out), plan, vocabulary, written, notes=[*notes, *_layout_notes(plan)],
        dropped_rows=NUM_IMAGE_ROWS if drop_image_rows else 0,
    )  # fmt: skip


def _result(
    out: str, plan: ImportPlan, vocabulary: Vocabulary | Tokenizer | None, written: Written, *,
    notes: list[str], dropped_rows: int,
) -> ImportResult:  # fmt: skip
    """Put together what an import did."""
    from blankfill.config.run import to_dict

    source = plan.source
    dtypes = [str(taken.spec.dtype).removeprefix("torch.") for taken in plan.taken]
    shared = list(vocabulary.ids.shared) if vocabulary is not None else []
    return ImportResult(
        out=out,
        layout=source.layout,
        preset=plan.preset,
        model=to_dict(plan.cfg),
        ranks=len(source.ranks),
        files=len(source.files),
        tensors=len(plan.taken),
        parameters=sum(_numel(taken.spec.shape) for taken in plan.taken),
        num_bytes=written.num_bytes,
        dtypes={name: dtypes.count(name) for name in sorted(set(dtypes))},
        dequantised=plan.num_quantised,
        dropped_rows=dropped_rows,
        ignored=plan.ignored,
        missing=[f"{name}: zeros stand in its place" for name in plan.absent],
        notes=notes,
        tokenizer=getattr(vocabulary, "kind", "blankfill") if vocabulary is not None else "",
        shared_ids=shared,
        checksum=written.checksum,
    )


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _vocabulary(
    source: Source, plan: ImportPlan, tokenizer: Path | None
) -> tuple[Vocabulary | Tokenizer | None, list[str]]:
    """Open the vocabulary that was named, or that lies beside the weights."""
    from blankfill.text.vocabularies import open_vocabulary

    # glm-10b-chinese's [gMASK] has eop's id; its Hugging Face copy gave it a row of its own.
    is_ten_b = plan.cfg.hidden_size == 4096 and source.layout != "glm-hf"
    rows, separate = plan.cfg.vocab_size, not is_ten_b
    if tokenizer is not None:
        return open_vocabulary(tokenizer, num_rows=rows, separate_gmask=separate), []
    folder = source.path if source.path.is_dir() else source.path.parent
    try:
        own = source.layout == "blankfill"
        return open_vocabulary(
            folder / "tokenizer" if own else folder, num_rows=rows, separate_gmask=separate
        ), []
    except DataError as error:
        return None, [f"no vocabulary beside the weights ({error})"]


def _layout_notes(plan: ImportPlan) -> list[str]:
    notes: list[str] = []
    if plan.source.dropped:
        notes.append(f"{plan.source.dropped} was left out of the tensors' names")
    if plan.source.layout == "glm-hf" and plan.cfg.activation == "gelu":
        notes.append(
            "the Hugging Face code computes the erf GeLU; --activation gelu_tanh takes the form "
            "that the weights were trained with"
        )
    if plan.source.layout == "glm-megatron" and (
        plan.cfg.vocab_size == 50048 and plan.cfg.hidden_size == 4096
    ):
        notes.append("in glm-10b-chinese [gMASK] and eop share the id 50007")
    return notes
