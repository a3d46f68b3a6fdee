"""A model in use: its network, its tokenizer, and the rules that it was trained by.

Whatever fills, continues, scores or exports takes this one value, so that no caller can pair a
network with the tokenizer or the positions of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from blankfill.config.checkpoint import CheckpointName
from blankfill.config.objective import PositionScheme
from blankfill.config.run import RunConfig
from blankfill.config.train import DeviceKind
from blankfill.engine.device import choose_device
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM
from blankfill.objective.special import SpecialIds
from blankfill.runs import (
    Part,
    RunRecord,
    choose_checkpoint,
    locate,
    read_run,
)
from blankfill.runs.tensors import load_weights
from blankfill.runtime import set_threads
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.vocabularies import NoVocabulary, load_tokenizer

__all__ = ["LanguageModel"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModel:
    """A trained model and what it takes to use it."""

    model: GLM
    """The network, in evaluation mode."""
    tokenizer: TextTokenizer
    """Its tokenizer: our own, or the vocabulary of an imported model."""
    cfg: RunConfig
    """What it was trained with."""
    path: Path | None = None
    """The run's folder; None where the model was never written."""
    step: int = 0
    """Optimizer steps done."""

    @property
    def ids(self) -> SpecialIds:
        """The special tokens."""
        return self.tokenizer.ids

    @property
    def scheme(self) -> PositionScheme:
        """The position scheme that it was trained with."""
        return self.cfg.objective.positions

    @property
    def sentinel_position(self) -> int | None:
        """Text position of Part B where it was trained with sentinels; else None."""
        return self.cfg.sentinel_position

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return next(self.model.parameters()).dtype

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        checkpoint: CheckpointName | None = None,
        weights: Literal["last", "ema"] = "last",
        device: DeviceKind = "cpu",
        needs_text: bool = True,
    ) -> LanguageModel:
        """Load a checkpoint of a run.

        Args:
            path: the run's folder, or that of one of its checkpoints.
            checkpoint: `last`, `best` or a step; the folder's own, or the last, where not given.
            weights: the last ones, or their moving average where the run keeps one.
            device: where the model is put.
            needs_text: whether a run without a vocabulary is refused; else it has a `NoVocabulary`.

        Raises:
            CheckpointError: the folder is not a run, or holds no such checkpoint or no average.
            ConfigError: the device is not there, or `checkpoint` is none of these.
        """
        where = choose_device(device)
        place = locate(path, checkpoint)
        run = place.run
        record = read_run(run)
        cfg = record.config
        tokenizer = _load_tokenizer(run, record, needs_text=needs_text)
        name: Part = "ema" if weights == "ema" else "model"
        found = choose_checkpoint(run, place.checkpoint, [name])
        with torch.device("meta"):
            model = GLM(cfg.model)
        model = model.to_empty(device=where)
        if not found.holds(name):
            raise CheckpointError(f"{found.path} has no moving average of its weights; train "
                                  "with --optimizer.ema-decay 0.999 to have one")  # fmt: skip
        load_weights(model, found.path, name)
        model.eval()
        set_threads(cfg.train.threads)
        return cls(model=model, tokenizer=tokenizer, cfg=cfg, path=run, step=found.step)


def _load_tokenizer(run: Path, record: RunRecord, *, needs_text: bool) -> TextTokenizer:
    """Load the tokenizer in a run's folder, which must be the one that it was trained with."""
    if record.tokenizer is None:
        if not needs_text:
            return NoVocabulary(record.config.model.vocab_size)
        raise CheckpointError(
            f"{run} was imported without a tokenizer, so it reads and writes no text; import it "
            f"again: blankfill import {run} --tokenizer PATH --out NEW"
        )
    tokenizer = load_tokenizer(run / "tokenizer")
    if tokenizer.fingerprint != record.tokenizer.fingerprint:
        raise CheckpointError(f"{run / 'tokenizer'} is not the tokenizer that {run} was trained "
                              "with; restore it")  # fmt: skip
    return tokenizer
