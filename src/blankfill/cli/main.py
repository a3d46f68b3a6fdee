"""The command line: the functions of `blankfill.api`, spoken aloud.

One verb is one function with the same parameter names: its options are made from the signature
(`signature`, `reading`), its help from the docstring (`help`). A verb's module is loaded only when
it is called, so `--help` is instant and never loads torch. Results go to stdout (`--json`: as one
JSON object), logs to stderr.
Exit codes: 0 done, 2 the user's to put right (one sentence says how), 1 a bug of ours, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import logging
import signal
import sys
from collections.abc import Collection, Sequence
from typing import Any

from blankfill.cli.failures import sentence_of
from blankfill.cli.preset import with_changes
from blankfill.cli.reading import INTERACTIVE, UNIVERSAL, asks_for_help, read
from blankfill.cli.several import end, leads, let_leader_end, require_one_process, say_in_turn
from blankfill.cli.streams import leave_stdout, say, settle_streams, writing_stdout
from blankfill.cli.verbs import VERBS, Verb, load
from blankfill.config.closest import did_you_mean
from blankfill.errors import ConfigError
from blankfill.results import plain
from blankfill.runtime import tune

__all__ = ["VERBS", "main"]

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    settle_streams()
    try:
        return _answer(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        if leads():
            say("stopped")
        return 130


def _answer(words: list[str]) -> int:
    """Run one command; say what the user can put right."""
    try:
        # Of several processes one prints: pages of help, too.
        with contextlib.nullcontext() if leads() else contextlib.redirect_stdout(io.StringIO()):
            code = _dispatch(words)
        with writing_stdout():
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; that is no error of anybody's.
        leave_stdout()
        return 0
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        say_in_turn(error, sentence, _complain)
        return 2
    return code


def entry_point() -> None:
    """Start from the shell."""
    # Unwinding removes what is half-written; a run that trains has a handler of its own.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # `nohup` ignores SIGHUP, so that work outlives its terminal.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    end(main())


def _terminate(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would end the removing
    raise SystemExit(128 + number)


def _dispatch(words: list[str]) -> int:
    # The flags of every verb may also stand before it.
    flags = list(itertools.takewhile(lambda word: word in UNIVERSAL, words))
    words = words[len(flags) :]
    if not words or words[0] in ("-h", "--help", "--help-all", "help"):
        from blankfill.cli.help import print_overview

        print_overview()
        return 0
    if words[0] in ("-V", "--version"):
        from blankfill import __version__

        print(f"blankfill {__version__}")
        return 0
    if (lines := _completion(words)) is not None:
        print("\n".join(lines))
        return 0
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in VERBS), None)
    if name is None:
        return _show_group(words)
    return _run(name, flags + words[len(name.split()) :])


def _completion(words: list[str]) -> list[str] | None:
    """Answer what a shell asks at TAB, or install what makes it ask; None of any other command."""
    option, equals, shell = words[0].partition("=")
    given = [shell] * bool(equals) + words[1:]
    if option == "--complete":
        from blankfill.cli.complete import candidates

        return candidates(given)
    if option not in ("--install-completion", "--show-completion"):
        return None
    from blankfill.cli.install import install_completion, show_completion

    return (install_completion if option == "--install-completion" else show_completion)(given)


def _show_group(words: list[str]) -> int:
    """Show the verbs of a group, or say that there is no such verb, the closest one first."""
    group = [name for name in VERBS if name.startswith(words[0] + " ")]
    if group and (len(words) == 1 or words[1] in ("-h", "--help", "--help-all")):
        from blankfill.cli.help import print_group

        print_group(group)
        return 0
    given = " ".join(words[:2])
    meant = did_you_mean(given, group or VERBS) or did_you_mean(words[0], group or VERBS)
    raise ConfigError(
        f"there is no command {given!r}; {meant}there are: {', '.join(group or VERBS)}"
    )


def _run(name: str, words: list[str]) -> int:
    verb = VERBS[name]
    command = load("blankfill.api", verb.function)
    if asked := asks_for_help(words):
        from blankfill.cli.help import print_help

        print_help(name, command, words, every=asked == "all")
        return 0
    asks = verb.asks and sys.stdin.isatty() and sys.stdout.isatty()
    reading = read(name, command, words, asks=asks, may_ask=verb.asks)
    interactive = INTERACTIVE in reading.flags
    _set_up_logging(reading.flags)
    if name != "pretrain":
        require_one_process(name)
    if verb.computes:
        for chosen in tune():
            log.debug("process: %s (BLANKFILL_TUNE=0 turns this off)", chosen)
    options = with_changes(reading.options)
    as_json = "--json" in reading.flags
    show = functools.partial(_show, verb, as_json=as_json)
    if interactive or (asks and len(reading.arguments) == 1 and not options.get("files")):
        from blankfill.cli.prompt import converse

        run, *first = reading.arguments
        converse(name, command, run, options, show, first=first, writes=verb.writes and not as_json)
        return 0
    if verb.hands_over:
        from blankfill.cli.handing import HandedOver

        handed = HandedOver(show, as_json=as_json)
        options["each"], show = handed.each, handed.finish
        if verb.writes and not as_json:
            options["pieces"] = handed.piece
    result = command(*reading.arguments, **options)
    code = int(getattr(result, "exit_code", 0))
    if leads():
        show(result)
    else:
        let_leader_end(code)
    return code


def _show(verb: Verb, result: Any, *, as_json: bool) -> None:
    """Print a verb's result."""
    with writing_stdout():
        if as_json:
            from blankfill.cli.handing import json_of

            print(json_of(plain(result)))
        else:
            from blankfill.cli.console import Answer

            load("blankfill.cli", verb.printer)(result, Answer())


def _set_up_logging(flags: Collection[str] = ()) -> None:
    """Write what the project logs to stderr, as much of it as the flags say."""
    level = logging.WARNING if "--quiet" in flags else logging.INFO
    level = level if leads() else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", handlers=[_Stderr()], force=True)
    # Of other libraries no more is heard.
    own = logging.DEBUG if "--verbose" in flags else logging.NOTSET
    logging.getLogger("blankfill").setLevel(own)


class _Stderr(logging.Handler):
    """Writes to what stderr is at the moment: while a bar is drawn, to the lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):  # as where stderr is closed
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


def _complain(sentence: str) -> None:
    # What is half printed goes first, so that the sentence stands below it.
    with contextlib.suppress(OSError), writing_stdout():
        sys.stdout.flush()
    say(sentence)


if __name__ == "__main__":
    entry_point()
