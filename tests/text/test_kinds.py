import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
import zstandard

from blankfill.errors import DataError
from blankfill.text.corpus import read_documents
from blankfill.text.kinds import blank_length
from blankfill.text.records import Skips

TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 400


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("texts/1.txt")
        entry.size = len(TEXT)
        archive.addfile(entry, io.BytesIO(TEXT))
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("1.txt", TEXT)
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
KINDS = {
    "tar": (tar(), "a tar archive (unpack it and name the folder: tar xf)"),
    "zip": (zipped(), "a ZIP archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40), "a 7z archive"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(40), "a RAR archive"),
    "xz": (lzma.compress(lzma.compress(TEXT)), "xz data that was packed twice"),
    "bzip2": (bz2.compress(bz2.compress(TEXT)), "bzip2 data that was packed twice"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "a PDF document"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture"),
    "sqlite": (b"SQLite format 3\0" + bytes(80), "an SQLite database"),
    "pointer": (POINTER, "a Git LFS pointer (the data itself is missing: git lfs pull)"),
    "pointer with a mark": (b"\xef\xbb\xbf" + POINTER, "a Git LFS pointer"),
    "binary": (b"some text\0" + bytes(range(256)), "binary (it holds NUL bytes"),
    "one NUL": (TEXT[:3000] + b"\0" + TEXT, "binary (it holds NUL bytes"),
    "late NUL": (TEXT + b"\0", "binary (it holds NUL bytes)"),
}
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("stem", ["a.txt", "a.tar", "a", "a.md", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_text_is_named_whatever_it_is_called(tmp_path, kind, stem, packed):
    data, said = KINDS[kind]
    path = tmp_path / (stem + packed)
    path.write_bytes(PACK[packed](data))
    if not packed and stem in ("a", "a.tar"):
        with pytest.raises(DataError) as caught:
            list(read_documents([path]))
        assert said.partition(" (")[0] in str(caught.value) or "unknown kind" in str(caught.value)
        return
    skips = Skips()
    assert list(read_documents([path], report=skips)) == []
    assert skips.total >= 1
    # Where only the bytes tell that it is no text, JSON and tables have a word of their own.
    if stem not in ("a.jsonl", "a.parquet") or not said.startswith("binary"):
        assert said in str(skips.first[0])


def test_an_archive_beside_texts_does_not_become_text(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar()))
    (tmp_path / "b.txt").write_bytes(TEXT)
    skips = Skips()
    documents = list(read_documents([tmp_path], report=skips))
    assert [document.text for document in documents] == [TEXT.decode()]
    assert skips.counts == {"a tar archive": 1}
    with pytest.raises(DataError, match="a tar archive"):
        list(read_documents([tmp_path], strict=True))


@pytest.mark.parametrize("data", [gzip.compress(tar()), zipped(), POINTER])
def test_stdin_is_told_by_the_same_rule(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    skips = Skips()
    assert list(read_documents(["-"], report=skips)) == []
    assert skips.total == 1


@pytest.mark.parametrize(
    "text",
    ["BZh is no word", "PKs and other shorts", "ustar", "GIF of the day", "version 1", "%PDF"],
)
def test_text_that_begins_as_a_signature_does_is_text(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert [document.text for document in read_documents([tmp_path / "a.txt"])] == [text]


def test_white_space_is_that_of_unicode():
    for code in range(0x3100):
        character = chr(code)
        is_blank = character.isspace()
        assert bool(blank_length(character.encode())) == is_blank, hex(code)
    assert blank_length(b"\xef\xbb\xbf \xe3\x80\x80x") == 7
    assert blank_length(b" " * 10**6) == 10**6
