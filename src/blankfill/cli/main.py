"""The command line: the functions of `blankfill.api`, spoken aloud.

One verb is one function with the same parameter names; tyro makes its options from the signature
and its help from the docstring. A verb's module is loaded only when it is called, so `--help` is
instant and never loads torch. Results go to stdout (`--json`: as one JSON object), logs to stderr.
Exit codes: 0 done, 2 the user's to put right (one sentence says how), 1 a bug of ours, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from blankfill.errors import BlankfillError

__all__ = ["main"]


class Verb(NamedTuple):
    """Where a verb lives."""

    function: str
    """`module:name` of the function under `blankfill.api`."""
    printer: str
    """`module:name` of its printer under `blankfill.cli`."""
    summary: str
    """One line for `blankfill --help`."""


VERBS: dict[str, Verb] = {
    "demo": Verb("demo:demo", "demo:print_demo", "train a small bilingual GLM and watch it fill"),
    "tokenizer train": Verb(
        "tokenizer:tokenizer_train", "tokenizer:print_train", "train a tokenizer on your text"
    ),
    "tokenizer encode": Verb(
        "tokenizer:tokenizer_encode", "tokenizer:print_encode", "text to token ids"
    ),
    "tokenizer decode": Verb(
        "tokenizer:tokenizer_decode", "tokenizer:print_decode", "token ids to text"
    ),
    "tokenizer info": Verb(
        "tokenizer:tokenizer_info", "tokenizer:print_info", "pieces, and characters per token"
    ),
    "data build": Verb("data:data_build", "data:print_build", "turn text into a token store"),
    "data info": Verb("data:data_info", "data:print_info", "what a token store holds"),
    "data show": Verb("data:data_show", "data:print_show", "documents of a store back as text"),
    "explain": Verb(
        "explain:explain", "explain:print_explain", "show one training example, part by part"
    ),
    "pretrain": Verb("pretrain:pretrain", "pretrain:print_pretrain", "pretrain a model"),
    "evaluate": Verb(
        "evaluate:evaluate", "evaluate:print_evaluate", "loss and exact fills on held-out text"
    ),
    "report": Verb(
        "report:report", "report:print_report", "curves and fills of runs as one HTML file"
    ),
    "fill": Verb("infill:fill", "infill:print_fill", "fill the blanks of a text"),
    "generate": Verb("infill:generate", "infill:print_generate", "continue a text"),
    "import": Verb(
        "interop:import_", "interop:print_import", "turn a published GLM into a model of ours"
    ),
    "export": Verb(
        "export:export", "export:print_export", "take a run to transformers, GLM or SAT"
    ),
    "resize": Verb("export:resize", "export:print_resize", "give a run another vocabulary"),
    "info": Verb("inspect:info", "inspect:print_info", "what a folder or preset is"),
}

EXAMPLE = """\
  blankfill tokenizer train corpus.jsonl.gz --vocab-size 16384 --out tok
  blankfill data build corpus.jsonl.gz --tokenizer tok --out store
  blankfill pretrain tiny --data store --out runs/mine
  blankfill fill runs/mine "The [MASK] fox jumps over the [MASK] dog."
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    _set_up_logging(quiet="--quiet" in args)
    args = [arg for arg in args if arg != "--quiet"]
    try:
        return _dispatch(args)
    except BlankfillError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; that is no error of anybody's.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        known = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM, errno.ENOENT,
                 errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)  # fmt: skip
        if error.errno not in known:
            raise
        name = f"{error.filename}: " if error.filename else ""
        return _complain(f"{name}{error.strerror}")


def entry_point() -> None:
    """Start from the shell."""
    # Unwinding removes what is half-written; a run that trains has a handler of its own.
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())


def _terminate(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if args[0] == "--version":
        from blankfill import __version__

        print(f"blankfill {__version__}")
        return 0
    name = next((n for n in (" ".join(args[:2]), args[0]) if n in VERBS), None)
    if name is None:
        group = [n for n in VERBS if n.startswith(args[0] + " ")]
        if group and (len(args) == 1 or args[1] in ("-h", "--help")):
            print("\n".join(_lines(group)))
            return 0
        known = ", ".join(group or VERBS)
        return _complain(f"there is no command {' '.join(args[:2])!r}; there are: {known}")
    return _run(name, args[len(name.split()) :])


def _run(name: str, args: list[str]) -> int:
    verb = VERBS[name]
    as_json = "--json" in args
    args = [arg for arg in args if arg != "--json"]
    command = _load("blankfill.api", verb.function)
    if name == "pretrain":
        command = _with_preset_defaults(args)
    result = _call(name, command, args)
    if as_json:
        print(json.dumps(_plain(result), ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        _load("blankfill.cli", verb.printer)(result, console)
    return int(getattr(result, "exit_code", 0))


def _call(name: str, command: Callable[..., Any], args: list[str]) -> Any:
    """Parse the arguments for one function and call it."""
    import tyro

    from blankfill.cli.ranges import registry, with_ranges

    # What a verb returns is no business of the parser's, and its type may need a heavy import.
    command.__annotations__.pop("return", None)
    return tyro.cli(
        with_ranges(command), prog=f"blankfill {name}", args=args,
        description=_description(command), registry=registry(),
    )  # fmt: skip


def _description(command: Callable[..., Any]) -> str:
    """Put the docstring's example before its summary."""
    import inspect

    doc = inspect.getdoc(command) or ""
    before, _, rest = doc.partition("\nExample:\n")
    lines = rest.split("\n\n", 1)[0].splitlines()
    example = "\n".join("  " + line.strip() for line in lines if line.strip())
    summary = before.split("\nArgs:")[0].strip()
    tail = "--json prints the result as one JSON object; --quiet silences the log."
    return f"Example:\n{example}\n\n{summary}\n\n{tail}" if example else f"{summary}\n\n{tail}"


def _with_preset_defaults(args: list[str]) -> Callable[..., Any]:
    """Give `pretrain` the options of the named preset, with its values as defaults."""
    from blankfill.api.pretrain import command_for
    from blankfill.config.presets import is_preset

    named = next((arg for arg in args if not arg.startswith("-")), None)
    return command_for(named if named and is_preset(named) else "tiny")


def _load(package: str, path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), name)


def _plain(value: Any) -> Any:
    """Turn a result into what JSON can hold; numbers that are not finite become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _overview() -> str:
    return "\n".join(
        [
            "Example:",
            EXAMPLE.rstrip(),
            "",
            "blankfill: pretrain GLM models by autoregressive blank infilling (zh, en)",
            "",
            "Commands:",
            *_lines(list(VERBS)),
            "",
            "`blankfill COMMAND --help` opens with an example. --json prints results as JSON.",
        ]
    )


def _lines(names: list[str]) -> list[str]:
    return [f"  {'blankfill ' + name:28} {VERBS[name].summary}" for name in names]


def _set_up_logging(*, quiet: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(message)s",
        stream=sys.stderr,
        force=True,
    )


def _complain(sentence: str) -> int:
    print(f"blankfill: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    entry_point()
