import errno
import gzip
import io
import os
import tempfile

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from blankfill.errors import DataError
from blankfill.text import tables
from blankfill.text.corpus import read_documents, read_records
from blankfill.text.fields import FieldCheck
from blankfill.text.options import TextOptions
from blankfill.text.records import Skips, parse_record

TEXTS = ["one\n two", "\u4eba\uff0c\u5c71\u3002", None, "\U0001f98a"]


def read(path, **options):
    skips = Skips()
    return [d.text for d in read_documents([path], report=skips, **options)], skips


def arrow_file(table, path):
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def arrow_stream(table, path):
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def feather(table, path):
    pyarrow.feather.write_feather(table, path, compression="zstd")


WRITERS = {
    "a.parquet": pyarrow.parquet.write_table,
    "data-00000-of-00001.arrow": arrow_stream,
    "file.arrow": arrow_file,
    "a.feather": feather,
}
TYPES = {
    "string": pyarrow.string(),
    "large_string": pyarrow.large_string(),
    "string_view": pyarrow.string_view(),
    "binary": pyarrow.binary(),
    "large_binary": pyarrow.large_binary(),
    "binary_view": pyarrow.binary_view(),
    "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    "dictionary of large": pyarrow.dictionary(pyarrow.int8(), pyarrow.large_string()),
}


def column(kind):
    values = pyarrow.array(TEXTS, pyarrow.string())
    if pyarrow.types.is_dictionary(kind):
        return values.cast(kind.value_type).dictionary_encode().cast(kind)
    return values.cast(kind)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", WRITERS)
def test_every_type_of_text_is_read_from_every_table(tmp_path, name, kind, packed):
    path = tmp_path / name
    WRITERS[name](pyarrow.table({"n": range(4), "text": column(TYPES[kind])}), str(path))
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    texts, skips = read(path)
    assert texts == [text for text in TEXTS if text is not None]
    assert [case.line for case in skips.first] == [3]


@pytest.mark.parametrize("name", WRITERS)
def test_dots_lead_into_structs_and_a_name_with_a_dot_wins(tmp_path, name):
    nested = pyarrow.array(
        [{"text": "a", "meta": {"title": "A"}}, None, {"text": None, "meta": None},
         {"text": "d", "meta": {"title": "D"}}]
    )  # fmt: skip
    table = pyarrow.table({"doc": nested, "text": ["w", "x", "y", "z"]})
    WRITERS[name](table, str(tmp_path / name))
    assert read(tmp_path / name, options=TextOptions(text_field="doc.text"))[0] == ["a", "d"]
    assert read(tmp_path / name, options=TextOptions(text_field="doc.meta.title"))[0] == ["A", "D"]
    WRITERS[name](table.append_column("doc.text", table["text"]), str(tmp_path / name))
    assert read(tmp_path / name, options=TextOptions(text_field="doc.text"))[0] == [
        "w",
        "x",
        "y",
        "z",
    ]
    with pytest.raises(DataError, match=r"no column 'doc\.txt'; its columns are doc\.text, doc\.m"):
        read(tmp_path / name, options=TextOptions(text_field="doc.txt"))
    with pytest.raises(DataError, match="holds struct"):
        read(tmp_path / name, options=TextOptions(text_field="doc"))


@pytest.mark.parametrize("name", WRITERS)
def test_answers_are_a_column_too(tmp_path, name):
    table = pyarrow.table({"text": ["a", "b", "c"], "qa": [{"a": "1"}, {"a": None}, {"a": ""}]})
    WRITERS[name](table, str(tmp_path / name))
    options = TextOptions(answer_field="qa.a")
    check = FieldCheck(options.fields)
    records = read_records([tmp_path / name], options, check=check, skips=Skips())
    documents = [parse_record(record, options) for record in records]
    assert [(d.text, d.answer) for d in documents] == [("a", "1"), ("b", ""), ("c", "")]
    assert documents[0].num_bytes == 2


def test_a_table_is_told_by_its_content(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "a.jsonl")
    assert read(tmp_path / "a.jsonl")[0] == ["a"]
    (tmp_path / "b.parquet").write_text('{"text": "a"}\n')
    texts, skips = read(tmp_path / "b.parquet")
    assert texts == []
    assert "neither Parquet nor Arrow" in str(skips.first[0])


def test_a_plain_table_takes_no_temporary_file(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for name, write in WRITERS.items():
        write(pyarrow.table({"text": ["a"]}), str(tmp_path / name))
        assert read(tmp_path / name)[0] == ["a"]


def packed_table(path):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a" * 5000]}), buffer, compression="none")
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return path


def test_what_a_packed_table_unpacks_to_is_bounded(tmp_path, monkeypatch):
    path = packed_table(tmp_path / "a.parquet.gz")
    monkeypatch.setattr(tables, "UNPACKED_BYTES", 1000)
    with pytest.raises(DataError, match=r"a\.parquet\.gz: more than .* unpack it yourself"):
        read(path)


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    path = packed_table(tmp_path / "a.parquet.gz")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    class Full(io.BytesIO):
        def write(self, _data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", lambda **_options: Full())
        with pytest.raises(DataError, match=f"the disk of {tmp_path} is full; set TMPDIR"):
            read(path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DataError, match="missing: No such file or directory; set TMPDIR"):
        read(path)


def test_a_table_on_a_pipe_is_one_clear_sentence(tmp_path, monkeypatch):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    for name, write in WRITERS.items():
        write(pyarrow.table({"text": ["a"]}), str(tmp_path / name))
        for data in ((tmp_path / name).read_bytes(), gzip.compress((tmp_path / name).read_bytes())):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Pipe(data)))
            with pytest.raises(DataError, match="cannot be read from a pipe; name its file"):
                read("-")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_damaged_table_is_counted(tmp_path, name, share):
    WRITERS[name](pyarrow.table({"text": [str(i) * 50 for i in range(2000)]}), str(tmp_path / name))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    texts, skips = read(tmp_path / name)
    assert texts == [str(i) * 50 for i in range(len(texts))]
    assert skips.total == 1
    assert "data is damaged" in str(skips.first[0])
