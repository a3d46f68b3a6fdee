"""What is printed as a next command is found by the shell that reads it."""

import sys

import pytest

from blankfill.cli.command import own_command


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment's folder of commands, with this interpreter's name and ours."""
    folder = tmp_path / "project" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "blankfill"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PATH", "/nowhere")
    return folder


def test_a_shell_that_finds_it_is_told_its_name(environment, monkeypatch):
    monkeypatch.setenv("PATH", str(environment))
    assert own_command() == "blankfill"


def test_a_shell_that_does_not_is_told_the_way_from_here(environment):
    assert own_command() == ".venv/bin/blankfill"


def test_from_elsewhere_the_way_is_absolute(environment, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert own_command() == str(environment / "blankfill")


def test_where_there_is_none_beside_the_interpreter_the_name_has_to_do(environment):
    (environment / "blankfill").unlink()
    assert own_command() == "blankfill"
