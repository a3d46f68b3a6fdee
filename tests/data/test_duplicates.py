"""Exact duplicates are counted, and dropped where that is asked for; every number adds up."""

import json
import random

import pytest

from blankfill.api.data import data_build, data_show
from blankfill.cli.main import main
from blankfill.data import duplicates
from blankfill.data.duplicates import SeenDocuments, identity_of


@pytest.mark.parametrize("recent", [1, 7, 1000])
def test_what_was_there_before_is_found_however_it_is_kept(monkeypatch, recent):
    monkeypatch.setattr(duplicates, "RECENT_DOCUMENTS", recent)
    rng = random.Random(recent)
    seen, before = SeenDocuments(), set()
    for _ in range(60):
        # Zeros at the end of an identity are part of it.
        batch = [bytes([rng.randrange(4), rng.randrange(60)]) + bytes(14) for _ in range(9)]
        batch += [bytes(15) + bytes([rng.randrange(3)])]
        expected = []
        for identity in batch:
            expected.append(identity in before)
            before.add(identity)
        assert seen.add(batch) == expected
    assert seen.add([]) == []


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(duplicates, "RECENT_DOCUMENTS", 10)
    monkeypatch.setattr(duplicates, "MOST_DOCUMENTS", 20)
    seen = SeenDocuments()
    identities = [identity_of(str(i), None) for i in range(100)]
    for identity in identities:
        seen.add([identity])
    assert seen.is_full
    assert sum(map(len, seen._sorted)) + len(seen._recent) == 20
    assert seen.add(identities[:20]) == [True] * 20
    assert seen.add(identities[50:]) == [False] * 50


def test_an_identity_tells_texts_and_answers_apart():
    documents = [("ab", None), ("a", "b"), ("ab", "b"), ("a", "bb"), ("", "ab"), ("1\0ab", None)]
    assert len({identity_of(*document) for document in documents}) == len(documents)
    assert identity_of("a", None) == identity_of("a", "")
    assert len(identity_of("a", "b")) == 16


def build(folder, tokenizer, **options):
    return data_build([folder / "in"], tokenizer=tokenizer, out=folder / "out", **options)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    texts = ["one fox", "two foxes", "one fox", " ", "one  fox"]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (tmp_path / "in" / "a.jsonl").write_text("".join(lines) + "{\n")
    (tmp_path / "in" / "b.txt").write_text("two foxes\n\n\nthree foxes\n")
    (tmp_path / "in" / "c.csv").write_text("id,text\n1,four\n2,four\n3,a,b\n")
    (tmp_path / "in" / "d.docx").write_text("?")
    return tmp_path


def test_duplicates_are_counted_and_kept_or_dropped(folder, tokenizer_folder):
    kept = build(folder, tokenizer_folder, documents="paragraph")
    assert (kept.store.documents, kept.reading.duplicates) == (8, 3)
    dropped = build(
        folder, tokenizer_folder, documents="paragraph", drop_duplicates=True, overwrite=True
    )
    shown = data_show(folder / "out", count=99).documents
    assert [d.text for d in shown] == ["one fox", "two foxes", "one  fox", "three foxes", "four"]
    assert dropped.reading.duplicates == 3
    squeezed = build(folder, tokenizer_folder, documents="paragraph", drop_duplicates=True,
                     squeeze_whitespace=True, overwrite=True, strict=False)  # fmt: skip
    assert squeezed.store.documents == 4


def test_every_document_is_kept_or_dropped_for_a_reason(folder, tokenizer_folder):
    result = build(folder, tokenizer_folder, documents="paragraph", drop_duplicates=True)
    counts = {kind: (c.files, c.kept, c.dropped) for kind, c in result.reading.kinds.items()}
    assert counts == {
        "JSON": (1, 3, {"an exact duplicate": 1, "empty": 1, "not JSON": 1}),
        "text": (1, 1, {"an exact duplicate": 1}),
        "CSV": (1, 1, {"an exact duplicate": 1, "another number of cells than of names": 1}),
    }
    assert result.reading.unread == {"unknown kind of file": 1}
    assert sum(c.kept for c in result.reading.kinds.values()) == result.store.documents
    dropped = sum(sum(c.dropped.values()) for c in result.reading.kinds.values())
    assert dropped + sum(result.reading.unread.values()) == result.num_skipped


def test_one_table_tells_it_all(folder, tokenizer_folder, capsys):
    words = ["data", "build", str(folder / "in"), "--tokenizer", str(tokenizer_folder)]
    words += ["--documents", "paragraph", "--out", str(folder / "out")]
    assert main(words) == 0
    said = [" ".join(line.replace("\u2502", " ").split()) for line in
            capsys.readouterr().out.splitlines()]  # fmt: skip
    assert "JSON 1 6 4 2 1 x empty, 1 x not JSON" in said
    assert "text 1 2 2 0" in said
    assert "CSV 1 3 2 1 1 x another number of cells than of names" in said
    assert "not read, or not to the end 1 1 x unknown kind of file" in said
    assert any(line.startswith("exact duplicates: 3 documents") for line in said)
    assert main(["tokenizer", "info", str(tokenizer_folder), str(folder / "in")]) == 0
    assert "1 x unknown kind of file" in capsys.readouterr().out


def test_the_same_options_hold_for_the_tokenizer(tmp_path, tokenizer_folder, capsys):
    path = tmp_path / "a.csv"
    path.write_bytes("body\n狐狸来了\n走吧\n".encode("gbk"))
    words = [str(path), "--text-field", "body", "--encoding", "gb18030", "--json"]
    assert main(["tokenizer", "info", str(tokenizer_folder), *words]) == 0
    assert json.loads(capsys.readouterr().out)["languages"]["zh"]["documents"] == 2
    bad = ["tokenizer", "train", str(path), "--out", str(tmp_path / "t")]
    for wrong in (["--encoding", "nope"], ["--documents", "page"], ["--text-field", "text"]):
        assert main([*bad, *wrong]) == 2
        assert wrong[1] in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
