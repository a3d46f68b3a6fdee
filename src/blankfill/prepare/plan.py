"""What a run is to be, with everything refused that can be before a file is written.

`build.py` makes the trainer of it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from blankfill.config.parallel import AXES
from blankfill.config.run import RunConfig
from blankfill.data.mixture import settle_shares
from blankfill.data.store import TokenStore
from blankfill.disk.names import resume_option
from blankfill.disk.publish import followed, refused_by_disk
from blankfill.engine.device import choose_device, choose_precision
from blankfill.errors import ConfigError, OutputError
from blankfill.prepare.describe import describe_run
from blankfill.prepare.memory import require_memory
from blankfill.prepare.resume import Change, changes_on_resume, start_on_resume
from blankfill.prepare.sources import open_stores, require_cache
from blankfill.prepare.start import Start, read_start
from blankfill.runs import (
    RUN_FILES,
    RUN_FOLDERS,
    RunRecord,
    list_checkpoints,
    locate,
    read_run,
)
from blankfill.runs.record import MixtureEntry
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.vocabularies import load_tokenizer

__all__ = ["Plan", "plan_run", "require_new_run"]

log = logging.getLogger(__name__)

VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are rounded up to this, for even matrix products (Megatron rounds too)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run before its folder is taken."""

    cfg: RunConfig
    """With the model's vocabulary settled."""
    device: torch.device
    """Where it trains."""
    stores: list[TokenStore]
    """What it trains on."""
    held_out: list[TokenStore]
    """What it validates on; may be empty."""
    tokenizer: TextTokenizer
    """Of all stores."""
    shares: list[float] | None
    """Of each store in the rows; None where all documents are read in one order."""
    old: RunRecord | None
    """What the folder says of the run that is resumed."""
    has_checkpoint: bool
    """Whether the run that is resumed goes on from a checkpoint, rather than from its beginning."""
    start: Start | None
    """The weights that it starts from, where they are another run's."""
    record: RunRecord
    """What run.json will say, but for what is measured."""
    changes: list[Change]
    """What differs from the run that is resumed."""

    @property
    def measured_before(self) -> RunRecord | None:
        """The record of the run that is resumed, where it was made on such a device: what was
        settled by measurement then stays."""
        if self.old is None or self.old.hardware.device != self.record.hardware.device:
            return None
        return self.old

    @property
    def was_shared_out(self) -> bool:
        """Whether the run that is resumed has ever been one of several processes."""
        if self.old is None:
            return False
        changed = (name for change in self.old.changes for name in change.values)
        layout = {f"parallel.{axis}" for axis in AXES}
        return self.old.config.parallel.num_processes > 1 or not layout.isdisjoint(changed)

    @property
    def mixtures(self) -> Sequence[MixtureEntry]:
        """The shares so far, each with its first row; nothing where there are none."""
        if self.shares is None:
            return []
        if self.old is None:
            return [MixtureEntry(row=0, shares=tuple(self.shares))]
        return self.old.mixtures


def plan_run(
    cfg: RunConfig, *, data: Sequence[Path], run: Path, validation: Sequence[Path], resume: bool,
    init: Path | None, allow_change: Sequence[str], shares: Sequence[float | None],
    vocab_size: int | None, preset: str | None = None,
) -> Plan:  # fmt: skip
    """Read all that a run is made of, and check that it fits together.

    Arguments and errors are those of `build_trainer`.
    """
    device = choose_device(cfg.train.device)
    choose_precision(cfg.precision, device)  # refused before long work, where it must be
    stores = open_stores(data)
    fingerprint = stores[0].tokenizer_fingerprint
    held_out = open_stores(validation, fingerprint) if validation else []
    require_cache([*stores, *held_out])
    tokenizer = load_tokenizer(stores[0].path / "tokenizer")
    old = read_run(run) if resume and (run / "run.json").exists() else None
    known = read_run(locate(init).run) if old is None and init is not None else old
    cfg = _with_vocabulary(cfg, tokenizer.vocab_size, known, asked=vocab_size)
    cfg.parallel.require_parts(cfg.model, cfg.train.row_length)
    cfg.parallel.require_stages(cfg.model, cfg.train)
    require_memory(cfg, device)
    asks = {
        f"validation.every={cfg.validation.every}": cfg.validation.every not in ("auto", 0),
        "checkpoint.keep_best=True": cfg.checkpoint.keep_best,
    }
    needs = [field for field, is_set in asks.items() if is_set and not held_out]
    if needs:
        raise ConfigError(f"{needs[0]} needs held-out data; name a store with --validation")
    settled = settle_shares(shares, [store.num_tokens for store in stores]) if shares else None
    if old is not None and settled is not None:
        settled = _as_before(settled, old)
    has_checkpoint = old is not None and bool(list_checkpoints(run))
    start = None if init is None or has_checkpoint else read_start(init, cfg, fingerprint)
    record = describe_run(
        cfg, device, data=data, stores=stores, shares=settled, validation=validation,
        held_out=held_out, start=start,
    )  # fmt: skip
    record = replace(record, preset=preset)
    changes: list[Change] = []
    if old is None:
        require_new_run(run)
    else:
        if has_checkpoint:
            record = replace(record, init=start_on_resume(old, init))
        changes = changes_on_resume(old, record, allow_change)
        record = replace(record, started=old.started, changes=old.changes, preset=old.preset)
    return Plan(
        cfg=cfg, device=device, stores=stores, held_out=held_out, tokenizer=tokenizer,
        shares=settled, old=old, has_checkpoint=has_checkpoint, start=start, record=record,
        changes=changes,
    )  # fmt: skip


def _as_before(shares: list[float], old: RunRecord) -> list[float]:
    """Give the shares that a run has where these are the same but for rounding."""
    before = [entry.share for entry in old.data if entry.share is not None]
    same = len(before) == len(shares) and all(
        math.isclose(share, was, rel_tol=1e-6) for share, was in zip(shares, before, strict=True)
    )
    return before if same else shares


def require_new_run(run: Path) -> None:
    """Check that a folder holds nothing that a run would write over.

    Raises:
        ConfigError: it does.
        OutputError: it is no place for a new folder.
    """
    with refused_by_disk(run):
        place = followed(run)
    if place.exists() and not place.is_dir():
        raise OutputError(f"{run} is not a folder; name another --out")
    taken = [name for name in (*RUN_FILES, *RUN_FOLDERS) if os.path.lexists(place / name)]
    if "run.json" in taken:
        raise ConfigError(
            f"{run} already holds a run; go on with `blankfill pretrain {resume_option(run)}`, or "
            "name another folder with --out"
        )
    if taken:
        raise ConfigError(
            f"{run} already holds {taken[0]}, which a run would write over; name another folder "
            "with --out"
        )


def _with_vocabulary(
    cfg: RunConfig, num_ids: int, known: RunRecord | None, *, asked: int | None
) -> RunConfig:
    """Give the model the rows that were asked for, or a known run's, or the ids' rounded up.

    Raises:
        ConfigError: fewer rows were asked for than there are ids.
    """
    if asked is not None:
        if asked < num_ids:
            raise ConfigError(
                f"model.vocab_size={asked} has no row for some of the tokenizer's {num_ids} ids; "
                f"take at least {num_ids}, leave it out, or build the stores with a smaller "
                "tokenizer"
            )
        log.debug("model.vocab_size is %d, as asked for; the tokenizer has %d ids", asked, num_ids)
        return replace(cfg, model=replace(cfg.model, vocab_size=asked))
    vocab_size = -(-num_ids // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    if known is not None:  # released models have more rows than ours would round up to
        rows = known.config.model.vocab_size
        vocab_size = rows if rows >= num_ids else vocab_size
    if vocab_size == cfg.model.vocab_size:
        return cfg
    log.debug("model.vocab_size is %d, the tokenizer's %d ids rounded up", vocab_size, num_ids)
    return replace(cfg, model=replace(cfg.model, vocab_size=vocab_size))
