"""From a configuration and folders to a trainer, and from a run folder back to its model."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blankfill import __version__
from blankfill.checkpoint import newest_checkpoint, read_run, write_json
from blankfill.checkpoint.layout import VERSION
from blankfill.checkpoint.weights import load_weights
from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.errors import CheckpointError, ConfigError, DataError
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.runtime import available_cores
from blankfill.text.tokenizer import TextTokenizer, Tokenizer
from blankfill.text.vocabularies import load_tokenizer
from blankfill.train.trainer import Trainer
from blankfill.train.transfer import choose_precision
from blankfill.train.validate import score_batches, validation_batches

__all__ = ["Run", "build_trainer", "load_run", "open_stores", "set_threads"]

log = logging.getLogger(__name__)

VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are rounded up to this, for even matrix products (Megatron rounds too)."""
VALIDATION_ROWS = 64
"""Most rows that a validation during training scores."""
RUN_FILES = ("run.json", "metrics.jsonl", "checkpoints", "tokenizer")
"""What a run writes into its folder; a folder that holds one of these is taken."""
CHANGEABLE = frozenset(
    ("steps", "log_every", "checkpoint_every", "keep_checkpoints", "validate_every", "threads",
     "precision", "compile")
)  # fmt: skip
"""Fields of `train` that a resumed run may change without becoming another run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A trained model and what it needs."""

    path: Path
    """The run's folder."""
    cfg: RunConfig
    """Its configuration."""
    model: GLM
    """Its weights at `step`, in evaluation mode, float32."""
    tokenizer: TextTokenizer
    """Its tokenizer: our own, or the vocabulary of an imported model."""
    step: int
    """Optimizer steps done."""
    info: dict[str, Any]
    """Content of run.json."""


def set_threads(wanted: int) -> int:
    """Use `wanted` CPU threads, or every core that this process may use when it is 0."""
    threads = wanted or available_cores()
    torch.set_num_threads(threads)
    return threads


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


def build_trainer(
    cfg: RunConfig,
    *,
    data: Sequence[Path],
    run: Path,
    validation: Sequence[Path] = (),
    resume: bool = False,
) -> Trainer:
    """Prepare a run folder and a trainer that stands at its first or its next step.

    Args:
        cfg: the run; `model.vocab_size` is set to the tokenizer's size, rounded up.
        data: token stores to train on.
        run: the run's folder; must not exist unless `resume`.
        validation: token stores to validate on.
        resume: go on from the newest checkpoint of `run`, where there is one.

    Raises:
        ConfigError: the folder exists, or a resumed run's configuration differs.
        DataError: a store cannot be used.
        CheckpointError: nothing in the folder can be resumed.
    """
    stores = open_stores(data)
    fingerprint = stores[0].tokenizer_fingerprint
    held_out = open_stores(validation, fingerprint) if validation else []
    tokenizer = Tokenizer.load(data[0] / "tokenizer")
    vocab_size = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
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
    resuming = resume and (run / "run.json").exists()
    if resuming:
        _check_same_run(read_run(run), info)
    elif any((run / name).exists() for name in RUN_FILES):
        raise ConfigError(
            f"{run} already holds a run; go on with --resume, or name another folder with --out"
        )
    threads = set_threads(cfg.train.threads)
    model = GLM(cfg.model)
    init_weights(model, cfg.train.seed)
    rows = RowSource(
        stores, cfg.objective, tokenizer.ids, row_length=cfg.train.row_length, seed=cfg.train.seed
    )
    validate: Callable[[GLM], dict[str, float]] | None = None
    dtype = choose_precision(cfg.train.precision)
    if held_out:
        batches = validation_batches(
            RowSource(
                held_out, cfg.objective, tokenizer.ids, row_length=cfg.train.row_length, seed=0
            ),
            max_rows=VALIDATION_ROWS,
            micro_batch_rows=cfg.train.micro_batch_rows,
        )
        validate = functools.partial(score_batches, batches=batches, dtype=dtype)

    trainer = Trainer(cfg, model, rows, run, validate=validate)
    if resuming and any((run / "checkpoints").glob("step-*")):
        trainer.restore(newest_checkpoint(run))
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "run.json", info)
    if not (run / "tokenizer").exists():
        shutil.copytree(data[0] / "tokenizer", run / "tokenizer")
    log.info(
        "%s parameters, %s, %d threads, %s to step %d",
        f"{sum(p.numel() for p in model.parameters()):,}", str(dtype).removeprefix("torch."),
        threads, f"from step {trainer.index}", cfg.train.steps,
    )  # fmt: skip
    return trainer


def load_run(path: Path) -> Run:
    """Load the newest checkpoint of a run for evaluation or filling.

    Raises:
        CheckpointError: the folder is not a run, or holds no usable checkpoint.
    """
    info = read_run(path)
    cfg = from_dict(RunConfig, info["config"])
    if info["tokenizer"] is None:
        raise CheckpointError(
            f"{path} was imported without a tokenizer, so it reads and writes no text; import it "
            f"again: blankfill import {path} --tokenizer PATH --out NEW"
        )
    tokenizer = load_tokenizer(path / "tokenizer")
    if tokenizer.fingerprint != info["tokenizer"]["fingerprint"]:
        raise CheckpointError(f"{path / 'tokenizer'} is not the tokenizer that {path} was trained "
                              "with; restore it")  # fmt: skip
    checkpoint = newest_checkpoint(path)
    with torch.device("meta"):
        model = GLM(cfg.model)
    model = model.to_empty(device="cpu")
    load_weights(model, checkpoint.path)
    model.eval()
    set_threads(cfg.train.threads)
    return Run(
        path=path, cfg=cfg, model=model, tokenizer=tokenizer, step=checkpoint.step, info=info
    )


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
            "cpu": _cpu_name(), "cores": available_cores(),
        },
    }  # fmt: skip


def _check_same_run(old: dict[str, Any], new: dict[str, Any]) -> None:
    changes: list[str] = []
    for part in ("model", "objective", "train"):
        before, after = old["config"].get(part, {}), new["config"][part]
        changes += [
            f"{part}.{name} was {before.get(name)!r}, is {after[name]!r}"
            for name in after
            if before.get(name) != after[name] and not (part == "train" and name in CHANGEABLE)
        ]
    before = [entry["fingerprint"] for entry in old["data"]]
    after = [entry["fingerprint"] for entry in new["data"]]
    if before != after:
        changes.append("the training data is another")
    if old["tokenizer"] != new["tokenizer"]:
        changes.append("the tokenizer is another")
    if changes:
        raise ConfigError(
            f"this is not the run that was started: {'; '.join(changes)}; resume with the same "
            "settings and data, or start anew with another --out"
        )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or os.uname().machine
