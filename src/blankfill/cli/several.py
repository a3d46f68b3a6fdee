"""One sentence from one of several processes.

Where all refuse a command alike, the leading process says why and ends, and the launcher ends the
others while they wait. Once processes have met, they have settled which of them speaks
(`parallel.meeting`). Before that, what one process alone has met it says itself, after a moment.
"""

from __future__ import annotations

import time

from blankfill.errors import ConfigError
from blankfill.processes import Place, speaker_of, this_place

__all__ = ["leads", "let_leader_end", "require_one_process", "wait_for_turn"]

PATIENCE_SECONDS = 5.0
"""For which a process lets the leading one speak; torchrun looks every tenth of a second."""


SPEAKING_SECONDS = 2.0
"""For which a process lets the one speak that is known to."""


def leads() -> bool:
    """Tell whether this process prints results and logs."""
    return _place().rank == 0


def let_leader_end(code: int) -> None:
    """Let the leading process end first where a run ends before its last step: the launcher ends
    the others as soon as one has."""
    if code:
        time.sleep(PATIENCE_SECONDS)


def require_one_process(verb: str) -> None:
    """Refuse several processes for a verb that is one process's.

    Raises:
        ConfigError: there are several.
    """
    count = this_place().count
    if count > 1:
        raise ConfigError(
            f"`blankfill {verb}` works in one process, and {count} were started; run it without "
            "torchrun"
        )


def wait_for_turn(error: Exception, sentence: str) -> str | None:
    """Wait until this process may say what went wrong.

    Args:
        error: what went wrong.
        sentence: the same, as one process alone says it.

    Returns:
        The sentence that it is to say; None where another process says it.
    """
    place, speaker = _place(), speaker_of(error)
    if place.count == 1 or speaker == place.rank:
        return sentence
    if speaker is not None:
        time.sleep(SPEAKING_SECONDS)  # the launcher ends all as soon as one has ended
        return None
    time.sleep(PATIENCE_SECONDS * bool(place.rank))
    return f"process {place.rank} of {place.count}: {sentence}" if place.rank else sentence


def _place() -> Place:
    try:
        return this_place()
    except ConfigError:
        return Place()
