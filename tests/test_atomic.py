"""Whole or not at all, whatever ends the writing."""

import json

import pytest

from blankfill import atomic
from blankfill.disk.ownership import temporaries


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def interrupt(file):
    with file:
        file.write("half")
        raise KeyboardInterrupt


def test_a_file_is_replaced_when_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with atomic.new_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_that_fails_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        atomic.write_text(path, "half \ud800")
    with pytest.raises(KeyboardInterrupt), atomic.new_file(path) as temporary:
        interrupt(temporary.open("w"))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_text_is_utf8_on_disk_and_surrogates_become_what_is_asked(tmp_path):
    atomic.write_text(tmp_path / "a", "\u7530\n\ud800", errors="replace")
    assert (tmp_path / "a").read_bytes() == b"\xe7\x94\xb0\n?"


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    atomic.write_text(tmp_path / "far" / "a.txt", "old")
    (tmp_path / "a.txt").symlink_to(tmp_path / "far" / "a.txt")
    atomic.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "far" / "a.txt").read_text() == "new"


def test_a_name_that_is_not_utf8_comes_back_from_json(tmp_path):
    path = "caf\udce9/\U0001f600/\u7530"
    atomic.write_json(tmp_path / "a.json", {"path": path})
    assert b"\\udce9" in (tmp_path / "a.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": path}


def test_what_is_being_written_has_the_name_that_is_swept(tmp_path):
    with atomic.new_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        assert temporaries(tmp_path, "a.json") == [temporary]
