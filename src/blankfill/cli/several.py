"""One sentence from one of several processes.

Where all refuse a command alike, the leading process says why. Once processes have met, they have
settled which of them speaks (`parallel.meeting`). Before that, they settle it where they would have
met (`parallel.guests`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from blankfill.errors import ConfigError
from blankfill.processes import Place, deaf, speaker_of, this_place

__all__ = ["end", "leads", "let_leader_end", "require_one_process", "say_in_turn"]

FAILED = 2
"""Exit code of what the user can put right, and of processes that are lost."""
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


def say_in_turn(error: Exception, sentence: str, say: Callable[[str], object]) -> None:
    """Say what went wrong, where this process is the one of several that says it.

    Args:
        error: what went wrong.
        sentence: the same, as one process alone says it.
        say: says it.
    """
    place, speaker = _place(), speaker_of(error)
    if place.count == 1 or speaker == place.rank:
        with deaf():  # no launcher's wish to end comes between
            say(sentence)
    elif speaker is not None:
        with deaf():  # a launcher ends all as soon as one has ended; this one ends by itself
            time.sleep(SPEAKING_SECONDS)
    elif os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT"):
        from blankfill.parallel.guests import refuse_alone

        refuse_alone(sentence, say)
    elif place.rank == 0:
        say(sentence)
    else:  # nothing says where the others are
        time.sleep(PATIENCE_SECONDS)
        say(f"process {place.rank} of {place.count} on {socket.gethostname()}: {sentence}")


def end(code: int) -> NoReturn:
    """End this process with an exit code; one of several that have failed ends at once.

    Threads of torch that still wait for a process that is gone would abort the interpreter on its
    usual way out, with a word and an exit code of their own.
    """
    if code == FAILED and _place().count > 1:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _place() -> Place:
    try:
        return this_place()
    except ConfigError:
        return Place()
