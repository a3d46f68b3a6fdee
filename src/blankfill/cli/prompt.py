"""A prompt: texts are typed, answered, and typed again, by a model that is loaded once.

`blankfill fill RUN` without a text opens it on a terminal, and so does `generate`. A line is a
text; the arrow keys bring earlier ones back; Ctrl-C drops a line or an answer, Ctrl-D ends. A text
that cannot be answered is told, and the next one asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final

from blankfill.api.answers import FillResult
from blankfill.api.load import load
from blankfill.api.parameters import PathLike
from blankfill.cli.failures import sentence_of
from blankfill.cli.signature import parameters_of
from blankfill.cli.streams import say
from blankfill.config.ranges import numbers_of
from blankfill.errors import RequestError
from blankfill.text.user_text import checked, require_blank

__all__ = ["converse"]

log = logging.getLogger(__name__)

KEPT_LINES: Final = 1000
"""Lines of the history."""
HINTS: Final = {
    "fill": "write a text with [MASK] where something is missing",
    "generate": "write the beginning of a text",
}


def converse(
    verb: str, command: Callable[..., Any], run: PathLike, options: Mapping[str, Any],
    show: Callable[[FillResult], None],
) -> None:  # fmt: skip
    """Ask for texts and answer them until there are no more.

    Args:
        verb: fill or generate.
        command: its function, whose numbers are checked before the model is loaded.
        run: the run's folder.
        options: as the function takes them.
        show: prints an answer.

    Raises:
        BlankfillError: the run or an option cannot be used.
    """
    for name, number in numbers_of(command).items():
        if name in options:
            number.check(name, options[name])
    of_load = {option.name for option in parameters_of(load)[1]}
    lm = load(run, **{name: value for name, value in options.items() if name in of_load})
    rest = {name: value for name, value in options.items() if name not in of_load}
    answer, seed = getattr(lm, verb), rest.pop("seed", 0)
    log.info("%s, step %s: %s; Enter answers, Ctrl-D ends", lm.path, f"{lm.step:,}", HINTS[verb])
    with _history():
        for text in _texts(f"{verb}> "):
            try:
                if verb == "fill":
                    require_blank(checked(text))
                item = answer(checked(text), seed=seed, **rest)
                show(FillResult(run=str(lm.path), step=lm.step, items=(item,)))
            except KeyboardInterrupt:
                say("stopped; Ctrl-D ends")
            except BrokenPipeError:
                raise
            except Exception as error:
                sentence = sentence_of(error)
                if sentence is None:
                    raise
                say(sentence)
            # The same text again is another draw, where answers are drawn.
            seed = (seed + 1) % 2**64


def _texts(prompt: str) -> Generator[str]:
    """Give the lines that are typed, until Ctrl-D; empty ones are passed over."""
    while True:
        try:
            line = input(prompt)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        except UnicodeDecodeError as error:
            say(str(RequestError(f"the line is not UTF-8 at byte {error.start}; write it again")))
            continue
        if line.strip():
            yield line


@contextlib.contextmanager
def _history() -> Generator[None]:
    """Let lines be edited, and earlier ones be brought back, also those of the last time."""
    try:
        import readline  # what makes `input` do so
    except ImportError:
        yield
        return
    try:
        file = _state_folder() / "history"
    except RuntimeError:  # no home folder
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(KEPT_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)


def _state_folder() -> Path:
    """Where what a user did is kept: `$XDG_STATE_HOME/blankfill`, or under `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "blankfill"
