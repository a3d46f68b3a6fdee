"""docs/planning.md: its commands run, and its table is what the script prints."""

import shlex

import pytest

from blankfill.cli.main import main
from docs_blocks import DOCS, commands
from script_files import load_script

PAGE = DOCS / "planning.md"


@pytest.mark.parametrize("command", commands(PAGE))
def test_a_command_of_the_page_answers(command, capsys):
    assert main(shlex.split(command)[1:]) == 0
    assert "the fastest layouts" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["planning.md", "planning.zh.md"])
def test_the_page_shows_what_the_script_prints(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for line in load_script("compare-plan").table():
        assert line + "\n" in text


def test_the_page_has_several_commands():
    assert len(commands(PAGE)) >= 5
