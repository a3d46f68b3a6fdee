"""Whole or not at all, whatever ends the writing."""

import pytest

from blankfill import atomic


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


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    out = tmp_path / "deep" / "out"
    with atomic.new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert names(out) == ["a"]
    assert names(out.parent) == ["out"]


def test_a_folder_that_fails_takes_those_made_for_it_along(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(KeyboardInterrupt), atomic.new_folder(out) as folder:
        interrupt((folder / "a").open("w"))
    assert names(tmp_path) == []


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(OSError, match="not empty"), atomic.new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path / "out") == ["precious"]
    assert names(tmp_path) == ["out"]


def test_what_is_being_written_has_the_name_that_is_swept(tmp_path):
    with atomic.new_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        assert list(tmp_path.glob(atomic.temporary_pattern("a.json"))) == [temporary]
