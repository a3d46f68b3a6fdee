"""What a run says of itself: its record, and the lines with which it starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from blankfill.config.run import RunConfig
from blankfill.data.store import TokenStore
from blankfill.disk.names import resume_option
from blankfill.engine.device import device_name
from blankfill.engine.engine import Engine
from blankfill.kernels.packed import in_c
from blankfill.metrics.flops import count_parameters
from blankfill.prepare.start import Start
from blankfill.runs import read_run
from blankfill.runs.made_with import Hardware, Software
from blankfill.runs.record import RunRecord, StoreEntry, TokenizerEntry, begun_now
from blankfill.runtime import process_settings
from blankfill.train.trainer import Trainer

__all__ = ["describe_run", "say_start", "say_what_was_chosen"]

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
        process=process_settings(),
        init=None if start is None else start.described,
        validation_every=cfg.validate_every if held_out else None,
    )


def _entry(path: Path, store: TokenStore, share: float | None = None) -> StoreEntry:
    return StoreEntry(
        path=store.address or str(path.resolve()), fingerprint=store.fingerprint,
        documents=len(store), tokens=store.num_tokens, share=share,
    )  # fmt: skip


def say_what_was_chosen(engine: Engine, record: RunRecord) -> None:
    """Log how a run computes, in one line, for who asks for every choice."""
    hardware = record.hardware
    native = engine.attention == "blocks" and in_c(engine.device, engine.dtype)
    log.debug(
        "%s on %s, %s threads, attention %s%s, %s, %.3g TFLOP/s (%s)",
        str(engine.dtype).removeprefix("torch."), hardware.device, record.threads,
        engine.attention, " in C" if native else "",
        "compiled" if record.compiled else "not compiled",
        (hardware.peak_flops_per_second or 0) / 1e12, hardware.peak_source,
    )  # fmt: skip


def passes_in(trainer: Trainer, steps: int) -> float:
    """Estimate how often some steps read the text, by the rows of the next one.

    Rows hold special tokens and a little padding beside the text, so positions over tokens would
    promise more.
    """
    rows = trainer.cfg.train.batch_rows
    before, after = (trainer.rows.epochs(row)["epoch"] for row in (trainer.row, trainer.row + rows))
    return steps * (after - before)


def say_start(trainer: Trainer) -> None:
    """Log what a reader wants to know of a run before its first step, in a few lines."""
    cfg, record, run = trainer.cfg, read_run(trainer.run), trainer.run
    train = cfg.train
    weights = sum(count_parameters(cfg.model).values())
    passes = passes_in(trainer, train.steps)
    log.info(
        "model: %s parameters in %d layers of %d; a vocabulary of %s",
        f"{weights:,}", cfg.model.num_layers, cfg.model.hidden_size, f"{cfg.model.vocab_size:,}",
    )  # fmt: skip
    log.info("text: %s", _stores(record.data))
    log.info(
        "plan: %s steps of %s rows of %s positions, about %s passes over the text%s",
        f"{train.steps:,}", f"{train.batch_rows:,}", f"{train.row_length:,}",
        f"{passes:,.1f}" if passes >= 1 else f"{passes:.2g}",
        f"; going on at step {trainer.index:,}" if trainer.index else "",
    )  # fmt: skip
    if record.validation:
        every = record.validation_every or 0
        often = f"every {every:,} steps, " if 0 < every < train.steps else ""
        log.info("held out: %s; scored %safter the last step", _stores(record.validation),
                 often and f"{often}and ")  # fmt: skip
    else:
        log.info("held out: nothing; a store named with --validation shows what it has learnt")
    log.info(
        "here: %s on %s, %s",
        record.precision,
        record.hardware.device,
        _count(record.threads, "thread"),
    )
    log.info(
        "saved: every %s steps in %s, and at Ctrl-C, which ends the run; "
        "blankfill pretrain %s goes on",
        f"{cfg.checkpoint.every:,}", run, resume_option(run),
    )  # fmt: skip


def _stores(entries: Sequence[StoreEntry]) -> str:
    tokens = sum(entry.tokens for entry in entries)
    documents = sum(entry.documents for entry in entries)
    names = ", ".join(Path(entry.path).name for entry in entries)
    return f"{_count(tokens, 'token')} in {_count(documents, 'document')} ({names})"


def _count(number: int | None, noun: str) -> str:
    return f"{number or 0:,} {noun}{'s' * (number != 1)}"
