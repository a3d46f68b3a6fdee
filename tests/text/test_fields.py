import json

import pyarrow
import pyarrow.parquet
import pytest

from blankfill.data.ingest import build_store
from blankfill.data.store import TokenStore
from blankfill.errors import DataError
from blankfill.text.corpus import read_documents
from blankfill.text.fields import find_field
from blankfill.text.options import TextOptions
from blankfill.text.records import Skips

ROWS = [
    {"text": "the fox", "answer": "a dog", "doc": {"q": "the river", "a": "the town"}},
    {"text": "the old dog", "answer": None, "doc": {"q": "the bread", "a": None}},
]

ANSWERS = TextOptions(answer_field="answer")


def write(folder, kind, rows=ROWS):
    path = folder / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("value", "name", "found"),
    [
        ({"a": 1}, "a", (True, 1)),
        ({"a": None}, "a", (True, None)),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", (True, 1)),
        ({"a": {"b": 2}}, "a.b", (True, 2)),
        ({"a": {"b.c": 3}}, "a.b.c", (True, 3)),
        ({"a.b": {"c": 4}, "a": {"b": {}}}, "a.b.c", (True, 4)),
        ({"a": {"b": {"c": {"d": 5}}}}, "a.b.c.d", (True, 5)),
        ({"a": None}, "a.b", (False, None)),
        ({"a": "b"}, "a.b", (False, None)),
        ({"a": [{"b": 1}]}, "a.b", (False, None)),
        ({"a": 1}, "b", (False, None)),
        ({"": {"": 6}}, ".", (True, 6)),
        ({}, "", (False, None)),
    ],
)
def test_dots_lead_inwards_and_a_key_that_holds_them_wins(value, name, found):
    assert find_field(value, name) == found


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize(("text", "answer"), [("text", "answer"), ("doc.q", "doc.a")])
def test_pairs_are_read_from_every_kind_and_null_is_no_answer(
    tmp_path, tokenizer_folder, kind, text, answer
):
    path = write(tmp_path, kind)
    manifest, _, skips, _ = build_store(
        [path],
        tokenizer_folder,
        tmp_path / "s",
        strict=True,
        options=TextOptions(text_field=text, answer_field=answer),
    )
    store = TokenStore.open(tmp_path / "s", verify=True)
    assert (len(store), store.num_pairs, skips.total) == (2, 1, 0)
    assert manifest["by_language"]["en"]["bytes"] == (23 if text == "text" else 26)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_misspelt_answer_is_said_with_the_fields_that_there_are(tmp_path, tokenizer_folder, kind):
    path = write(tmp_path, kind)
    with pytest.raises(DataError, match=r"no pair found.*'answr'.*text, answer, doc\.q, doc\.a"):
        build_store(
            [path], tokenizer_folder, tmp_path / "s", options=TextOptions(answer_field="answr")
        )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_misspelt_text_is_said_with_the_fields_that_there_are(tmp_path, kind):
    path = write(tmp_path, kind)
    (tmp_path / "note.txt").write_text("a note beside it")
    with pytest.raises(DataError, match=r"'txt'.* text, answer, doc\.q, doc\.a"):
        list(read_documents([tmp_path], TextOptions(text_field="txt")))
    skips = Skips()
    if kind != "parquet":
        assert list(read_documents([path], TextOptions(text_field="txt"), report=skips)) == []
        assert "its fields are text, answer, doc.q, doc.a" in str(skips.first[0])


def test_records_without_the_usual_field_beside_text_are_a_warning(tmp_path, caplog):
    (tmp_path / "note.txt").write_text("a note")
    write(tmp_path, "jsonl", [{"content": "x"}])
    assert [d.text for d in read_documents([tmp_path])] == ["a note"]
    said = "no record has a text in the field 'text'; the fields there are: content (in "
    assert f"{said}{tmp_path / 'a.jsonl'})" in caplog.text


def test_answers_that_are_all_null_are_plain_text_and_said(tmp_path, tokenizer_folder, caplog):
    path = write(tmp_path, "jsonl", [{"text": "the fox", "answer": None}])
    build_store(
        [path], tokenizer_folder, tmp_path / "s", options=TextOptions(answer_field="answer")
    )
    assert TokenStore.open(tmp_path / "s").num_pairs == 0
    assert "no pair found" in caplog.text


def test_text_without_records_has_no_pairs(tmp_path, tokenizer_folder):
    (tmp_path / "a.txt").write_text("the fox")
    with pytest.raises(DataError, match="no pair found"):
        build_store(
            [tmp_path / "a.txt"],
            tokenizer_folder,
            tmp_path / "s",
            options=TextOptions(answer_field="answer"),
        )
