"""Hidden states of a run's checkpoint and of its first weights, computed or kept from before.

Shapes: n texts, L blocks, D hidden.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blankfill import progress
from blankfill.config.checkpoint import CheckpointName
from blankfill.config.run import RunConfig
from blankfill.config.train import DeviceKind
from blankfill.engine.device import precision_context
from blankfill.generate import LanguageModel
from blankfill.generate.loading import Weights, find_weights, load_run_tokenizer
from blankfill.model.glm import GLM, device_of
from blankfill.probe.kept import keep, kept, name_of
from blankfill.probe.represent import Float32, Item, represent, untrained
from blankfill.results import to_dict
from blankfill.runs import Part, locate, read_run
from blankfill.runs.folder import part_of
from blankfill.text.tokenizer import TextTokenizer

__all__ = ["Source", "open_source"]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A checkpoint whose weights are read only where its states are not kept."""

    run: Path
    step: int
    cfg: RunConfig
    tokenizer: TextTokenizer
    hashes: dict[str, str]
    """Of the files of its weights."""
    load: Callable[[], LanguageModel]

    def trained(self, items: Sequence[Item]) -> Float32:
        """`[L + 1, n, D]` states of the checkpoint."""

        def compute(advance: Callable[[int], None]) -> Float32:
            lm = self.load()
            with lm.lock, lm.computing():
                return represent(lm.model, items, advance)

        return _kept_or(name_of(self.hashes, items), items, "hidden states", compute)

    def untrained(self, items: Sequence[Item], seed: int) -> Float32:
        """`[L + 1, n, D]` states of the same architecture with its first weights."""

        def compute(advance: Callable[[int], None]) -> Float32:
            model = untrained(self.cfg, seed)
            with _computing(model):
                return represent(model, items, advance)

        said = json.dumps(to_dict(self.cfg.model), sort_keys=True)
        name = name_of({"untrained": said, "seed": str(seed)}, items)
        return _kept_or(name, items, "untrained states", compute)


def open_source(
    path: Path, *, checkpoint: CheckpointName | None, weights: Weights, device: DeviceKind
) -> Source:
    """Open a checkpoint.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
    """
    place = locate(path, checkpoint)
    record = read_run(place.run)
    found, name = find_weights(place, weights)
    return Source(
        run=place.run, step=found.step, cfg=record.config,
        tokenizer=load_run_tokenizer(place.run, record), hashes=_hashes(found.state.files, name),
        load=lambda: LanguageModel.load(
            path, checkpoint=checkpoint, weights=weights, device=device
        ),
    )  # fmt: skip


def _hashes(files: object, name: Part) -> dict[str, str]:
    assert isinstance(files, dict)
    return {file: saved.sha256 for file, saved in files.items() if part_of(file) == name}


def _computing(model: GLM):
    import torch

    return precision_context(torch.float32, device_of(model))


def _kept_or(
    name: str, items: Sequence[Item], title: str,
    compute: Callable[[Callable[[int], None]], Float32],
) -> Float32:  # fmt: skip
    found = kept(name, len(items))
    if found is not None:
        return found
    with progress.bar(title, len(items), "texts") as meter:
        states = compute(meter.advance)
    keep(name, states)
    return states
