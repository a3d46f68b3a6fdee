"""`--install-completion` and `--show-completion`: TAB in bash, zsh and fish.

A script is written where the shell looks for it and asks this command what to offer. Nothing else
is touched but, where the shell does not look anywhere of the user's by itself, one line at the end
of its start file. What was done is told, and how to undo it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from blankfill.atomic import write_text
from blankfill.config.closest import did_you_mean
from blankfill.errors import ConfigError, OutputError

__all__ = ["install_completion", "show_completion"]

MARK: Final = "# completion of blankfill"
"""Stands in everything that is written, so that it is known again."""

BASH: Final = f"""\
{MARK}, for bash
_blankfill() {{
    local found IFS=$'\\n'
    found=$("${{COMP_WORDS[0]}}" --complete "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null)
    COMPREPLY=()
    if [[ $found == //files ]]; then
        compopt -o default
    else
        COMPREPLY=($found)
        # Behind the `=` of an option bash completes the value alone.
        if [[ ${{COMP_WORDS[COMP_CWORD]}} == = || ${{COMP_WORDS[COMP_CWORD-1]}} == = ]]; then
            COMPREPLY=("${{COMPREPLY[@]#--*=}}")
        fi
    fi
}}
complete -F _blankfill blankfill
"""
ZSH: Final = f"""\
#compdef blankfill
{MARK}, for zsh
_blankfill() {{
    local -a found
    found=("${{(@f)$("${{words[1]}}" --complete "${{(@)words[2,CURRENT]}}" 2>/dev/null)}}")
    if [[ $found[1] == //files ]]; then
        compset -P '--*='  # behind the `=` of an option
        _files
    else
        compadd -a found
    fi
}}
if [[ $funcstack[1] == _blankfill ]]; then _blankfill "$@"; else compdef _blankfill blankfill; fi
"""
FISH: Final = f"""\
{MARK}, for fish
function __blankfill_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($words[1] --complete $words[2..] "$current" 2>/dev/null)
    if test "$found[1]" = //files
        set -l option (string match -r -- '^--[^=]*=' "$current")
        set -l path (string replace -- "$option" '' "$current")
        string replace -r -- '^' "$option" (__fish_complete_path "$path")
    else
        printf '%s\\n' $found
    end
end
complete -c blankfill -f -a '(__blankfill_complete)'
"""
SCRIPTS: Final = {"bash": BASH, "zsh": ZSH, "fish": FISH}
_BASH_COMPLETION: Final = (
    "/usr/share/bash-completion/bash_completion",
    "/usr/local/share/bash-completion/bash_completion",
    "/opt/homebrew/share/bash-completion/bash_completion",
    "/etc/bash_completion",
)
"""The package by which bash finds completions that a user installs."""


class _Place(NamedTuple):
    """Where a shell looks."""

    script: Path
    """The script's file."""
    start: Path | None
    """The shell's start file, where it needs a line to find the script."""
    line: str
    """That line."""


def show_completion(words: Sequence[str]) -> list[str]:
    """Give the script of the shell that is named, or that this is run from.

    Raises:
        ConfigError: there is no such shell, or none could be told.
    """
    return SCRIPTS[_shell(words, "--show-completion")].splitlines()


def install_completion(words: Sequence[str]) -> list[str]:
    """Write a shell's script where it looks for it.

    Args:
        words: the shell's name; without one it is the shell that this is run from, on a terminal.

    Returns:
        What was done, and how to undo it.

    Raises:
        ConfigError: no shell is named and this is no terminal, or there is no such shell.
        OutputError: a file cannot be written, or another's is in its place.
    """
    if not words and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "nothing was installed, for nobody is at a terminal here; name the shell to install "
            "all the same: --install-completion bash"
        )
    place = _place(_shell(words, "--install-completion"))
    try:
        return _write(place, SCRIPTS[_shell(words, "--install-completion")])
    except (OSError, UnicodeDecodeError) as error:
        named = getattr(error, "filename", None) or place.start or place.script
        raise OutputError(
            f"{named}: it cannot be written ({getattr(error, 'strerror', None) or error}); "
            "--show-completion prints the script, to be put where you like"
        ) from error


def _write(place: _Place, script: str) -> list[str]:
    if place.script.exists() and MARK not in place.script.read_text(encoding="utf-8"):
        raise OutputError(f"{place.script} is not of blankfill; move it away first")
    place.script.parent.mkdir(parents=True, exist_ok=True)
    write_text(place.script, script)
    told = [f"wrote {place.script}"]
    undo = [f"rm {shlex.quote(str(place.script))}"]
    if place.start is not None:
        before = place.start.read_text(encoding="utf-8") if place.start.exists() else ""
        if place.line not in before.splitlines():
            with place.start.open("a", encoding="utf-8") as file:
                file.write(
                    ("" if before.endswith("\n") or not before else "\n") + place.line + "\n"
                )
            told.append(f"added a line to the end of {place.start}: {place.line}")
        undo.append(f"sed -i '/{MARK}$/d' {shlex.quote(str(place.start))}")
    return [*told, "it works in shells that are opened from now on", f"to undo: {'; '.join(undo)}"]


def _place(shell: str) -> _Place:
    """Tell where a shell looks.

    Raises:
        ConfigError: there is no home folder.
    """
    data = _folder("XDG_DATA_HOME", ".local/share")
    if shell == "fish":
        script = _folder("XDG_CONFIG_HOME", ".config") / "fish/completions/blankfill.fish"
        return _Place(script, None, "")
    if shell == "zsh":
        script = data / "zsh/site-functions/_blankfill"
        line = f"fpath=({shlex.quote(str(script.parent))} $fpath); autoload -Uz compinit; compinit"
        return _Place(script, _folder("ZDOTDIR", "") / ".zshrc", f"{line}  {MARK}")
    folders = os.environ.get("BASH_COMPLETION_USER_DIR", "").split(":")
    base = Path(folders[0]) if folders[0] else data / "bash-completion"
    script = base / "completions/blankfill"
    if any(Path(path).exists() for path in _BASH_COMPLETION):
        return _Place(script, None, "")
    return _Place(script, _folder("", "") / ".bashrc", f". {shlex.quote(str(script))}  {MARK}")


def _folder(variable: str, under_home: str) -> Path:
    if found := os.environ.get(variable):
        return Path(found)
    try:
        return Path.home() / under_home
    except RuntimeError as error:
        raise ConfigError("there is no home folder to install into; set HOME") from error


def _shell(words: Sequence[str], option: str) -> str:
    """Take the shell that is named, or the one that this is run from."""
    if len(words) > 1:
        raise ConfigError(f"{option} takes one shell, and {words[1]!r} is another word")
    if not words:
        name = _parent() or Path(os.environ.get("SHELL", "")).name
        if name not in SCRIPTS:
            raise ConfigError(f"which shell this is could not be told; name it: {option} bash")
        return name
    if words[0] not in SCRIPTS:
        raise ConfigError(
            f"{option} {words[0]!r}: {did_you_mean(words[0], SCRIPTS)}there are: "
            f"{', '.join(SCRIPTS)}"
        )
    return words[0]


def _parent() -> str:
    """Name the shell that started this process; "" where it was none."""
    try:
        name = Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return name if name in SCRIPTS else ""
