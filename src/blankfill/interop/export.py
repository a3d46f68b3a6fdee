"""Exports: written under a temporary name, read back, compared with their run, then renamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from blankfill.config.run import RunConfig
from blankfill.disk.publish import new_folder
from blankfill.errors import ConversionError
from blankfill.generate import LanguageModel
from blankfill.interop.export_foreign import (
    ReloadedForeign,
    family_of,
    write_glm,
    write_notes,
    write_sat,
)
from blankfill.interop.export_hf import write_hf
from blankfill.interop.export_parity import Parity, compare
from blankfill.interop.export_released import Released, compare_released
from blankfill.interop.export_reload import reload_hf
from blankfill.text.vocabularies import is_published

__all__ = ["export_foreign", "export_hf"]


def export_hf(
    lm: LanguageModel,
    out: Path,
    *,
    max_shard_bytes: int,
    advance: Callable[[int], None] | None = None,
) -> Parity:
    """Write a run for transformers, and prove that it computes the same.

    Args:
        lm: the run's model.
        out: the new folder.
        max_shard_bytes: largest file of weights.
        advance: called with the number of prompts that were just compared.

    Raises:
        OutputError: `out` is taken or cannot be written.
        ConversionError: what was written does not compute what the run does; nothing is left.
    """
    _check_objective(lm.cfg)
    with new_folder(out) as folder:
        write_hf(folder, lm, max_shard_bytes=max_shard_bytes)
        return compare(lm, reload_hf(folder, lm.ids), advance=advance)


def export_foreign(
    to: Literal["glm", "sat"],
    lm: LanguageModel,
    out: Path,
    *,
    max_shard_bytes: int,
    advance: Callable[[int], None] | None = None,
) -> tuple[Parity, Released]:
    """Write a run's weights in a layout of the released code, and prove that nothing was lost.

    Takes and raises what `export_hf` does, and ConversionError where the released code does not
    compute this architecture.

    Returns:
        How far the weights are from the run's, translated back; and how far what the released code
        computes with them.
    """
    _check_objective(lm.cfg)
    family = family_of(to, lm.cfg)
    with new_folder(out) as folder:
        if to == "glm":
            write_glm(folder, lm, max_shard_bytes=max_shard_bytes)
        else:
            write_sat(folder, lm)
        if is_published(lm.tokenizer):  # the layout has its own vocabulary
            for name, data in lm.tokenizer.files.items():
                (folder / name).write_bytes(data)
        parity = compare(lm, ReloadedForeign(folder, lm, family), advance=advance)
        released = compare_released(family, lm)
        write_notes(folder, lm, family, released, has_vocabulary=is_published(lm.tokenizer))
        return parity, released


def _check_objective(cfg: RunConfig) -> None:
    if cfg.objective.sentinels:
        raise ConversionError(
            f"the run was trained with objective.sentinels={cfg.objective.sentinels}, whose masks "
            "no other software knows; export a run that was trained without them"
        )
