"""Carry out an import: write a run folder of ours from a checkpoint of another project.

    model/
      run.json                          the configuration; where the weights came from
      import.json                       every tensor: its source, shape, dtype and SHA-256
      checkpoints/step-00000000/        model.safetensors, or several of at most 5 GB
      tokenizer/                        the vocabulary, where one was given or found

Tensors go through memory one at a time. The folder is written under a temporary name and renamed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from blankfill.atomic import write_json
from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.config.presets import preset
from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.disk.publish import new_folder
from blankfill.interop.plan import ImportPlan, Reader, Taken
from blankfill.interop.rows import check_vocabulary
from blankfill.runs import CheckpointState, RunRecord, checkpoint_folder, write_run, write_state
from blankfill.runs.made_with import Hardware, Software
from blankfill.runs.parts import list_part
from blankfill.runs.record import ImportedFrom, TokenizerEntry, begun_now
from blankfill.runs.tensors import TensorWriter
from blankfill.text.tokenizer import Tokenizer
from blankfill.text.vocabularies import Vocabulary, save_vocabulary

__all__ = ["Written", "run_import"]

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 5_000_000_000
"""Largest file of weights; a tensor that is larger has a file of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What an import wrote."""

    cfg: RunConfig
    """The configuration in run.json."""
    tensors: dict[str, str]
    """SHA-256 of each tensor's bytes, by our name."""
    checksum: str
    """SHA-256 over the sorted checksums of the tensors, one a line."""
    num_bytes: int
    """Bytes of the files of weights."""
    differing: tuple[str, ...]
    """Tensors that every rank should hold alike and does not; the first rank's were taken."""


def run_import(
    plan: ImportPlan,
    out: Path,
    vocabulary: Vocabulary | Tokenizer | None = None,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Write the folder.

    Args:
        plan: what to do.
        out: the folder; must not exist, or be empty.
        vocabulary: what turns text into the model's tokens.
        max_file_bytes: largest file of weights.
        advance: called with the number of tensors that were just written.

    Raises:
        ConversionError: a file is damaged, or the vocabulary is of another model.
        OutputError: the folder is taken or cannot be written.
    """
    if vocabulary is not None:
        check_vocabulary(vocabulary, plan)
    with new_folder(out) as folder:
        return _write(plan, folder, vocabulary, max_file_bytes, advance or (lambda _: None))


def _write(
    plan: ImportPlan, folder: Path, vocabulary: Vocabulary | Tokenizer | None,
    max_file_bytes: int, advance: Callable[[int], None],
) -> Written:  # fmt: skip
    checkpoint = checkpoint_folder(folder, 0)
    checkpoint.mkdir(parents=True)
    tensors: dict[str, str] = {}
    differing: list[str] = []
    reader = Reader(plan.cfg.num_heads)
    specs = [taken.spec for taken in plan.taken]
    with TensorWriter(checkpoint, "model", specs, max_file_bytes=max_file_bytes) as writer:
        for taken in plan.taken:
            digest = hashlib.sha256()
            writer.write(taken.spec.name, reader.read(taken), digest)
            tensors[taken.spec.name] = digest.hexdigest()
            if _differs(taken):
                differing.append(taken.entry.theirs)
            advance(1)
    _verify(checkpoint, plan)
    checksum = hashlib.sha256("\n".join(sorted(tensors.values())).encode()).hexdigest()
    write_state(checkpoint, CheckpointState(step=0, files=writer.files))
    record = _describe(plan, vocabulary, checksum)
    write_run(folder, record)
    write_json(folder / "import.json", {
        "format": "blankfill import", "version": 1, "source": str(plan.source.path),
        "layout": plan.source.layout, "files": [str(path) for path in plan.source.files],
        "ranks": len(plan.source.ranks), "checksum": checksum, "ignored": plan.ignored,
        "absent": list(plan.absent), "differing": differing,
        "tensors": [_entry(taken, tensors) for taken in plan.taken],
    })  # fmt: skip
    if vocabulary is not None:
        (folder / "tokenizer").mkdir()
        save_vocabulary(vocabulary, folder / "tokenizer")
    return Written(
        cfg=record.config, tensors=tensors, checksum=checksum, differing=tuple(differing),
        num_bytes=sum(file.bytes for file in writer.files.values()),
    )  # fmt: skip


def _differs(taken: Taken) -> bool:
    """Whether ranks that should hold the same tensor do not."""
    if taken.entry.sharding != "whole" or len(taken.parts) < 2:
        return False
    first = taken.parts[0].read()
    return not all(torch.equal(first, part.read()) for part in taken.parts[1:])


def _verify(checkpoint: Path, plan: ImportPlan) -> None:
    """Let the library read back what the writer wrote: names, shapes and dtypes."""
    found = {name: tensor.shape for name, tensor in list_part(checkpoint).items()}
    assert found == {taken.spec.name: taken.spec.shape for taken in plan.taken}


def _entry(taken: Taken, tensors: dict[str, str]) -> dict[str, object]:
    spec = taken.spec
    return {
        "name": spec.name, "from": taken.entry.theirs, "shape": list(spec.shape),
        "dtype": str(spec.dtype).removeprefix("torch."), "sha256": tensors[spec.name],
    }  # fmt: skip


def _run_config(plan: ImportPlan) -> RunConfig:
    """Give the imported model the objective and lengths that it was trained with."""
    if plan.source.record is not None:
        return dataclasses.replace(plan.source.record.config, model=plan.cfg)
    train = TrainConfig()
    row_length = min(train.row_length, plan.cfg.max_position)
    return RunConfig(
        model=plan.cfg, objective=_objective(plan),
        train=dataclasses.replace(train, row_length=row_length),
    )  # fmt: skip


def _objective(plan: ImportPlan) -> ObjectiveConfig:
    """Give a foreign model the mixture it was trained on, and the positions its code computes.

    With one position id, the code of ChatGLM-6B and GLM-130B continues the numbering after
    `[gMASK]` and keeps the mask's position for `[MASK]`: our linear scheme. With two, every token
    of a span has the position of its mask.
    """
    scheme = "linear" if plan.cfg.positions == "rope_1d" else "corrupted"
    return dataclasses.replace(_mixture(plan), positions=scheme)


def _mixture(plan: ImportPlan) -> ObjectiveConfig:
    if plan.preset:
        return preset(plan.preset).objective
    if plan.source.layout in ("sat-glm-130b", "largescale"):
        return MIXTURES["glm-130b"]
    if plan.cfg.positions != "learned_2d":
        return ObjectiveConfig()
    if plan.cfg.max_position >= 1024:  # GLM-2B, 10B and the Chinese models know all three blanks
        return MIXTURES["glm-10b-1024"]
    return MIXTURES["glm-base"]


def _describe(
    plan: ImportPlan, vocabulary: Vocabulary | Tokenizer | None, checksum: str
) -> RunRecord:
    own = plan.source.record
    return RunRecord(
        config=_run_config(plan),
        tokenizer=TokenizerEntry(fingerprint=vocabulary.fingerprint) if vocabulary else None,
        data=own.data if own else (),
        validation=own.validation if own else (),
        started=begun_now(),
        software=Software.here(),
        hardware=Hardware.here(),
        imported=ImportedFrom(
            source=str(plan.source.path), layout=plan.source.layout, preset=plan.preset,
            checksum=checksum,
        ),
    )  # fmt: skip
