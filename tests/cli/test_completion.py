"""TAB: what is offered, what is written where, and that it can be undone."""

import io
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blankfill.cli.complete import FILES, candidates
from blankfill.cli.install import MARK, SCRIPTS
from blankfill.cli.main import VERBS, main
from blankfill.config.presets import PRESETS


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["pretra"], ["pretrain"]),
        (["data", ""], [name.split()[1] for name in VERBS if name.startswith("data ")]),
        (["data", "b"], ["build"]),
        (["--json", "data", "b"], ["build"]),
        (["dat"], ["data"]),
        (["--vers"], ["--version"]),
        (["pretrain", "glm-10b"], ["glm-10b", "glm-10b-zh"]),
        (["pretrain", "--data", "x", "--out", "y", "tin"], ["tiny"]),
        (["pretrain", "--data", "x", "tin"], [FILES]),  # a list takes every word
        (["pretrain", "tiny", "--ste"], ["--steps"]),
        (["pretrain", "tiny", "--model.hid"], ["--model.hidden-size"]),
        (["pretrain", "tiny", "--model.no-tie"], ["--model.no-tie-head"]),
        (["pretrain", "tiny", "--data", ""], [FILES]),
        (["pretrain", "tiny", "--data", "a", ""], [FILES]),
        (["pretrain", "tiny", "--steps", ""], []),
        (["fill", "r", "--device", "c"], ["cpu", "cuda"]),
        (["fill", "r", "--device=cu"], ["--device=cuda"]),
        (["fill", "r", "--device", "=", "cu"], ["cuda"]),  # as bash cuts it
        (["fill", "r", "--device", "="], ["auto", "cpu", "cuda"]),
        (["export", "r", "--to", ""], ["hf", "glm", "sat"]),
        (["fill", ""], [FILES]),
        (["fill", "r", "--", "--dev"], [FILES]),
        (["nonsense", ""], []),
        (["tokenizer", "nonsense", ""], []),
        (["--install-completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_what_may_stand_next_is_offered(typed, offered):
    assert candidates(typed) == offered


def test_all_verbs_and_presets_are_offered():
    assert {*candidates([""])} == {name.split()[0] for name in VERBS}
    assert candidates(["pretrain", ""]) == [*PRESETS]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_is_offered(verb):
    from blankfill.cli.reading import options_of
    from blankfill.cli.signature import parameters_of
    from blankfill.cli.verbs import load

    known = options_of(parameters_of(load("blankfill.api", VERBS[verb].function))[1])
    for option in known:
        assert option in candidates([*verb.split(), option[:-1]])


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR", "BASH_COMPLETION_USER_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("blankfill.cli.install._BASH_COMPLETION", (str(tmp_path / "there"),))
    return tmp_path


WHERE = {
    "bash": (".local/share/bash-completion/completions/blankfill", ".bashrc"),
    "zsh": (".local/share/zsh/site-functions/_blankfill", ".zshrc"),
    "fish": (".config/fish/completions/blankfill.fish", None),
}


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize("before", [None, "alias x=y\n", "alias x=y"])
def test_it_is_written_where_the_shell_looks_and_can_be_undone(shell, before, home, capsys):
    script, start = WHERE[shell]
    if start and before is not None:
        (home / start).write_text(before)
    for _ in range(2):  # again changes nothing
        assert main(["--install-completion", shell]) == 0
        told = capsys.readouterr().out
        assert str(home / script) in told
        assert (home / script).read_text() == SCRIPTS[shell]
        if start:
            lines = (home / start).read_text().splitlines()
            assert lines[:-1] == (before or "").splitlines()
            assert str(home / script) in lines[-1] or str((home / script).parent) in lines[-1]
    undo = told.partition("to undo: ")[2]
    subprocess.run(["bash", "-c", undo], check=True)
    assert not (home / script).exists()
    if start:
        assert (home / start).read_text() == (f"{before}\n".replace("\n\n", "\n") if before else "")


def test_bash_that_finds_completions_needs_no_line(home, capsys):
    (home / "there").write_text("")
    assert main(["--install-completion=bash"]) == 0
    assert not (home / ".bashrc").exists()
    assert ".bashrc" not in capsys.readouterr().out


def test_without_a_terminal_nothing_is_written_unless_a_shell_is_named(home, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["--install-completion"]) == 2
    assert "nothing was installed" in capsys.readouterr().err
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--install-completion", "bahs"], "did you mean bash?"),
        (["--install-completion", "tcsh"], "there are: bash, zsh, fish"),
        (["--show-completion", "bash", "zsh"], "takes one shell"),
        (["--install-completion="], "''"),
    ],
)
def test_a_shell_that_there_is_not_is_one_sentence(words, said, home, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not list(home.iterdir())


def test_what_is_anothers_stays(home, capsys):
    script = home / WHERE["fish"][0]
    script.parent.mkdir(parents=True)
    script.write_text("mine")
    assert main(["--install-completion", "fish"]) == 2
    assert "is not of blankfill" in capsys.readouterr().err
    assert script.read_text() == "mine"


def test_a_file_in_the_way_is_one_sentence(home, capsys):
    (home / ".local").write_text("")
    assert main(["--install-completion", "bash"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert [p.name for p in home.iterdir()] == [".local"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_shown(shell, capsys):
    assert main(["--show-completion", shell]) == 0
    shown = capsys.readouterr().out
    assert shown == SCRIPTS[shell]
    assert MARK in shown


ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "TERM": "dumb"
}  # fmt: skip


def shim(folder):
    """Make a command `blankfill` that is this one."""
    command = folder / "blankfill"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m blankfill "$@"\n')
    command.chmod(0o755)
    return command


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        (["blankfill", "pretra"], "pretrain"),
        (["blankfill", "fill", "r", "--device", "=", "cu"], "cuda"),
        (["blankfill", "info", ""], ""),
    ],
)
def test_bash_asks_and_takes_the_answer(line, replies, tmp_path):
    command = shim(tmp_path)
    words = " ".join(f"'{word}'" for word in [str(command), *line[1:]])
    script = (
        f"compopt() {{ :; }}\n{SCRIPTS['bash']}\nCOMP_WORDS=({words})\n"
        f'COMP_CWORD={len(line) - 1}\n_blankfill\necho "${{COMPREPLY[*]}}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stdout.strip() == replies


TYPED = {  # what TAB makes of it
    "blankfill pretra": "blankfill pretrain",
    "blankfill data b": "blankfill data build",
    "blankfill fill r --device=cu": "blankfill fill r --device=cuda",
    "blankfill report my": "blankfill report my-runs/",
    "blankfill report r --out my": "blankfill report r --out my-runs/",
    "blankfill report r --out=my": "blankfill report r --out=my-runs/",
}


@pytest.fixture
def shell_with_completion(home):
    """Install for a shell, and give the call that runs one of its scripts in the user's home."""

    def run(shell, script):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        assert main(["--install-completion", shell]) == 0
        (home / "my-runs").mkdir()
        (home / "bin").mkdir()
        path = f"{shim(home / 'bin').parent}:{os.environ['PATH']}"
        return subprocess.run(
            [shell, "-c", script], capture_output=True, text=True, check=True, cwd=home,
            env=ENVIRONMENT | {"HOME": str(home), "PATH": path}, timeout=120,
        ).stdout  # fmt: skip

    return run


def test_fish_offers_what_may_stand_next(shell_with_completion):
    asks = "; ".join(f"complete -C '{typed}'; echo" for typed in TYPED)
    answers = shell_with_completion("fish", asks).split("\n\n")
    offered = [answer.strip().split("\t")[0] for answer in answers if answer.strip()]
    assert offered == [line.split(" ")[-1] for line in TYPED.values()]


def test_zsh_completes_what_is_typed(shell_with_completion, home):
    (home / ".zshrc").write_text("PROMPT='READY '\n")
    script = "zmodload zsh/zpty; zpty shell zsh -i; zpty -r shell seen '*READY *'\n"
    for typed, line in TYPED.items():
        script += (
            f"zpty -w -n shell {shlex.quote(typed)}$'\\t'; zpty -r shell seen '*{line}*'\n"
            f"print -r -- {shlex.quote(line)}; zpty -w -n shell $'\\x15'\n"  # clears the line
        )
    assert shell_with_completion("zsh", script).splitlines() == [*TYPED.values()]
