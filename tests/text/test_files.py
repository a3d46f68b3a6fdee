import builtins
import gzip
import json
import os
import socket

import pyarrow
import pytest

from blankfill.errors import DataError
from blankfill.text.corpus import read_documents
from blankfill.text.files import find_files
from blankfill.text.records import Skips, shown


def names(folder, *paths, strict=False):
    skips = Skips(strict=strict)
    found = find_files(paths or [folder], skips)
    return [os.path.relpath(source.path, folder) for source in found], skips


def put(path, text="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_links_to_folders_and_files_are_followed(tmp_path):
    put(tmp_path / "elsewhere" / "b.txt")
    put(tmp_path / "single.txt")
    put(tmp_path / "corpus" / "a.txt")
    os.symlink("../elsewhere", tmp_path / "corpus" / "data")
    os.symlink("../single.txt", tmp_path / "corpus" / "one.txt")
    found, skips = names(tmp_path / "corpus", strict=True)
    assert (found, skips.total) == (["a.txt", "data/b.txt", "one.txt"], 0)


@pytest.mark.parametrize("target", [".", "..", "sub", "../corpus"])
def test_links_in_a_circle_are_followed_once(tmp_path, target):
    put(tmp_path / "corpus" / "a.txt")
    put(tmp_path / "corpus" / "sub" / "b.txt")
    for folder in (tmp_path / "corpus", tmp_path / "corpus" / "sub"):
        os.symlink(target, folder / "aa-link")
    found, skips = names(tmp_path / "corpus")
    kept = [name for name in found if "aa-link" not in name]
    assert kept == ["a.txt", "sub/b.txt"]
    assert found == kept
    assert set(skips.counts) <= {"read already", "a broken link"}
    assert skips.total == 2


def test_a_file_that_is_reached_twice_is_read_once(tmp_path):
    put(tmp_path / "corpus" / "b" / "file.txt")
    os.symlink("b/file.txt", tmp_path / "corpus" / "a.txt")
    os.link(tmp_path / "corpus" / "b" / "file.txt", tmp_path / "corpus" / "c.txt")
    found, skips = names(tmp_path / "corpus", strict=True)
    assert len(found) == 1
    assert skips.counts == {"read already": 2}
    found, skips = names(tmp_path, tmp_path / "corpus", tmp_path / "corpus" / "b" / "file.txt")
    assert len(found) == 1
    found, skips = names(tmp_path, tmp_path / "corpus", tmp_path / "corpus" / "b")
    assert len(found) == 1


def test_what_is_no_regular_file_is_counted_and_never_waited_for(tmp_path):
    folder = tmp_path / "corpus"
    put(folder / "a.txt")
    os.mkfifo(folder / "pipe.jsonl")
    os.symlink("nowhere.txt", folder / "broken.txt")
    os.symlink("itself.txt", folder / "itself.txt")
    os.symlink("/dev/zero", folder / "zero.txt")
    with socket.socket(socket.AF_UNIX) as opened:
        before = os.getcwd()
        os.chdir(folder)  # the name of a socket is at most 108 bytes
        try:
            opened.bind("socket.txt")
        finally:
            os.chdir(before)
        found, skips = names(folder)
    assert found == ["a.txt"]
    assert skips.counts == {"not a regular file": 3, "a broken link": 2}
    said = " ".join(map(str, skips.first))
    assert all(kind in said for kind in ("a named pipe", "a socket", "a device"))
    with pytest.raises(DataError, match="is a device"):
        find_files(["/dev/zero"], Skips())
    with pytest.raises(DataError, match=r"a broken link, to nowhere\.txt"):
        find_files([folder / "broken.txt"], Skips())


def test_folders_and_files_that_are_closed_are_counted(tmp_path, monkeypatch):
    put(tmp_path / "a.txt")
    put(tmp_path / "closed" / "b.txt")
    put(tmp_path / "secret.txt")
    scandir, opened = os.scandir, builtins.open

    # Nothing is closed to root, who may run the tests.
    def no_scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    def no_open(path, *args, **options):
        if str(path).endswith("secret.txt"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *args, **options)

    monkeypatch.setattr(os, "scandir", no_scandir)
    monkeypatch.setattr(builtins, "open", no_open)
    skips = Skips()
    assert [d.text for d in read_documents([tmp_path], report=skips)] == ["text"]
    assert skips.counts == {"cannot be read": 2}
    assert [str(case) for case in skips.first] == [
        f"{tmp_path / name}: cannot be read (Permission denied)"
        for name in ("closed", "secret.txt")
    ]
    with pytest.raises(DataError, match="Permission denied"):
        list(read_documents([tmp_path], strict=True))
    for name in ("secret.txt", "closed"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            list(read_documents([tmp_path / "a.txt", tmp_path / name]))


def test_the_first_cases_are_one_of_each_reason_before_the_second_of_any(tmp_path):
    for number in range(30):
        put(tmp_path / f".hidden-{number:02}")
    for name in ("book.asc", "picture.png", "plain", "z.txt"):
        put(tmp_path / name)
    _, skips = names(tmp_path, tmp_path)
    first = [str(case) for case in skips.first]
    assert first[0].endswith(": hidden")
    assert first[1].endswith("book.asc: unknown kind of file (.asc; name it .txt if it is text)")
    assert first[2].endswith(": hidden")
    assert ": unknown kind of file (.png; name" in first[3]
    assert "plain: unknown kind of file (no suffix; name" in first[5]
    assert len(first) == 20
    assert skips.counts == {"hidden": 30, "unknown kind of file": 3}


def test_text_with_mark_up_is_text(tmp_path):
    kept = sorted(["a.adoc", "b.markdown", "c.md", "d.org", "e.RST", "f.rst.gz"])
    for name in kept[:-1]:
        put(tmp_path / name)
    with gzip.open(tmp_path / kept[-1], "wt") as file:
        file.write("a title\n=======\n")
    assert names(tmp_path)[0] == kept
    assert len(list(read_documents([tmp_path]))) == len(kept)


def test_hidden_files_are_left_out_and_counted(tmp_path):
    put(tmp_path / "a.txt")
    put(tmp_path / ".git" / "b.txt")
    put(tmp_path / ".ipynb_checkpoints" / "a.txt")
    put(tmp_path / ".hidden.txt")
    found, skips = names(tmp_path, strict=True)
    assert (found, skips.counts) == (["a.txt"], {"hidden": 3})
    assert names(tmp_path, tmp_path / ".hidden.txt")[0] == [".hidden.txt"]
    assert names(tmp_path, tmp_path / ".git")[0] == [".git/b.txt"]


def test_the_card_of_a_data_set_is_no_document(tmp_path):
    put(tmp_path / "hub" / "README.md", "# Card")
    put(tmp_path / "hub" / "data" / "train.jsonl.gz")
    put(tmp_path / "docs" / "README.md", "# Docs")
    put(tmp_path / "docs" / "package.json")
    found, skips = names(tmp_path, strict=True)
    assert found == ["docs/README.md", "docs/package.json", "hub/data/train.jsonl.gz"]
    assert skips.counts == {"the card of a data set": 1}
    assert names(tmp_path, tmp_path / "hub" / "README.md")[0] == ["hub/README.md"]


@pytest.mark.parametrize("name", [b"\xd3\xef\xc1\xcf.jsonl", b"new\nline.jsonl", b"\xff/a.jsonl"])
def test_names_that_are_not_utf8_are_read_and_shown_escaped(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b'{"text": "a"}\n{"text": 5}\n')
    skips = Skips()
    documents = list(read_documents([tmp_path], report=skips))
    assert [d.text for d in documents] == ["a"]
    for said in (documents[0].where, str(skips.first[0])):
        assert said.encode().decode().isprintable()
        assert said.startswith(str(tmp_path))
    with pytest.raises(DataError) as caught:
        list(read_documents([os.fsdecode(path)], strict=True))
    assert str(caught.value).isprintable()


def test_a_path_is_shown_as_it_is_where_it_can_be():
    assert shown("a/\u8bed\u6599.txt") == "a/\u8bed\u6599.txt"
    assert shown(os.fsdecode(b"\xd3\xef")) == "\\xd3\\xef"
    assert shown("a\nb\ud800") == "a\\x0ab\\ud800"


def test_a_suffix_of_another_kind_is_none_under_compression_either(tmp_path):
    for name in ("a.xml", "a.xml.gz", "a.html.zst", "notes", "b.docx"):
        put(tmp_path / name)
    put(tmp_path / "corpus.2024.gz")
    found, skips = names(tmp_path)
    assert found == ["corpus.2024.gz"]
    assert skips.counts == {"unknown kind of file": 5}


def test_a_folder_of_datasets_is_read_by_what_it_says_of_itself(tmp_path):
    """As `save_to_disk` writes it: settings, caches of earlier work, and the files of rows."""
    part = tmp_path / "set" / "train"
    part.mkdir(parents=True)
    for name, text in (("data-00000-of-00001.arrow", "row"), ("cache-0123.arrow", "cached")):
        table = pyarrow.table({"text": [text]})
        with pyarrow.ipc.new_stream(str(part / name), table.schema) as writer:
            writer.write_table(table)
    (part / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"})
    )
    (part / "dataset_info.json").write_text(json.dumps({"text": "a description"}))
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    skips = Skips(strict=True)
    assert [d.text for d in read_documents([tmp_path], report=skips)] == ["row"]
    assert skips.counts == {"no rows of a data set": 4}
    for other in ("{", "[]", '{"_data_files": 3}', '{"text": "a note"}'):
        (part / "state.json").write_text(other)
        assert "row" in [d.text for d in read_documents([part])]
