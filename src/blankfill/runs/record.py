"""What a run says of itself: run.json, and state.json in each of its checkpoints, as values.

Whoever makes a run (pretraining, an import, a change of vocabulary) makes a `RunRecord`, and here
it is written; whoever reads a run gets it back from `read_run`, complete and checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from blankfill import atomic
from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.config.train import AttentionKind
from blankfill.disk.json_files import Description, EarlierFormatError, check, read_object
from blankfill.disk.typed_json import from_json, to_json
from blankfill.errors import CheckpointError, ConfigError
from blankfill.runs.made_with import Hardware, Software
from blankfill.runs.tensors import SavedFile

__all__ = [
    "RUN",
    "VERSION",
    "BestValidation",
    "ChangeEntry",
    "CheckpointState",
    "GuardState",
    "ImportedFrom",
    "InitEntry",
    "LossSums",
    "MixtureEntry",
    "QuantizedFrom",
    "ResizedFrom",
    "RunRecord",
    "StoreEntry",
    "TokenizerEntry",
    "TrainingState",
    "begun_now",
    "earlier_format",
    "read_record",
    "read_run",
    "run_to_json",
    "write_run",
]

VERSION = 2
"""Version of the folder's format, in run.json and state.json. Version 1 had one section for the
whole recipe, and fused tensors for queries, keys and values and for the halves of a gate."""
LATER = {"parallel"}
"""Sections of the configuration that a run.json of this version may lack: they came after it."""
RUN = Description("format", "blankfill run", VERSION, {}, oldest=VERSION)
"""What run.json says of itself; the rest is `RunRecord`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerEntry:
    """The tokenizer in the run's folder."""

    fingerprint: str
    """Its fingerprint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreEntry:
    """A token store that a run reads."""

    path: str
    """Its folder, when the run began."""
    fingerprint: str
    """Of its content."""
    documents: int
    """How many it holds."""
    tokens: int
    """How many it holds."""
    share: float | None = None
    """Its share of the rows; None where all documents are read in one order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InitEntry:
    """Another run whose weights this one began from."""

    path: str
    """Its folder."""
    step: int
    """Optimizer steps that it had done."""
    fingerprint: str
    """SHA-256 of its files of weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedFrom:
    """Another project's checkpoint that this run was made of."""

    source: str
    """Its folder or file."""
    layout: str
    """How it was laid out."""
    preset: str
    """The published preset whose shapes it has, or ''."""
    checksum: str
    """SHA-256 over the sorted checksums of the tensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResizedFrom:
    """A run of another vocabulary that this one was made of."""

    run: str
    """Its folder."""
    step: int
    """Optimizer steps that it had done."""
    tokenizer: str
    """Fingerprint of its tokenizer."""
    num_kept: int
    """Pieces that both tokenizers know."""
    num_from_file: int
    """New pieces whose rows were read from a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedFrom:
    """A run of whole weights that this one was made of."""

    run: str
    """Its folder."""
    step: int
    """Optimizer steps that it had done."""
    weights: Literal["last", "ema"]
    """Which of its weights: the last ones, or their moving average."""
    bits: Literal[8, 4]
    """Bits of a weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureEntry:
    """The shares of the stores from a row on."""

    row: int
    """First row of the stream that they hold for."""
    shares: tuple[float, ...]
    """Of each store, summing to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeEntry:
    """What a resumed run changed."""

    step: int
    """From which step on."""
    values: dict[str, object]
    """The new value of each thing that changed, by its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """All that run.json says."""

    config: RunConfig
    """The run's configuration."""
    preset: str | None = None
    """The preset that it began from; None where it was not begun from one by name."""
    tokenizer: TokenizerEntry | None = None
    """Its tokenizer; None where it was imported without one."""
    data: tuple[StoreEntry, ...]
    """What it trains on."""
    validation: tuple[StoreEntry, ...]
    """What it is validated on."""
    validation_every: int | None = None
    """Steps between two validations; 0 where there are none between the first and the last, None
    where no data is held out."""
    started: str
    """When it was begun, in UTC."""
    software: Software
    """What it was made with."""
    hardware: Hardware
    """Where it was made."""
    attention: AttentionKind | None = None
    """How attention is computed; None where nothing was trained."""
    compiled: bool | None = None
    """Whether the blocks are compiled; None where nothing was trained."""
    precision: str | None = None
    """Type of the matrix products; None where nothing was trained."""
    threads: int | None = None
    """CPU threads that it computes with; None where nothing was trained."""
    process: dict[str, str] | None = None
    """What malloc, OpenMP and blankfill itself were told by the environment; None where nothing was
    trained."""
    mixtures: tuple[MixtureEntry, ...] = ()
    """The shares of the stores; none where all documents are read in one order."""
    init: InitEntry | None = None
    """Weights of another run that it began from."""
    imported: ImportedFrom | None = None
    """What it was imported from."""
    resized: ResizedFrom | None = None
    """What it was resized from."""
    quantized: QuantizedFrom | None = None
    """What it was quantised from."""
    changes: tuple[ChangeEntry, ...] = ()
    """What was changed on the way, in the order of the steps."""

    @property
    def tokenizer_fingerprint(self) -> str | None:
        """Fingerprint of its tokenizer, where it has one."""
        return None if self.tokenizer is None else self.tokenizer.fingerprint

    def require_whole(self, run: Path, doing: str) -> None:
        """Refuse what takes more of each weight than is left of it.

        Args:
            run: the run's folder.
            doing: what a quantised model is not made for, such as "is not trained".

        Raises:
            CheckpointError: the weights are quantised.
        """
        if self.quantized is not None:
            raise CheckpointError(
                f"{run} is quantised to {self.quantized.bits} bits and {doing}; take the run that "
                f"it was made of: {self.quantized.run}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSums:
    """Losses since the last line of metrics."""

    sources: int
    """Number of stores."""
    groups: tuple[tuple[int, int, int, float, int], ...]
    """Kind, language, store, nats and number of targets of each group that has targets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardState:
    """What the guard knows of the steps before."""

    losses: tuple[float, ...]
    """Losses of the steps in its window, in nats."""
    log_norms: tuple[float, ...]
    """Logarithms of their gradient norms."""
    skips_in_a_row: int
    """Steps before this one that were left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestValidation:
    """The lowest loss on held-out data that a run has had since its first step."""

    step: int
    """Optimizer steps done when it was measured."""
    loss_nats: float
    """The loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """What training needs to go on, beside tensors."""

    row: int
    """Row of the stream at which it stands."""
    anchors: tuple[tuple[int, int], ...]
    """For each stream of rows the window of its plan and that window's first row."""
    losses: LossSums
    """Losses since the last line of metrics."""
    guard: GuardState
    """The guard's window."""
    loss_scale: tuple[float, ...] | None = None
    """State of the loss scale, in float16."""
    validation_loss_nats: float | None = None
    """Loss on held-out data at this step, where it was measured."""
    best: BestValidation | None = None
    """The lowest such loss up to this step; None where there was no validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointState:
    """All that a checkpoint's state.json says."""

    step: int
    """Optimizer steps done."""
    files: dict[str, SavedFile]
    """Size and SHA-256 of the checkpoint's other files, by name."""
    training: TrainingState | None = None
    """What training goes on from; None where nothing was trained."""


def begun_now() -> str:
    """Give the time as a run keeps it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_run(run: Path) -> RunRecord:
    """Read what a run's run.json says.

    Raises:
        CheckpointError: the folder is not a run, or its run.json is damaged or of another version.
    """
    path = run / "run.json"
    if not path.is_file():
        raise CheckpointError(f"{run} is not a run: it has no run.json; name a folder that "
                              "`blankfill pretrain` wrote")  # fmt: skip
    return read_record(path)


def read_record(path: Path) -> RunRecord:
    """Read a run.json, wherever it lies.

    Raises:
        CheckpointError: it is damaged or of another version.
    """
    cure = "restore it, or use the blankfill that wrote it"
    try:
        value = read_object(path, RUN)
        return from_json(RunRecord, value, readers={RunConfig: _read_config})
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); {cure}") from error
    except EarlierFormatError as error:
        raise CheckpointError(earlier_format(path, error)) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged, or another's: {error}; {cure}") from error


def earlier_format(path: Path, error: EarlierFormatError) -> str:
    """Say what can be done about a file of a run that this blankfill does not read any more."""
    return (
        f"{path} was written by an earlier blankfill, in format {error.found} (this one has "
        f"{VERSION}); train the run again, or use the blankfill that wrote it"
    )


def write_run(run: Path, record: RunRecord) -> None:
    """Write a run's run.json, whole or not at all.

    Raises:
        OSError: the disk does not take it.
    """
    atomic.write_json(run / "run.json", run_to_json(record))


def run_to_json(record: RunRecord) -> Mapping[str, object]:
    """Give the content of run.json."""
    told = {"format": RUN.value, "version": VERSION, **to_json(record)}
    return told | {"config": to_dict(record.config)}  # where None may be a value of its own


def _read_config(value: Any, name: str) -> RunConfig:
    sections = {section.name: dict for section in fields(RunConfig) if section.name not in LATER}
    check({name: value}, {name: sections})
    try:
        return from_dict(RunConfig, value, f"{name}.")
    except (ConfigError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(str(error)) from error
