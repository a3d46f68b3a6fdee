import gzip
import hashlib
import io
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.errors import DataError
from blankfill.text import corpus, json_records, plain
from blankfill.text.compressed import DamagedFileError, read_blocks
from blankfill.text.corpus import read_documents
from blankfill.text.options import TextOptions
from blankfill.text.records import Skips
from shared import shared_path

TEXTS = ["one\n\n two \u2028 three\r\n", "\u4eba\uff0c\u5c71\u3002", "a\tb  c\0"]


def lines(texts=TEXTS):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def read(*paths, **options):
    return [document.text for document in read_documents(paths, **options)]


def parquet(texts, column="text"):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({column: texts, "n": [0] * len(texts)}), buffer)
    return buffer.getvalue()


PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_each_kind_gives_the_same_text_plain_and_packed(tmp_path, kind, packed):
    data = {"txt": TEXTS[0].encode(), "jsonl": lines(), "parquet": parquet(TEXTS)}[kind]
    path = tmp_path / f"corpus.{kind}{packed}"
    path.write_bytes(PACK[packed](data))
    assert read(path) == (TEXTS[:1] if kind == "txt" else TEXTS)


def test_the_content_and_not_the_name_tells_the_compression(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(lines()))
    (tmp_path / "b.jsonl.gz").write_bytes(lines())
    assert read(tmp_path) == TEXTS * 2


def test_members_and_frames_follow_each_other(tmp_path):
    for suffix in (".gz", ".zst"):
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(PACK[suffix](lines()) + PACK[suffix](lines()))
        assert read(path) == TEXTS * 2


def test_folders_are_read_in_order_and_other_files_counted(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.txt").write_text("third")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "a2.text").write_text("second")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("hidden")
    skips = Skips()
    assert read(tmp_path, report=skips) == ["first", "second", "third"]
    assert skips.counts == {"unknown kind of file": 1, "hidden": 1}


BLANK = ["\n\n", " \t\r\n", "\u3000\n\u00a0", "\ufeff\n", "\n\ufeff", "\n" * 20_000]


@pytest.mark.parametrize("blank", ["", *BLANK], ids=ascii)
@pytest.mark.parametrize("name", ["-", "a.gz", "a.zst", "a.jsonl", "a.json.gz"])
def test_white_space_and_marks_before_json_do_not_hide_it(tmp_path, monkeypatch, name, blank):
    data = blank.encode() + lines()
    if name == "-":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert read("-") == TEXTS
        return
    path = tmp_path / name
    path.write_bytes(PACK.get(path.suffix, bytes)(data))
    documents = list(read_documents([path], strict=True))
    assert [document.text for document in documents] == TEXTS
    assert documents[0].where == f"{path}:{1 + blank.count(chr(10))}"


@pytest.mark.parametrize("text", ["", "plain\ntext", "\n\n  plain\n", "[1] a note", "(a)\n{b}"])
def test_other_text_on_stdin_is_one_document_white_space_included(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read("-") == [text] * bool(text)


def test_stdin_is_told_by_its_content_also_under_compression(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(lines()))))
    assert read("-") == TEXTS
    with pytest.raises(DataError, match="once"):
        read("-", "-")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="stdin is closed"):
        read("-")


def test_white_space_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "TEXT_BYTES", 1000)
    blank = gzip.compress(b" \n" * 5_000_000)
    (tmp_path / "a.gz").write_bytes(blank + gzip.compress(lines()))
    (tmp_path / "b.txt").write_bytes(blank + gzip.compress(b"text"))
    skips = Skips()
    tracemalloc.start()
    documents = list(read_documents([tmp_path], report=skips))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [d.text for d in documents[:-1]] == TEXTS
    assert documents[-1].text.strip() == "text"
    assert documents[0].where.endswith(":5000001")
    assert skips.counts == {"white space": 1}
    assert peak < 4_000_000


def test_a_text_that_looks_like_json_lines_is_pointed_at(tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes(lines())
    assert read(tmp_path / "a.txt") == [lines().decode()]
    assert "call it .jsonl" in caplog.text


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\xef\xbb\xbfb")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + lines())
    assert read(tmp_path) == ["a\ufeffb", *TEXTS]


@pytest.mark.parametrize("unit", ["paragraph of words\n\n", "\u4eba", "x", "a \u4eba\n"])
def test_a_large_text_is_cut_without_losing_a_byte(tmp_path, monkeypatch, unit):
    monkeypatch.setattr(plain, "TEXT_BYTES", 1000)
    text = unit * (10_000 // len(unit.encode()))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
    texts = read(tmp_path / "a.txt")
    assert "".join(texts) == text
    assert len(texts) >= 10
    assert max(len(part.encode()) for part in texts) <= 1000
    if unit.endswith("\n\n"):
        assert all(part.endswith("\n\n") for part in texts)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=40)), st.integers(1, 60))
def test_lines_do_not_depend_on_how_they_arrive(parts, size):
    data = b"\n".join(parts)
    blocks = (data[i : i + size] for i in range(0, len(data), size))
    records = list(json_records.cut_at_lines("f", blocks, 1, Skips()))
    expected = [
        (n, line)
        for n, line in enumerate(data.split(b"\n"), 1)
        if line.decode(errors="replace").replace("\ufeff", "").strip()
    ]
    assert [(record.line, record.data) for record in records] == expected


def test_a_line_too_long_for_memory_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "RECORD_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(lines(["a"]) + lines(["b" * 600_000]) + lines(["c"]))
    skips = Skips()
    assert read(tmp_path / "a.jsonl", report=skips) == ["a", "c"]
    assert skips.first[0].line == 2


UNUSABLE = [
    (b'{"text": "a', "not JSON"),
    (b"[1, 2]", "not a JSON object"),
    (b'{"body": "a"}', "missing"),
    (b'{"text": 5}', "not a string"),
    (b'{"text": null}', "not a string"),
    (b'{"text": ["a"]}', "not a string"),
    (b'{"text": " \\n"}', "empty"),
    (b'{"text": "\\ud800"}', "surrogate"),
    (b'{"text": "a\xff"}', "not UTF-8"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"text": "\\u0000\\u0000a"}', "NUL"),
]


@pytest.mark.parametrize(("line", "reason"), UNUSABLE, ids=[reason for _, reason in UNUSABLE])
def test_unusable_lines_are_counted_and_named(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good", "n": ' + b"9" * 5000 + b"}\n" + line + b"\n" + lines(["z"]))
    skips = Skips()
    assert read(path, report=skips) == ["good", "z"]
    assert skips.total == 1
    assert reason in str(skips.first[0])
    assert str(skips.first[0]).startswith(f"{path}:2: ")
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        read(path, strict=True)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_what_came_before_damage_is_kept(tmp_path, suffix, share):
    texts = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    packed = PACK[suffix](lines(texts))
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(packed[: int(len(packed) * share)])
    skips = Skips()
    found = read(path, report=skips)
    assert found == texts[: len(found)]
    # A block of zstd is 128 KiB of text, and all of it or nothing.
    assert len(found) > share * len(texts) - 3000
    # The line that the cut goes through is counted too, where it has begun.
    assert 1 <= skips.total <= 2
    with pytest.raises(DataError):
        read(path, strict=True)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_of_a_damaged_text_what_came_before_is_a_document(tmp_path, suffix):
    text = "".join(hashlib.sha256(str(i).encode()).hexdigest() + "\u4eba" for i in range(20_000))
    path = tmp_path / f"a.txt{suffix}"
    packed = PACK[suffix](text.encode())
    for stop in range(len(packed) // 2, len(packed) // 2 + 20):
        path.write_bytes(packed[:stop])
        skips = Skips()
        (found,) = read(path, report=skips)
        assert text.startswith(found)
        assert len(found) > len(text) // 4
        assert skips.total == 1


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_damaged_bytes_never_raise_anything_else(data, place, change, zstd):
    packed = bytearray(PACK[".zst" if zstd else ".gz"](data))
    packed[place % len(packed)] ^= change
    out = b""
    try:
        for block in read_blocks(io.BytesIO(bytes(packed))):
            out += block
    except DamagedFileError:
        return
    assert isinstance(out, bytes)


def test_nul_and_rubbish_behind_gzip_are_told_apart(tmp_path):
    (tmp_path / "zeros.jsonl.gz").write_bytes(gzip.compress(lines()) + bytes(512))
    assert read(tmp_path / "zeros.jsonl.gz", strict=True) == TEXTS
    (tmp_path / "rubbish.jsonl.gz").write_bytes(gzip.compress(lines()) + b"rubbish")
    skips = Skips()
    assert read(tmp_path / "rubbish.jsonl.gz", report=skips) == TEXTS
    assert skips.total == 1


def test_a_compressed_bomb_stays_small(tmp_path):
    blocks = list(read_blocks(io.BytesIO(gzip.compress(bytes(50_000_000), 9))))
    assert sum(map(len, blocks)) == 50_000_000
    assert max(map(len, blocks)) <= 1 << 20


def test_parquet_rows_without_text_are_named(tmp_path):
    table = pyarrow.table({"text": pyarrow.array([b"a", None, b"\xff", b"b"], pyarrow.binary())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    skips = Skips()
    assert read(tmp_path / "a.parquet", report=skips) == ["a", "b"]
    assert [case.line for case in skips.first] == [2, 3]


@pytest.mark.parametrize(
    ("name", "data", "options", "reason"),
    [
        (
            "a.parquet",
            parquet(["a"]),
            {"text_field": "body"},
            "no column 'body'",
        ),
        ("a.parquet", parquet(["a"]), {"text_field": "n"}, "holds int64"),
        ("a.docx", b"x", {}, "unknown kind of file"),
        ("a.txt", None, {}, "no such file"),
        ("\0", None, {}, "no such file"),
        ("a" * 5000, None, {}, "no such file"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, data, options, reason):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=reason):
        read(tmp_path / name, options=TextOptions(**options))


def test_another_field_can_hold_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"body": "b", "text": "t"}\n')
    assert read(tmp_path / "a.jsonl", options=TextOptions(text_field="body")) == ["b"]


EXPECTED = {
    "01_utf8_bom.txt": 1,
    "04_utf16le_bom.txt": 1,
    "33_jsonl_u2028.jsonl": 3,
    "34_jsonl_crlf.jsonl": 3,
    "35_jsonl_no_final_newline.jsonl": 3,
    "36_jsonl_blank_lines.jsonl": 2,
    "38_jsonl_broken_syntax.jsonl": 2,
    "41_jsonl_invalid_utf8.jsonl": 2,
    "72_200k_tiny_docs.jsonl.gz": 200_000,
    "76_trailing_garbage.jsonl.gz": 2000,
    "77_multi_member.jsonl.gz": 2000,
    "79_gzip_named_jsonl.jsonl": 2000,
    "80_empty_file.gz": 0,
    "81_valid.jsonl.zst": 2000,
    "85_two_frames.jsonl.zst": 4000,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_hostile_files_give_the_documents_that_they_hold(name):
    documents = list(read_documents([shared_path(f"data/nasty/{name}")]))
    assert len(documents) == EXPECTED[name]
    assert not documents or not documents[0].text.startswith("\ufeff")


def test_no_files_at_all_is_one_clear_sentence():
    with pytest.raises(DataError, match="no text was named"):
        read()
