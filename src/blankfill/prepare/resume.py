"""Whether a run goes on as the run that was started, and what may change on the way.

Each field of the configuration says of itself whether it may (`blankfill.config.on_resume`). Of the
rest, the shares of the stores may change by name, from the next row on; the held-out data without
a word; the data, the tokenizer and the weights that the run began from never, for with others it
is another run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blankfill.config.closest import did_you_mean
from blankfill.config.common import SHORT_NAMES
from blankfill.config.on_resume import OnResume, on_resume
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError
from blankfill.runs.record import InitEntry, RunRecord, StoreEntry

__all__ = ["HELD_OUT", "Change", "changes_on_resume", "start_on_resume"]

log = logging.getLogger(__name__)

HELD_OUT = "validation"
"""Name of the change of the held-out data: it may change, and is said and kept, for losses before
and after it are of different text."""
SHARES = "shares"
"""Name of the change of stores' shares."""
OPEN_ENDED = ("constant", "wsd")
"""Schedules under which a run may grow longer without having been another run so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One difference between a run and what it is resumed with."""

    name: str
    """Dotted field, or `shares`, `data`, `tokenizer`, `init`."""
    text: str
    """It in words: what it was and what it is."""
    before: object
    """Its value in run.json."""
    after: object
    """Its value now."""


def changes_on_resume(old: RunRecord, new: RunRecord, allow: Sequence[str] = ()) -> list[Change]:
    """Compare two records of a run and refuse what may not change.

    Args:
        old: as the run was started or last resumed.
        new: as it is resumed now.
        allow: dotted names of fields that may change.

    Returns:
        The changes that were made.

    Raises:
        ConfigError: something differs and may not, or a name in `allow` is not one that may.
    """
    may = on_resume(RunConfig)
    changeable = {name for name, how in may.items() if how is OnResume.BY_NAME} | {SHARES}
    unsaid = {name for name, how in may.items() if how is OnResume.FREE}
    allow = [SHORT_NAMES.get(name, name) for name in allow]
    for name in allow:
        if name not in changeable | unsaid:
            raise ConfigError(
                f"--allow-change {name}: that is not a field that may change; "
                f"{did_you_mean(name, changeable)}these may: {', '.join(sorted(changeable))}"
            )
    found = [*_config_changes(old, new), *_other_changes(old, new)]
    free = unsaid | {HELD_OUT} | set(allow)
    if new.config.schedule.kind in OPEN_ENDED:
        free |= {"train.steps"}
    refused = [change for change in found if change.name not in free]
    if refused:
        said = "; ".join(change.text for change in refused)
        named = [change.name for change in refused if change.name in changeable]
        ways = [f"say --allow-change {' '.join(named)}"] if named else []
        if len(named) < len(refused):
            fixed = ", ".join(c.name for c in refused if c.name not in changeable)
            ways.append(f"{fixed} cannot change in a run: resume with what it was, or start anew "
                        "with another --out")  # fmt: skip
        raise ConfigError(f"this is not the run that was started: {said}; {'; '.join(ways)}")
    return found


def start_on_resume(old: RunRecord, init: Path | None) -> InitEntry | None:
    """Settle what a run that has a checkpoint says of the weights that it began from.

    They are not needed any more, so they may have moved, changed or gone.

    Args:
        old: as the run was started or last resumed.
        init: what `--init` names now.

    Returns:
        The entry of its record, as it was.

    Raises:
        ConfigError: the run did not begin from other weights.
    """
    if old.init is None and init is not None:
        raise ConfigError(
            f"--init {init}: this run did not begin from another run and goes on from its own "
            "checkpoint; leave out --init, or start anew with another --out"
        )
    if init is not None:
        log.info("it goes on from its own checkpoint; %s is not read again", init)
    return old.init


def _config_changes(old: RunRecord, new: RunRecord) -> list[Change]:
    before, after = old.config.values(), new.config.values()
    return [
        Change(
            name=name, before=before[name], after=value,
            text=f"{name} was {before[name]!r}, is {value!r}",
        )
        for name, value in after.items()
        if before[name] != value
    ]  # fmt: skip


def _other_changes(old: RunRecord, new: RunRecord) -> list[Change]:
    found: list[Change] = []
    prints = [[entry.fingerprint for entry in record.data] for record in (old, new)]
    shares = [[entry.share for entry in record.data] for record in (old, new)]
    # Stores with shares and stores without are read in different orders from the first row on.
    same = prints[0] == prints[1] and (None in shares[0]) == (None in shares[1])
    if not same or shares[0] != shares[1]:
        before, after = shares if same else prints
        texts = [_stores(record.data) for record in (old, new)]
        found.append(Change(name=SHARES if same else "data", before=before, after=after,
                            text=f"the training data was {texts[0]}, is {texts[1]}"))  # fmt: skip
    before, after = ([entry.fingerprint for entry in of.validation] for of in (old, new))
    if before and after and before != after:
        texts = [_stores(record.validation) for record in (old, new)]
        found.append(Change(name=HELD_OUT, before=before, after=after,
                            text=f"the held-out data was {texts[0]}, is {texts[1]}"))  # fmt: skip
    if old.tokenizer != new.tokenizer:
        texts = [(record.tokenizer_fingerprint or "none")[:12] for record in (old, new)]
        found.append(Change(name="tokenizer", before=old.tokenizer, after=new.tokenizer,
                            text=f"the tokenizer was {texts[0]}, is {texts[1]}"))  # fmt: skip
    if _identity(old.init) != _identity(new.init):
        texts = [_weights(record.init) for record in (old, new)]
        found.append(Change(name="init", before=old.init, after=new.init,
                            text=f"the init was {texts[0]}, is {texts[1]}"))  # fmt: skip
    return found


def _identity(entry: InitEntry | None) -> tuple[int, str] | None:
    """Tell which weights they are, wherever they lie."""
    return None if entry is None else (entry.step, entry.fingerprint)


def _stores(entries: Sequence[StoreEntry]) -> str:
    return ", ".join(map(_store, entries))


def _store(entry: StoreEntry) -> str:
    share = f"share {entry.share:.4g}, " if entry.share else ""
    return (
        f"{entry.path} ({share}{entry.documents:,} documents, {entry.tokens:,} tokens, "
        f"{entry.fingerprint[:12]})"
    )


def _weights(entry: InitEntry | None) -> str:
    return "none" if entry is None else f"{entry.path} {entry.fingerprint[:12]}"
