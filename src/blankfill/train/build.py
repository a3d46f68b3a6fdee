"""From a configuration and folders to a trainer."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blankfill import __version__
from blankfill.checkpoint import (
    RunLock,
    list_checkpoints,
    newest_checkpoint,
    read_run,
    set_aside,
    sweep,
    write_json,
)
from blankfill.checkpoint.layout import VERSION
from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.config.train import AttentionKind
from blankfill.data.mixture import RowMixture, RowStream, settle_shares
from blankfill.data.pieces import Objectives
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.errors import ConfigError, DataError
from blankfill.metrics import find_peak
from blankfill.metrics.names import unique_names
from blankfill.metrics.wandb import require_wandb
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.packed import in_c
from blankfill.objective.batch import Batch
from blankfill.runtime import available_cores, cpu_name
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.vocabularies import load_tokenizer
from blankfill.train.compiling import settle_compile
from blankfill.train.forgetting import ForgettingGuard
from blankfill.train.load import set_threads
from blankfill.train.quickest import settle_attention
from blankfill.train.resume import Change, changes_on_resume
from blankfill.train.start import begin_embedding, read_start
from blankfill.train.trainer import Trainer
from blankfill.train.transfer import choose_device, choose_precision, device_name
from blankfill.train.validate import (
    Check,
    Validation,
    run_checks,
    score_batches,
    validation_batches,
)

__all__ = ["build_trainer", "open_stores", "require_new_run"]

log = logging.getLogger(__name__)

VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are rounded up to this, for even matrix products (Megatron rounds too)."""
VALIDATION_ROWS = 64
"""Most rows that a validation during training scores."""
RUN_FILES = ("run.json", "metrics.jsonl", "checkpoints", "tokenizer")
"""What a run writes into its folder; a folder that holds one of these is taken."""


def open_stores(
    paths: Sequence[Path], tokenizer_fingerprint: str | None = None
) -> list[TokenStore]:
    """Open token stores that belong to one tokenizer.

    Raises:
        DataError: a store is missing, damaged, empty, or of another tokenizer.
    """
    if not paths:
        raise DataError("no token store was named; make one with `blankfill data build` and pass "
                        "it as --data store/")  # fmt: skip
    stores = [TokenStore.open(path) for path in paths]
    for path, store in zip(paths, stores, strict=True):
        if not len(store):
            raise DataError(f"{path} holds no document; build it from text that has some")
        expected = tokenizer_fingerprint or stores[0].tokenizer_fingerprint
        if store.tokenizer_fingerprint != expected:
            raise DataError(
                f"{path} was built with another tokenizer ({store.tokenizer_fingerprint[:12]}, "
                f"expected {expected[:12]}); build it again with the run's tokenizer"
            )
    return stores


def require_new_run(run: Path) -> None:
    """Check that a folder holds no run yet.

    Raises:
        ConfigError: it does.
    """
    if any((run / name).exists() for name in RUN_FILES):
        raise ConfigError(
            f"{run} already holds a run; go on with --resume, or name another folder with --out"
        )


def build_trainer(
    cfg: RunConfig,
    *,
    data: Sequence[Path],
    run: Path,
    validation: Sequence[Path] = (),
    resume: bool = False,
    init: Path | None = None,
    allow_change: Sequence[str] = (),
    check_blanks: Callable[[RunConfig, TextTokenizer, Sequence[TokenStore]], Check] | None = None,
    shares: Sequence[float | None] = (),
) -> Trainer:
    """Prepare a run folder and a trainer that stands at its first or its next step.

    The folder is locked until the trainer's `fit` ends.

    Args:
        cfg: the run; `model.vocab_size` is set to the tokenizer's size, rounded up.
        data: token stores to train on.
        run: the run's folder; must not exist unless `resume`.
        validation: token stores to validate on.
        resume: go on from the newest checkpoint of `run`, where there is one.
        init: a run whose newest weights this one starts from.
        allow_change: fields that a resumed run may change, such as `train.peak_lr`.
        shares: share of each store in the rows; see `settle_shares`. Without any, all documents are
            read in one order.
        check_blanks: makes a further check of the held-out stores, such as filling their blanks.

    Raises:
        ConfigError: the folder exists, a resumed run's configuration differs, or the model or the
            tokenizer of `init` does.
        DataError: a store cannot be used.
        CheckpointError: nothing in the folder can be resumed, or another process trains in it.
    """
    if cfg.train.wandb:
        require_wandb()
    device = choose_device(cfg.train.device)
    dtype = choose_precision(cfg.train.precision, device)
    stores = open_stores(data)
    fingerprint = stores[0].tokenizer_fingerprint
    held_out = open_stores(validation, fingerprint) if validation else []
    tokenizer = load_tokenizer(data[0] / "tokenizer")
    vocab_size = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    known = run if resume and (run / "run.json").exists() else init
    if known is not None:  # released models have more rows than ours would round up to
        rows_there = from_dict(RunConfig, read_run(known)["config"]).model.vocab_size
        vocab_size = max(vocab_size, rows_there)
    if vocab_size != cfg.model.vocab_size:
        log.info("model.vocab_size is %d, the tokenizer's %d ids rounded up", vocab_size,
                 tokenizer.vocab_size)  # fmt: skip
        cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, vocab_size=vocab_size))
    if cfg.train.validate_every and not held_out:
        raise ConfigError(
            f"train.validate_every={cfg.train.validate_every} needs held-out data; name a store "
            "with --validation"
        )
    info = _describe(cfg, stores, data, held_out, validation)
    info["hardware"]["device"] = device_name(device)
    settled = settle_shares(shares, [store.num_tokens for store in stores]) if shares else None
    for entry, share in zip(info["data"], settled or [], strict=False):
        entry["share"] = share
    start = None if init is None else read_start(init, cfg, fingerprint)
    if start is not None:
        info["init"] = start.described
    resuming = resume and (run / "run.json").exists()
    changes: list[Change] = []
    attention_before: AttentionKind | None = None
    compiled_before: bool | None = None
    mixtures = [{"row": 0, "shares": settled}] if settled else []
    if resuming:
        old = read_run(run)
        changes = changes_on_resume(old, info, allow_change)
        info["started"], info["changes"] = old["started"], old.get("changes", [])
        if old.get("hardware", {}).get("device") == info["hardware"]["device"]:
            attention_before, compiled_before = old.get("attention"), old.get("compiled")
        if settled:
            before = [entry.get("share") for entry in old["data"]]
            mixtures = old.get("mixtures", [{"row": 0, "shares": before}])
    else:
        require_new_run(run)
    run.mkdir(parents=True, exist_ok=True)
    lock = RunLock(run)
    sweep(run)
    threads = set_threads(cfg.train.threads)
    model = GLM(cfg.model)
    init_weights(model, cfg.train.seed)
    if start is None and not (resuming and list_checkpoints(run)):
        begin_embedding(model, stores, cfg.train)
    model.to(device)
    rows = _build_rows(cfg, stores, mixtures, tokenizer)
    checks: list[Check] = []
    if held_out:
        batches = validation_batches(
            RowSource(
                held_out,
                dataclasses.replace(cfg.objective, by_source=()),
                tokenizer.ids,
                row_length=cfg.train.row_length,
                seed=0,
            ),
            max_rows=VALIDATION_ROWS,
            micro_batch_rows=cfg.train.micro_batch_rows,
        )
        guard = _forgetting_guard(cfg, run, validation)

        def score(model: GLM) -> Validation:
            values = score_batches(model, batches, dtype)
            return Validation(values=values | (guard.judge(values) if guard else {}))

        checks.append(score)
        if check_blanks is not None and cfg.train.validate_blanks:
            checks.append(check_blanks(cfg, tokenizer, held_out))

    peak = find_peak(dtype, device.type)
    info["hardware"]["peak_flops_per_second"] = round(peak.flops_per_second)
    info["hardware"]["peak_source"] = peak.source

    def sample() -> Batch:
        return rows.rows(0, cfg.train.micro_batch_rows)

    info["attention"] = settle_attention(cfg, device, dtype, sample, before=attention_before)
    info["compiled"] = settle_compile(
        cfg, model, dtype, info["attention"], sample, before=compiled_before
    )
    validate = functools.partial(run_checks, checks=checks) if checks else None
    trainer = Trainer(cfg, model, rows, run, validate=validate, tokenizer=tokenizer,
                      lock=lock, peak=peak, attention=info["attention"],
                      compiled=info["compiled"])  # fmt: skip
    if resuming and list_checkpoints(run):
        newest = newest_checkpoint(run)
        for path in set_aside(run, newest.step):
            log.warning("%s does not count any more", path)
        trainer.restore(newest)
    elif start is not None:
        trainer.load_weights(start.weights)
    if isinstance(rows, RowMixture):
        if settled and settled != rows.mixtures[-1][1]:
            rows.change(trainer.row, settled)
        info["mixtures"] = [{"row": row, "shares": of_each} for row, of_each in rows.mixtures]
    if changes:
        for change in changes:
            log.info("from step %d on, %s", trainer.index, change.text)
        info["changes"].append({"step": trainer.index} | {c.name: c.after for c in changes})
    write_json(run / "run.json", info)
    _copy_tokenizer(data[0] / "tokenizer", run / "tokenizer")
    _say_what_was_chosen(trainer, info, threads)
    return trainer


def _forgetting_guard(
    cfg: RunConfig, run: Path, validation: Sequence[Path]
) -> ForgettingGuard | None:
    if not cfg.train.forgetting_limit:
        return None
    return ForgettingGuard(
        run, unique_names(validation), limit=cfg.train.forgetting_limit,
        policy=cfg.train.on_forgetting,
    )  # fmt: skip


def _build_rows(
    cfg: RunConfig, stores: Sequence[TokenStore],
    mixtures: Sequence[dict[str, Any]], tokenizer: TextTokenizer,
) -> RowStream:  # fmt: skip
    length, seed = cfg.train.row_length, cfg.train.seed
    if not mixtures:
        return RowSource(stores, cfg.objective, tokenizer.ids, row_length=length, seed=seed)
    objectives = Objectives(cfg.objective, len(stores)).of_store
    sources = [
        # Draws are addressed by document number, which stores have in common; seeds are not.
        RowSource([store], objective, tokenizer.ids, row_length=length, seed=seed + 1_000_003 * s)
        for s, (store, objective) in enumerate(zip(stores, objectives, strict=True))
    ]  # fmt: skip
    first, *later = mixtures
    mixture = RowMixture(sources, first["shares"], [store.num_tokens for store in stores])
    for change in later:
        mixture.change(change["row"], change["shares"])
    return mixture


def _describe(
    cfg: RunConfig,
    stores: Sequence[TokenStore],
    data: Sequence[Path],
    held_out: Sequence[TokenStore],
    validation: Sequence[Path],
) -> dict[str, Any]:
    def entry(path: Path, store: TokenStore) -> dict[str, Any]:
        return {
            "path": str(path.resolve()), "fingerprint": store.fingerprint,
            "documents": len(store), "tokens": store.num_tokens,
        }  # fmt: skip

    return {
        "format": "blankfill run",
        "version": VERSION,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": to_dict(cfg),
        "tokenizer": {"fingerprint": stores[0].tokenizer_fingerprint},
        "data": [entry(p, s) for p, s in zip(data, stores, strict=True)],
        "validation": [entry(p, s) for p, s in zip(validation, held_out, strict=True)],
        "software": {
            "blankfill": __version__, "python": platform.python_version(),
            "torch": torch.__version__, "numpy": np.__version__,
        },
        "hardware": {
            "machine": platform.machine(), "system": platform.system(),
            "cpu": cpu_name(), "cores": available_cores(),
        },
    }  # fmt: skip


def _say_what_was_chosen(trainer: Trainer, info: dict[str, Any], threads: int) -> None:
    hardware, cfg = info["hardware"], trainer.cfg
    native = trainer.attention == "blocks" and in_c(trainer.device, trainer.dtype)
    log.info(
        "%s parameters, %s on %s, %d threads, attention %s%s, %s, %.3g TFLOP/s (%s), from step %d "
        "to step %d",
        f"{sum(p.numel() for p in trainer.model.parameters()):,}",
        str(trainer.dtype).removeprefix("torch."), hardware["device"], threads, trainer.attention,
        " in C" if native else "", "compiled" if info["compiled"] else "not compiled",
        hardware["peak_flops_per_second"] / 1e12, hardware["peak_source"], trainer.index,
        cfg.train.steps,
    )  # fmt: skip


def _copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a folder under a temporary name and rename it."""
    if not target.exists():
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        os.replace(temporary, target)
