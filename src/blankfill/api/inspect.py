"""`blankfill info`: what a folder or preset is, in a table."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blankfill.api.parameters import CheckpointName, PathLike, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.model import ModelConfig
from blankfill.config.presets import PRESETS, is_preset, preset
from blankfill.disk.address import is_address
from blankfill.errors import CheckpointError, ConfigError, DataError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.runs import CheckpointState

__all__ = ["InfoResult", "info"]

log = logging.getLogger(__name__)

_EXAMPLE_LENGTH = 160
"""Positions of a document in the example that operations are counted on: web text's mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoResult:
    """What something is."""

    path: str
    """The folder or the preset's name."""
    kind: str
    """tokenizer, store, run, checkpoint or preset."""
    facts: dict[str, str | int | float]
    """What is worth knowing about it, in the order to show."""

    __repr__ = short_repr


@checks_arguments
def info(path: PathLike, /, *, checkpoint: CheckpointName | None = None) -> InfoResult:
    """Tell what a tokenizer, store, run, checkpoint or preset is.

    Example:
        blankfill info runs/mine

    Args:
        path: a folder that blankfill wrote, the address of a store, or the name of a preset.
        checkpoint: of a run, last, best (lowest validation loss), or a step; the last where not
            given.

    Raises:
        CheckpointError: the run has no such checkpoint.
        ConfigError: a checkpoint is named of something that is no run.
        DataError: there is nothing there that blankfill knows.
    """
    from blankfill.data.manifest import SHARD_FOLDER

    folder, name = as_path(path), str(path)
    if is_address(folder):
        if checkpoint is not None:
            raise _not_of_a_run(name, "store")
        return InfoResult(path=name, kind="store", facts=_store(folder))
    marks: tuple[tuple[str, str, Callable[[Path], dict[str, str | int | float]]], ...] = (
        ("run.json", "run", functools.partial(_run, checkpoint=checkpoint)),
        ("state.json", "checkpoint", functools.partial(_checkpoint, checkpoint=checkpoint)),
        ("tokens.bin", "store", _store),
        (f"{SHARD_FOLDER.format(0)}/tokens.bin", "store", _store),
        ("tokenizer.model", "tokenizer", _tokenizer),
        ("blankfill.json", "tokenizer", _tokenizer),
    )
    for mark, kind, facts in marks:
        if (folder / mark).is_file():
            if checkpoint is not None and kind not in ("run", "checkpoint"):
                raise _not_of_a_run(name, kind)
            if is_preset(name):
                log.warning("this is the folder %s; the preset of that name is shown where no such "
                            "folder is", name)  # fmt: skip
            return InfoResult(path=name, kind=kind, facts=facts(folder))
    if is_preset(name):
        if checkpoint is not None:
            raise _not_of_a_run(name, "preset")
        if folder.exists():
            log.warning("this is the preset %s; the folder of that name holds nothing that "
                        "blankfill wrote", name)  # fmt: skip
        return InfoResult(path=name, kind="preset", facts=_preset(name))
    if not folder.exists():
        raise DataError(
            f"{name}: no such folder, and no such preset; the presets are {', '.join(PRESETS)}"
        )
    raise DataError(f"{name} is not a tokenizer, store, run or checkpoint folder of blankfill's")


def _not_of_a_run(name: str, kind: str) -> ConfigError:
    return ConfigError(f"{name} is a {kind}, and checkpoints are of runs; leave out --checkpoint")


def _preset(name: str) -> dict[str, str | int | float]:
    cfg = preset(name)
    return {
        **_model(cfg.model),
        **_size(cfg.model, cfg.train.row_length),
        "short / document rate": f"{cfg.objective.short_rate:g} / {cfg.objective.document_rate:g}",
        "row length": cfg.train.row_length,
        "rows per step": cfg.train.batch_rows,
        "steps": cfg.train.steps,
        "peak learning rate": cfg.schedule.peak_lr,
    }


def _size(cfg: ModelConfig, row_length: int) -> dict[str, str | int | float]:
    """Count weights by part, and the operations of training on a position and on a row."""
    import numpy as np

    from blankfill.metrics.flops import count_parameters, training_flops

    parts = count_parameters(cfg)
    ends = np.append(np.arange(0, row_length, _EXAMPLE_LENGTH), row_length)
    part_b = ends[1:] - np.diff(ends) * 3 // 10
    blocks = np.stack([np.zeros_like(part_b), ends[:-1], part_b, ends[1:]], axis=1)
    work = training_flops(cfg, blocks, row_length * 3 // 10, (1, row_length))
    return {
        "parameters": sum(parts.values()),
        **{f"parameters, {name.replace('_', ' ')}": count for name, count in parts.items()},
        "training FLOPs per row, dense convention": work.dense,
        "training FLOPs per position, dense convention": round(work.dense / row_length),
        f"the same per position, as done on documents of {_EXAMPLE_LENGTH}, 30 % targets": round(
            work.model / row_length
        ),
    }


def _model(cfg: ModelConfig) -> dict[str, str | int | float]:
    return {
        "layers x width": f"{cfg.num_layers} x {cfg.hidden_size}",
        "heads": cfg.num_heads,
        "feed-forward": f"{cfg.ffn_size} {cfg.activation}",
        "block": cfg.block,
        "positions": cfg.positions,
        "vocabulary rows": cfg.vocab_size,
        "longest text": cfg.max_position,
    }


def _run(folder: Path, checkpoint: CheckpointName | None) -> dict[str, str | int | float]:
    from blankfill.metrics import read_metrics
    from blankfill.runs import read_run

    record = read_run(folder)
    cfg, software, hardware = record.config, record.software, record.hardware
    facts: dict[str, str | int | float] = {
        "started": record.started,
        "blankfill / torch": f"{software.blankfill} / {software.torch}",
        "machine": f"{hardware.cpu}, {hardware.cores} cores",
        "device": hardware.device,
        **_model(cfg.model),
        **_size(cfg.model, cfg.train.row_length),
        "training tokens": sum(entry.tokens for entry in record.data),
        "training data": ", ".join(entry.path for entry in record.data),
        "steps planned": cfg.train.steps,
    }
    if record.imported is not None:
        facts["imported from"] = f"{record.imported.source} ({record.imported.layout})"
        facts["checksum"] = record.imported.checksum
        facts["tokenizer"] = (
            str(folder / "tokenizer")
            if record.tokenizer
            else "none; import it again with --tokenizer"
        )
    if (quantized := record.quantized) is not None:
        origin = f"step {quantized.step} of {quantized.run}"
        facts["quantised"] = f"to {quantized.bits} bits a weight, from {origin}"
    facts |= _of_checkpoints(folder, checkpoint)
    rows = [row for row in read_metrics(folder) if "loss_nats" in row]
    if rows:
        facts["training loss (nats)"] = round(float(rows[-1]["loss_nats"]), 4)
    return facts


def _of_checkpoints(run: Path, wanted: CheckpointName | None) -> dict[str, str | int | float]:
    """List a run's checkpoints, and say of the wanted one where it is and how good."""
    from blankfill.runs import best_validation, choose_checkpoint, list_checkpoints, step_of

    folders = list_checkpoints(run)
    if not folders and wanted is None:
        return {}
    found = choose_checkpoint(run, "last" if wanted is None else wanted, parts=[])
    facts: dict[str, str | int | float] = {
        "checkpoints of steps": ", ".join(str(step_of(path)) for path in folders),
        "newest checkpoint" if wanted is None else f"checkpoint {wanted}": str(found.path),
        "steps done": found.step,
        **_loss(found.state),
    }
    best = best_validation(run)
    if best is not None:
        facts["lowest validation loss (nats)"] = round(best.loss_nats, 4)
        facts["at step"] = best.step
    return facts


def _loss(state: CheckpointState) -> dict[str, float]:
    loss = None if state.training is None else state.training.validation_loss_nats
    return {} if loss is None else {"validation loss (nats)": round(loss, 4)}


def _checkpoint(folder: Path, checkpoint: CheckpointName | None) -> dict[str, str | int | float]:
    from blankfill.runs import locate, read_state

    if checkpoint is not None:
        locate(folder, checkpoint)  # which refuses another than this one
    try:
        state = read_state(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} is a damaged checkpoint ({error}); take another of its run"
        ) from error
    return {"step": state.step, **_loss(state), **_sizes(state)}


def _sizes(state: CheckpointState) -> dict[str, int]:
    """Give the size of each part of a checkpoint, by the name of its file where it has one."""
    from blankfill.runs import part_of

    parts: dict[str, dict[str, int]] = {}
    for name, file in state.files.items():
        parts.setdefault(part_of(name), {})[name] = file.bytes
    return {
        f"{next(iter(files)) if len(files) == 1 else f'{part}, {len(files)} files'} (bytes)": sum(
            files.values()
        )
        for part, files in parts.items()
    }


def _store(folder: Path) -> dict[str, str | int | float]:
    from blankfill.data.store import TokenStore

    store = TokenStore.open(folder)
    facts: dict[str, str | int | float] = {
        "documents": len(store),
        "tokens": store.num_tokens,
        **({"shards": len(store.entries)} if store.is_sharded else {}),
        "mean tokens per document": round(store.num_tokens / max(1, len(store)), 1),
        "fingerprint": store.fingerprint,
        "tokenizer fingerprint": store.tokenizer_fingerprint,
    }
    for name, counts in store.by_language.items():
        facts[f"documents ({name})"] = counts["documents"]
    return facts


def _tokenizer(folder: Path) -> dict[str, str | int | float]:
    from blankfill.text.vocabularies import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return {"ids": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint}
