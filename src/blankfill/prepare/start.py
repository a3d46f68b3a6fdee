"""What a run's weights start from: another run's, or the text itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from blankfill.config.on_resume import OnResume, on_resume
from blankfill.config.run import RunConfig, to_dict
from blankfill.config.train import TrainConfig
from blankfill.data.neighbours import count_neighbours
from blankfill.data.store import TokenStore
from blankfill.errors import CheckpointError, ConfigError
from blankfill.model.embedding_init import embed_neighbours
from blankfill.processes import Processes, this_place
from blankfill.runs import Part, choose_checkpoint, locate, open_checkpoint, read_run
from blankfill.runs.parts import part_files
from blankfill.runs.record import InitEntry

__all__ = ["Start", "embedding_begins_from_text", "first_embedding", "read_start", "require_whole"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Weights of another run."""

    described: InitEntry
    """What run.json keeps of them."""
    weights: Path
    """Their checkpoint."""


def read_start(path: Path, cfg: RunConfig, tokenizer_fingerprint: str) -> Start:
    """Find the weights of another run and check that they fit.

    Args:
        path: the run's folder, whose newest weights are meant, or that of one of its checkpoints.

    Raises:
        CheckpointError: it is not a run, has no such checkpoint, or is quantised.
        ConfigError: its tokenizer or its model is another.
    """
    place = locate(path)
    path = place.run
    record = read_run(path)
    record.require_whole(path, "is not trained")
    if record.tokenizer_fingerprint != tokenizer_fingerprint:
        raise ConfigError(
            f"{path} was trained with another tokenizer than the stores were built with; build "
            f"them with --tokenizer {path / 'tokenizer'}"
        )
    theirs, ours = to_dict(record.config.model), to_dict(cfg.model)
    may = on_resume(RunConfig)
    differ = [
        f"model.{name} is {theirs[name]!r} there and {value!r} here"
        for name, value in ours.items()
        if theirs[name] != value and may[f"model.{name}"] is OnResume.NEVER
    ]
    if differ:
        raise ConfigError(f"the weights of {path} do not fit this model: {'; '.join(differ)}")
    # Several processes share it out when all have planned (`require_whole`).
    parts: list[Part] = ["model"] if this_place().count == 1 else []
    found = choose_checkpoint(path, place.checkpoint, parts)
    files = [found.state.files[file.name].sha256 for file in part_files(found.path)]
    described = InitEntry(path=str(path.resolve()), step=found.step, fingerprint="-".join(files))
    return Start(described=described, weights=found.path)


def require_whole(start: Start, processes: Processes) -> None:
    """Let several processes look together whether weights are as they were written.

    Raises:
        CheckpointError: a file is missing or differs; in all processes alike.
    """
    if processes.count == 1:
        return  # which has looked when it planned
    folder = start.weights
    try:
        open_checkpoint(folder.parent.parent, folder, ["model"], processes)
    except (OSError, ValueError) as error:
        processes.refuse(
            CheckpointError(
                f"{folder} is damaged ({error}); restore it, or name another with --init-checkpoint"
            )
        )


def embedding_begins_from_text(cfg: TrainConfig) -> bool:
    """Tell whether a new run's word embedding has its first values from the text."""
    return cfg.embedding_init != "random"


def first_embedding(weight: torch.Tensor, stores: Sequence[TokenStore], cfg: TrainConfig) -> None:
    """Give a word embedding's rows their first values from the text.

    Args:
        weight: `[V, D]` with its random first values.
        stores: the text.
        cfg: whose seed is taken.
    """
    counts, frequency = count_neighbours(stores, len(weight))
    known = embed_neighbours(
        weight, torch.from_numpy(counts), torch.from_numpy(frequency), cfg.seed
    )
    log.debug("%s of %s embeddings begin near their neighbours'", f"{known:,}", f"{len(counts):,}")
