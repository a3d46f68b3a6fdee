"""From a run's folder back to its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from blankfill.checkpoint import newest_checkpoint, read_run
from blankfill.checkpoint.weights import load_weights
from blankfill.config.run import RunConfig, from_dict
from blankfill.config.train import DeviceKind
from blankfill.engine.device import choose_device
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM
from blankfill.runtime import at_most_cores
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.vocabularies import NoVocabulary, load_tokenizer

__all__ = ["Run", "load_run", "set_threads"]


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
    """Use `wanted` CPU threads, or every core that this process may use when it is 0.

    More threads than cores are only slower, and thousands of them end the process.
    """
    threads = at_most_cores(wanted, "train.threads")
    torch.set_num_threads(threads)
    return threads


def load_run(
    path: Path,
    *,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "cpu",
    needs_text: bool = True,
) -> Run:
    """Load the newest checkpoint of a run for evaluation or filling.

    Args:
        path: the run's folder.
        weights: the last ones, or their moving average where the run keeps one.
        device: where the model is put.
        needs_text: whether a run without a vocabulary is refused; else it has a `NoVocabulary`.

    Raises:
        CheckpointError: the folder is not a run, or holds no usable checkpoint or no average.
        ConfigError: the device is not there.
    """
    where = choose_device(device)
    info = read_run(path)
    cfg = from_dict(RunConfig, info["config"])
    tokenizer: TextTokenizer
    if info["tokenizer"] is not None:
        tokenizer = load_tokenizer(path / "tokenizer")
    elif not needs_text:
        tokenizer = NoVocabulary(cfg.model.vocab_size)
    else:
        raise CheckpointError(
            f"{path} was imported without a tokenizer, so it reads and writes no text; import it "
            f"again: blankfill import {path} --tokenizer PATH --out NEW"
        )
    if info["tokenizer"] is not None and tokenizer.fingerprint != info["tokenizer"]["fingerprint"]:
        raise CheckpointError(f"{path / 'tokenizer'} is not the tokenizer that {path} was trained "
                              "with; restore it")  # fmt: skip
    name = "ema" if weights == "ema" else "model"
    checkpoint = newest_checkpoint(path, [name])
    with torch.device("meta"):
        model = GLM(cfg.model)
    model = model.to_empty(device=where)
    if name == "ema" and f"{name}.safetensors" not in checkpoint.state["files"]:
        raise CheckpointError(f"{checkpoint.path} has no moving average of its weights; train with "
                              "--train.ema-decay 0.999 to have one")  # fmt: skip
    load_weights(model, checkpoint.path, name=name)
    model.eval()
    set_threads(cfg.train.threads)
    return Run(
        path=path, cfg=cfg, model=model, tokenizer=tokenizer, step=checkpoint.step, info=info
    )
