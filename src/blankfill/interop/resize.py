"""Give a model another vocabulary: shared pieces keep their rows, new ones start from old pieces.

Every id of the new tokenizer gets its row from the first of these that has one: the embeddings
that were made elsewhere; the same special token, by its role; the same piece of the old tokenizer;
the mean of the rows of the pieces that the old tokenizer cuts the new piece into. Rows that only
pad the matrix are copies of that of `[PAD]`, which was never a target. An output layer of its own
is treated in the same way.

The result is a run folder of one checkpoint without an optimizer: `fill` and `evaluate` read it,
and `pretrain --init` trains it on. The old run is only read.

Shapes: V ids of the new tokenizer, R rows (V rounded up), D hidden.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from blankfill.errors import CheckpointError, ConversionError
from blankfill.objective.special import DISPLAY
from blankfill.runs import CheckpointState, RunRecord, checkpoint_folder, write_run, write_state
from blankfill.runs.record import ResizedFrom, TokenizerEntry
from blankfill.runs.tensors import load_tensors, write_tensors
from blankfill.text.tokenizer import TextTokenizer, Tokenizer

__all__ = ["ROWS_MULTIPLE", "RowPlan", "plan_rows", "read_new_rows", "resized", "write_resized"]

ROWS_MULTIPLE = 64
"""Rows are rounded up to this, as pretraining rounds them."""

NewRows = dict[str, torch.Tensor]
"""Embeddings of new pieces that were made elsewhere: `ids`, and their rows of each matrix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPlan:
    """Where each row of the new matrices comes from."""

    num_rows: int
    """R, rows of the new matrices."""
    sources: list[tuple[int, ...]]
    """For each id of the new tokenizer the old rows whose mean it is."""
    num_kept: int
    """Pieces that both tokenizers know, special ones included."""
    new: tuple[int, ...]
    """Ids of pieces that the old tokenizer does not know."""
    num_dropped: int
    """Pieces that only the old tokenizer knows."""
    pad_row: int
    """Old row of `[PAD]`."""


def plan_rows(old: TextTokenizer, new: Tokenizer) -> RowPlan:
    """Find the old rows that each new row is made of.

    Raises:
        ConversionError: the old vocabulary is of a published model, whose pieces are not ours.
    """
    if not isinstance(old, Tokenizer):
        raise ConversionError(
            "the run's vocabulary is that of a published model, whose pieces cannot be compared "
            "with blankfill's; resize a run that was pretrained with a tokenizer of blankfill"
        )
    old_id = {piece: i for i, piece in enumerate(old.pieces)}
    roles = {getattr(new.ids, role): getattr(old.ids, role) for role in DISPLAY}
    roles[new.unknown_id] = old.unknown_id
    sources: list[tuple[int, ...]] = []
    unknown: list[int] = []
    for i, piece in enumerate(new.pieces):
        if i in roles:
            sources.append((roles[i],))
        elif piece in old_id and old_id[piece] not in roles.values():
            sources.append((old_id[piece],))
        else:
            unknown.append(i)
            sources.append(tuple(old.encode(new.decode([i])).tolist()))
    num_kept = len(new.pieces) - len(unknown)
    return RowPlan(
        num_rows=-(-new.vocab_size // ROWS_MULTIPLE) * ROWS_MULTIPLE, sources=sources,
        num_kept=num_kept, new=tuple(unknown), num_dropped=old.vocab_size - num_kept,
        pad_row=old.ids.pad,
    )  # fmt: skip


def read_new_rows(path: Path, plan: RowPlan, hidden_size: int, *, has_head: bool) -> NewRows:
    """Read embeddings that were made elsewhere.

    The file holds `ids` `[K]`, ids of the new tokenizer that the old one does not know; their
    `embed.word.weight` `[K, D]`; and, for a model whose output layer is its own, `head.weight`.

    Raises:
        ConversionError: the file is damaged, or its ids or shapes do not fit.
    """
    try:
        rows = load_tensors(path)
    except CheckpointError as error:
        raise ConversionError(f"{path} is not a safetensors file: {error}") from error
    needed = ("ids", "embed.word.weight", *(("head.weight",) if has_head else ()))
    if missing := [name for name in needed if name not in rows]:
        raise ConversionError(
            f"{path} has no tensor {missing[0]}; it needs {', '.join(needed)} for this model"
        )
    ids = rows["ids"].reshape(-1).tolist()
    if wrong := sorted(set(ids) - set(plan.new)):
        raise ConversionError(
            f"{path} gives the id {wrong[0]}, whose piece is not new; give only ids of pieces that "
            "the old tokenizer does not know"
        )
    for name in needed[1:]:
        expected, shape = [len(ids), hidden_size], list(rows[name].shape)
        if shape != expected:
            raise ConversionError(f"{path}: {name} is {shape}; for its ids it must be {expected}")
        if not torch.isfinite(rows[name]).all():
            raise ConversionError(f"{path}: {name} holds numbers that are not finite")
    return rows


def resized(
    weights: dict[str, torch.Tensor], plan: RowPlan, new_rows: NewRows | None = None
) -> dict[str, torch.Tensor]:
    """Make the weights of the new model: the matrices with a row per token, and the rest as it was.

    Args:
        weights: the old model's.
        plan: where rows come from.
        new_rows: what `read_new_rows` read.
    """
    result = dict(weights)
    for name in ("embed.word.weight", "head.weight"):
        if name in weights:
            result[name] = _rows(weights[name], plan)
            if new_rows is not None:
                result[name][new_rows["ids"].long()] = new_rows[name].to(result[name].dtype)
    return result


def write_resized(
    folder: Path,
    record: RunRecord,
    weights: dict[str, torch.Tensor],
    tokenizer: Tokenizer,
    origin: ResizedFrom,
) -> None:
    """Write a run folder of one checkpoint into an existing, empty folder.

    Args:
        folder: where to.
        record: what run.json of the old run says.
        weights: the new model's.
        tokenizer: the new one.
        origin: where the weights are from.
    """
    cfg = record.config
    model = dataclasses.replace(cfg.model, vocab_size=weights["embed.word.weight"].shape[0])
    write_run(
        folder,
        dataclasses.replace(
            record, config=dataclasses.replace(cfg, model=model), resized=origin,
            tokenizer=TokenizerEntry(fingerprint=tokenizer.fingerprint),
            data=(), validation=(),  # theirs were cut by the old tokenizer
            mixtures=(),
        ),
    )  # fmt: skip
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    checkpoint = checkpoint_folder(folder, 0)
    checkpoint.mkdir(parents=True)
    files = write_tensors(checkpoint, "model", weights).files
    write_state(checkpoint, CheckpointState(step=0, files=files))


def _rows(old: torch.Tensor, plan: RowPlan) -> torch.Tensor:
    """Make `[R, D]` rows of the old matrix's."""
    counts = torch.tensor([len(source) for source in plan.sources])
    flat = torch.from_numpy(np.concatenate(plan.sources).astype(np.int64))
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    new = old[plan.pad_row].expand(plan.num_rows, -1).clone()
    single = counts == 1
    new[: len(counts)][single] = old[flat[single[owner]]]  # bit for bit
    for i in torch.nonzero(~single)[:, 0].tolist():
        new[i] = old[list(plan.sources[i])].double().mean(dim=0).to(old.dtype)
    return new
