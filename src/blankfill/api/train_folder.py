"""The folder of `blankfill train`: a run that every verb can open, and what it was made from.

    runs/mine/
      run.json, tokenizer/, checkpoints/, ...   the run, as `blankfill pretrain` leaves it
      train.json                                what was asked, the text, and what is finished
      data/tokenizer/                           trained on the text
      data/store/, data/store-held-out/         its token stores
      report.html

A stage is finished where its artefact is there, which appears whole or not at all, and train.json
says that it was made of the same inputs. train.json is written after each artefact: who is stopped
between the two does that stage again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blankfill.disk.json_files import Description, read_object
from blankfill.disk.names import resume_option
from blankfill.disk.ownership import foreign_in, temporaries
from blankfill.disk.publish import NameLock, emptied, refused_by_disk
from blankfill.disk.typed_json import from_json, to_json
from blankfill.errors import ConfigError, OutputError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.disk.ownership import FolderKind

__all__ = ["TRIAL", "Asked", "Expectation", "TextEntry", "TrainFolder", "TrainRecord"]

RECORD = "train.json"
VERSION = 1
DESCRIPTION = Description("format", "blankfill train", VERSION, {})
TRIAL = "trial"
"""What the run is called whose pace is measured."""
WAYS_OUT = "name another --out, or begin again in its place with --overwrite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the user asked for, beside the text."""

    minutes: float
    hold_out: float
    text_field: str
    encoding: str
    documents: Literal["file", "paragraph", "line"]
    seed: int
    squeeze_whitespace: bool = False
    drop_duplicates: bool = False
    vocab_size: int | None = None
    preset: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEntry:
    """The text, as it was read."""

    documents: dict[str, int]
    """By language."""
    bytes: dict[str, int]
    """By language."""
    share: float
    """Of the documents that is held out: what was asked for, or more where that is none."""
    held_out: int
    """Documents that are held out."""
    held_out_bytes: int
    """Bytes of those."""
    alphabet: int
    """Single characters that a vocabulary needs."""
    skipped: dict[str, int]
    """What could not be used, by reason."""
    first_skipped: tuple[str, ...]
    """The first cases."""
    stamp: str
    """Digest of the names, sizes and times of the files."""
    fingerprint: str
    """Digest of the documents."""
    duplicates: int = 0
    """Documents that were there before, word for word."""

    @property
    def num_documents(self) -> int:
        """All documents."""
        return sum(self.documents.values())

    @property
    def num_bytes(self) -> int:
        """All bytes."""
        return sum(self.bytes.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """What was said before training began."""

    positions_per_second: float
    """Rate of training, measured on some steps of the run."""
    steps: int
    """Optimizer steps that fit into the minutes."""
    positions: int
    """Positions in them."""
    passes: float
    """Passes over the text."""
    memory_bytes: int
    """Most memory that this process took so far, those steps included."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRecord:
    """What train.json says."""

    asked: Asked
    """By the user."""
    text: TextEntry
    """What is trained on."""
    vocab_size: int
    """Chosen for it."""
    preset: str
    """Chosen for it."""
    expected: Expectation | None = None
    """Of the training, which was planned by it."""
    finished: dict[str, str] = field(default_factory=dict[str, str])
    """The inputs of each stage that is finished, by its name."""


class TrainFolder:
    """The folder, held by this process.

    Args:
        name: the place, locked.
        overwrite: whether what an earlier `train` left there is to be replaced.

    Raises:
        ConfigError, OutputError: the place holds something else.
    """

    def __init__(self, name: NameLock, *, overwrite: bool) -> None:
        self.shown, self._name, self._overwrite = name.shown, name, overwrite
        self.record: TrainRecord | None = None
        """What it says; None where nothing was begun there."""
        with refused_by_disk(self.shown):
            self._look()

    @property
    def path(self) -> Path:
        """Where it is, as the user named it."""
        return self.shown

    @property
    def data(self) -> Path:
        """What the run is made from."""
        return self.shown / "data"

    @property
    def has_run(self) -> bool:
        """Whether training has begun."""
        return self.record is not None and (self.path / "run.json").exists()

    def begin(self, record: TrainRecord) -> None:
        """Make the folder, in the place of an earlier one where that is asked for; keep a record.

        Raises:
            OutputError: what stands there is something else, or the disk refuses.
        """
        from blankfill.runs import RunLock

        if self._overwrite:
            if self._name.path.is_dir():
                RunLock(self._name.path).release()  # nobody trains the earlier one on
            emptied(self._name, train_kind())
        with refused_by_disk(self.shown):
            self._name.path.mkdir(parents=True, exist_ok=True)
            self.write(record)
            self.data.mkdir(exist_ok=True)

    def write(self, record: TrainRecord) -> None:
        """Keep a record.

        Raises:
            OutputError: the disk refuses.
        """
        from blankfill.atomic import write_json

        said = {"format": DESCRIPTION.value, "version": VERSION, **to_json(record)}
        with refused_by_disk(self.path / RECORD):
            write_json(self.path / RECORD, said)
        self.record = record

    def is_finished(self, stage: str, inputs: str) -> bool:
        """Tell whether a stage was finished with these inputs."""
        return self.record is not None and self.record.finished.get(stage) == inputs

    def finish(self, stage: str, inputs: str) -> None:
        """Say that a stage's artefact stands, made of these inputs."""
        assert self.record is not None
        self.write(replace(self.record, finished={**self.record.finished, stage: inputs}))

    def require_same_question(self, asked: Asked) -> None:
        """Refuse to go on with a run that was begun otherwise, before any text is read.

        Raises:
            ConfigError: what was asked for is another.
        """
        if not self.has_run or self.record is None:
            return
        before, shown = self.record, self.shown
        for name in (each.name for each in fields(Asked)):
            was, now = getattr(before.asked, name), getattr(asked, name)
            if was != now:
                raise ConfigError(
                    f"{shown} was begun with {_said(name, was)}, and is trained for that: give it "
                    f"again, or {WAYS_OUT}"
                )

    def require_same_text(self, text: TextEntry) -> None:
        """Refuse to go on with a run that was begun on another text.

        Raises:
            ConfigError: the text is another.
        """
        if not self.has_run or self.record is None:
            return
        before, shown = self.record.text, self.shown
        if before.fingerprint != text.fingerprint:
            raise ConfigError(
                f"the text has changed since {shown} was begun ({_counts(before)} then, "
                f"{_counts(text)} now): {WAYS_OUT}; `blankfill pretrain` goes on with it as it was "
                "read then"
            )

    def _look(self) -> None:
        target, shown = self._name.path, self.shown
        if not target.exists():
            return
        if not target.is_dir():
            raise OutputError(f"{shown} is not a folder; name another --out")
        unfinished = {path.name for path in temporaries(target, RECORD)}  # of a killed process
        names = sorted({*os.listdir(target)} - unfinished)
        if self._overwrite and names:
            if reason := foreign_in(target, train_kind()):
                raise OutputError(f"{shown} {reason}; it is not replaced: name another --out")
        elif RECORD in names:
            self.record = self._read()
        elif "run.json" in names:
            raise ConfigError(
                f"{shown} holds a run that `blankfill train` did not begin; name another --out, or "
                f"go on with it by `blankfill pretrain {resume_option(self.path)}`"
            )
        elif names:
            raise OutputError(f"{shown} already holds {names[0]}; name a new folder with --out")

    def _read(self) -> TrainRecord:
        path = self.path / RECORD
        try:
            return from_json(TrainRecord, read_object(path, DESCRIPTION))
        except ValueError as error:
            raise OutputError(
                f"{path} is damaged, or another's: {error}; name another --out, or go on with the "
                f"run in it by `blankfill pretrain {resume_option(self.path)}`"
            ) from error


def train_kind() -> FolderKind:
    """Describe the folder: what may lie in it, and may therefore be replaced."""
    from blankfill.data.manifest import KIND as STORE
    from blankfill.disk.ownership import FolderKind
    from blankfill.objective.render import is_picture
    from blankfill.report import is_report
    from blankfill.runs import RUN_FILES, RUN_FOLDERS
    from blankfill.text.tokenizer import KIND as TOKENIZER

    data = FolderKind(
        title="the data of a run", files=(TRIAL,),
        folders={"tokenizer": TOKENIZER, "store": STORE, "store-held-out": STORE},
    )  # fmt: skip
    return FolderKind(
        title="what an earlier `blankfill train` made", marker=RECORD, description=DESCRIPTION,
        files=RUN_FILES, folders={**RUN_FOLDERS, "data": data},
        told_by_content={"*.html": is_report, "*.png": is_picture},
    )  # fmt: skip


def _counts(text: TextEntry) -> str:
    return f"{text.num_documents:,} documents of {text.num_bytes:,} bytes"


def _said(name: str, value: object) -> str:
    """Say an option as the command line has it."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"no {option}"
    if value is True:
        return option
    return f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"
