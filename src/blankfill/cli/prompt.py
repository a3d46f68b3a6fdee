"""A prompt: texts are typed, answered, and typed again, by a model that is loaded once.

`blankfill fill RUN` without a text opens it on a terminal, and so does `generate`; `--interactive`
opens it anywhere, behind the texts that are given. A line is a text; the arrow keys bring earlier
ones back; Ctrl-C drops a line or an answer, Ctrl-D ends. A text that cannot be answered is told,
and the next one asked for. What `generate` writes appears as it is written, and an empty line goes
on where it stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blankfill.api.answers import FillResult
from blankfill.api.load import load
from blankfill.api.parameters import PathLike
from blankfill.cli.console import Answer
from blankfill.cli.failures import sentence_of
from blankfill.cli.in_place import PiecePrinter
from blankfill.cli.signature import parameters_of
from blankfill.cli.streams import say, writing_stdout
from blankfill.config.ranges import numbers_of
from blankfill.errors import ConfigError, RequestError
from blankfill.text.user_text import checked, is_open_ended, require_blank

if TYPE_CHECKING:
    from blankfill.generate import TextStream

__all__ = ["converse"]

log = logging.getLogger(__name__)

KEPT_LINES: Final = 1000
"""Lines of the history."""
HINTS: Final = {
    "fill": "write a text with [MASK] where something is missing",
    "generate": "write the beginning of a text, or an empty line to go on with the last one",
}


def converse(
    verb: str, command: Callable[..., Any], run: PathLike, options: Mapping[str, Any],
    show: Callable[[FillResult], None], *, first: Sequence[Sequence[str]] = (),
    writes: bool = False,
) -> None:  # fmt: skip
    """Ask for texts and answer them until there are no more.

    Args:
        verb: fill or generate.
        command: its function, whose numbers are checked before the model is loaded.
        run: the run's folder.
        options: as the function takes them.
        show: prints an answer.
        first: texts that are answered before any is asked for.
        writes: whether answers are printed as they are written.

    Raises:
        BlankfillError: the run or an option cannot be used.
    """
    for name, number in numbers_of(command).items():
        if name in options:
            number.check(name, options[name])
    for name in ("files", "out"):
        if options.get(name) is not None:
            raise ConfigError(f"--{name} and --interactive ask for different things; give one of "
                              "them")  # fmt: skip
    of_load = {option.name for option in parameters_of(load)[1]}
    lm = load(run, **{name: value for name, value in options.items() if name in of_load})
    rest = {name: value for name, value in options.items() if name not in of_load}
    seed, last = rest.pop("seed", 0), ""
    log.info("%s, step %s: %s; Enter answers, Ctrl-D ends", lm.path, f"{lm.step:,}", HINTS[verb])
    given = [text for texts in first for text in texts]
    with _history():
        for text in itertools.chain(given, _texts(f"{verb}> ")):
            if not text.strip() and (verb == "fill" or not last):
                continue
            try:
                asked = text if text.strip() else last
                if verb == "fill":
                    require_blank(checked(asked))
                if writes and is_open_ended(asked):
                    last = _write(lm.stream(asked, seed=seed, **rest))
                else:
                    item = getattr(lm, verb)(checked(asked), seed=seed, **rest)
                    last = item.text
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


def _write(stream: TextStream) -> str:
    """Print a continuation as it is written; give the whole text."""
    with writing_stdout():
        printer = PiecePrinter(Answer())
        printer(stream.beginning)
        try:
            for piece in stream:
                printer(piece)
        finally:
            printer.end()
    return stream.result.text


def _texts(prompt: str) -> Generator[str]:
    """Give the lines that are typed, until Ctrl-D."""
    prompt = prompt if sys.stdin.isatty() else ""
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
