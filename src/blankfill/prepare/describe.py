"""What a run says of itself: its record, and the line with which it starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from blankfill.config.run import RunConfig
from blankfill.data.store import TokenStore
from blankfill.engine.device import device_name
from blankfill.kernels.packed import in_c
from blankfill.prepare.start import Start
from blankfill.runs.record import (
    Hardware,
    RunRecord,
    Software,
    StoreEntry,
    TokenizerEntry,
    begun_now,
)
from blankfill.train.trainer import Trainer

__all__ = ["describe_run", "say_what_was_chosen"]

log = logging.getLogger(__name__)


def describe_run(
    cfg: RunConfig, device: torch.device, *, data: Sequence[Path], stores: Sequence[TokenStore],
    shares: Sequence[float] | None, validation: Sequence[Path], held_out: Sequence[TokenStore],
    start: Start | None,
) -> RunRecord:  # fmt: skip
    """Describe a run before anything is measured.

    Args:
        cfg: the run.
        device: where it trains.
        data: folders of `stores`.
        stores: what it trains on.
        shares: of each store in the rows; None where all documents are read in one order.
        validation: folders of `held_out`.
        held_out: what it validates on.
        start: the weights that it starts from, where they are another run's.
    """
    of_each = shares or [None] * len(stores)
    return RunRecord(
        config=cfg,
        tokenizer=TokenizerEntry(fingerprint=stores[0].tokenizer_fingerprint),
        data=tuple(_entry(*of) for of in zip(data, stores, of_each, strict=True)),
        validation=tuple(_entry(*of) for of in zip(validation, held_out, strict=True)),
        started=begun_now(),
        software=Software.here(),
        hardware=Hardware.here(device_name(device)),
        init=None if start is None else start.described,
    )


def _entry(path: Path, store: TokenStore, share: float | None = None) -> StoreEntry:
    return StoreEntry(
        path=str(path.resolve()), fingerprint=store.fingerprint, documents=len(store),
        tokens=store.num_tokens, share=share,
    )  # fmt: skip


def say_what_was_chosen(trainer: Trainer, record: RunRecord, threads: int) -> None:
    """Log a run's size, device, ways and steps in one line."""
    hardware, engine = record.hardware, trainer.engine
    native = engine.attention == "blocks" and in_c(engine.device, engine.dtype)
    log.info(
        "%s parameters, %s on %s, %d threads, attention %s%s, %s, %.3g TFLOP/s (%s), from step %d "
        "to step %d",
        f"{sum(p.numel() for p in engine.model.parameters()):,}",
        str(engine.dtype).removeprefix("torch."), hardware.device, threads, engine.attention,
        " in C" if native else "", "compiled" if record.compiled else "not compiled",
        (hardware.peak_flops_per_second or 0) / 1e12, hardware.peak_source, trainer.index,
        trainer.cfg.train.steps,
    )  # fmt: skip
