"""Exports: written under a temporary name, read back, compared with their run, then renamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from blankfill.config.run import RunConfig
from blankfill.disk.publish import new_folder
from blankfill.errors import ConversionError
from blankfill.interop.export_foreign import (
    ThroughTheKeymap,
    family_of,
    write_glm,
    write_notes,
    write_sat,
)
from blankfill.interop.export_hf import write_hf
from blankfill.interop.export_parity import Parity, compare
from blankfill.interop.export_released import Released, compare_released
from blankfill.interop.export_reload import reload_hf
from blankfill.model import GLM
from blankfill.objective.batch import Int32
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.vocabularies import is_published

__all__ = ["Fill", "export_foreign", "export_hf"]

Fill = Callable[[GLM, Sequence[Int32], int], list[list[int]]]
"""Fills prompts greedily with a model: see `export_parity.compare`."""


def export_hf(
    cfg: RunConfig,
    model: GLM,
    tokenizer: TextTokenizer,
    out: Path,
    *,
    fill: Fill,
    origin: dict[str, Any],
    max_shard_bytes: int,
    advance: Callable[[int], None] | None = None,
) -> Parity:
    """Write a run for transformers, and prove that it computes the same.

    Args:
        cfg: the run's configuration.
        model: its weights, in evaluation mode.
        tokenizer: its tokenizer.
        out: the new folder.
        fill: greedy fills of a model.
        origin: what the export tells of where the weights are from.
        max_shard_bytes: largest file of weights.
        advance: called with the number of prompts that were just compared.

    Raises:
        OutputError: `out` is taken or cannot be written.
        ConversionError: what was written does not compute what the run does; nothing is left.
    """
    _check_objective(cfg)
    with new_folder(out) as folder:
        write_hf(
            folder, cfg, model.state_dict(), tokenizer, origin=origin,
            max_shard_bytes=max_shard_bytes,
        )  # fmt: skip
        return compare(
            model, reload_hf(folder, tokenizer.ids), tokenizer.ids, cfg.objective.positions,
            num_tokens=tokenizer.vocab_size, fill=fill, advance=advance,
        )  # fmt: skip


def export_foreign(
    to: Literal["glm", "sat"],
    cfg: RunConfig,
    model: GLM,
    tokenizer: TextTokenizer,
    out: Path,
    *,
    fill: Fill,
    max_shard_bytes: int,
    origin: dict[str, Any],
    advance: Callable[[int], None] | None = None,
) -> tuple[Parity, Released]:
    """Write a run's weights in a layout of the released code, and prove that nothing was lost.

    Takes and raises what `export_hf` does, and ConversionError where the released code does not
    compute this architecture.

    Returns:
        How far the weights are from the run's, translated back; and how far what the released code
        computes with them.
    """
    _check_objective(cfg)
    family = family_of(to, cfg)
    with new_folder(out) as folder:
        if to == "glm":
            write_glm(folder, cfg, model, max_shard_bytes=max_shard_bytes)
        else:
            write_sat(folder, cfg, model)
        if is_published(tokenizer):  # its vocabulary is the layout's own
            for name, data in tokenizer.files.items():
                (folder / name).write_bytes(data)
        parity = compare(
            model, ThroughTheKeymap(folder, cfg, tokenizer.ids, family, fill), tokenizer.ids,
            cfg.objective.positions, num_tokens=tokenizer.vocab_size, fill=fill, advance=advance,
        )  # fmt: skip
        released = compare_released(
            family, model, tokenizer.ids, cfg.objective.positions, num_tokens=tokenizer.vocab_size
        )
        write_notes(
            folder, cfg, family, released, has_vocabulary=is_published(tokenizer), origin=origin
        )
        return parity, released


def _check_objective(cfg: RunConfig) -> None:
    if cfg.objective.sentinels:
        raise ConversionError(
            f"the run was trained with objective.sentinels={cfg.objective.sentinels}, whose masks "
            "no other software knows; export a run that was trained without them"
        )
