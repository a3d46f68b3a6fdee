"""Items: cleaned, counted, and refused in a sentence where they cannot be used."""

import gzip
import json

import pytest

from blankfill.errors import DataError
from blankfill.probe.table import Columns, read_table
from blankfill.probe.target import code_target, require_varied


def write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows),
                    encoding="utf-8")  # fmt: skip
    return path


def table(tmp_path, rows, text="text", target="y", **fields):
    return read_table(
        write(tmp_path / "a.jsonl", rows), Columns(text=text, target=target, **fields)
    )


def test_rows_that_cannot_be_used_are_counted_and_named(tmp_path):
    found = table(tmp_path, [
        {"text": "a", "y": 1}, {"text": "", "y": 1}, {"text": "b"}, "{broken",
        {"text": "c", "y": None},
        {"text": "a", "y": 1}, {"text": "a", "y": 2}, {"text": "d", "y": 0.5}, "[1]",
    ])  # fmt: skip
    assert found.texts == ["a", "a", "d"]
    assert found.targets == [1, 2, 0.5]
    assert found.groups == ["a", "a", "d"]
    assert (found.read, found.duplicates, found.contradictions) == (9, 1, 1)
    assert found.missing == {"text": 1, "y": 2}
    assert found.unreadable == 2
    assert found.first[0].endswith("a.jsonl:2: nothing in the field 'text'")
    assert any("a.jsonl:6: the same text and target" in each for each in found.first)


def test_a_pattern_puts_fields_together(tmp_path):
    rows = [{"q": "why", "p": {"body": "because of it"}, "y": True}]
    found = table(tmp_path, rows, text="{p.body:7} / {q}? [MASK]")
    assert found.texts == ["because / why? [MASK]"]
    assert found.targets == ["true"]


def test_compressed_files_are_read(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a", "y": 1}\n{"text": "b", "y": 2}\n'))
    assert read_table(path, Columns(text="text", target="y")).texts == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        ([{"text": "a", "y": 1}], {"target": "label"}, "'label' (--target); its fields are text"),
        ([{"text": "a", "y": 1}], {"text": "sentence"}, "'sentence' (--text)"),
        ([{"text": "a", "y": 1}], {"text": "{text} {more}"}, "'more' (--text)"),
        ([{"text": "a", "y": 1}], {"group": "doc"}, "'doc' (--group)"),
        ([{"text": "a", "y": 1}, '{"text": "b", "y": NaN}'], {}, "a.jsonl:2: the field 'y' is nan"),
        (['{"text": "b", "y": -Infinity}'], {}, "is -inf"),
        (['{"text": "b", "y": 1' + "0" * 400 + "}"], {}, "is inf"),
        ([{"text": "a", "y": 1}, {"text": "b", "y": "x"}], {}, "a.jsonl:2: the field 'y' is 'x'"),
        ([{"text": ["a"], "y": 1}], {}, "is a list or an object"),
        ([{"text": "a", "y": {"b": 1}}], {}, "is a list or an object"),
        ([{"text": "a", "y": 1, "n": 0}], {"exposure": "n"}, "must be above 0"),
        ([{"text": "a", "y": 1, "n": "x"}], {"exposure": "n"}, "is not a number"),
        ([{"text": "a", "y": 1, "g": "A"}, {"text": "a", "y": 2, "g": "B"}], {"group": "g"},
         "have one text and the groups 'A' and 'B'"),
        (["plain text"], {}, "holds no JSON object"),
        ([{"text": "", "y": 1}], {}, "no row has all of"),
        (['{"text": "\\ud800", "y": 1}'], {}, "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_bad_rows_are_one_sentence(rows, options, told, tmp_path):
    with pytest.raises(DataError) as caught:
        table(tmp_path, rows, **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    for name, content in (("a.txt", "a text"), ("a.csv", "text,y\na,1\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=r"JSON"):
            read_table(tmp_path / name, Columns(text="text", target="y"))
    with pytest.raises(DataError):
        read_table(tmp_path / "none.jsonl", Columns(text="text", target="y"))


@pytest.mark.parametrize(
    ("family", "values", "order", "told"),
    [
        (
            "poisson",
            [1, 2, -3],
            (),
            "p:3: the target 'y' is -3, and a count of poisson",
        ),
        ("negative-binomial", [1, 2.5, 3], (), "p:2: the target 'y' is 2.5"),
        ("gamma", [1.5, 0, 2], (), "p:2: the target 'y' is 0, and gamma takes numbers above 0"),
        ("gaussian", ["a", "b", "c"], (), "gaussian takes numbers"),
        ("binomial", ["a", "b", "c"], (), "has 3 values and binomial takes two"),
        ("ordinal", ["a", "b", "c"], (), "--order a b c"),
        ("ordinal", ["a", "b", "c"], ("a", "b"), "'c', which is not among --order a b"),
        ("ordinal", ["a", "b", "b"], ("a", "b", "d"), "no row has the level 'd'"),
        ("multinomial", ["a", "b", "b"], (), "'a' of 'y' stands in 1 row, fewer than the 2 folds"),
        ("multinomial", [1, 1, 1], (), "is 1 in every row"),
    ],
)
def test_bad_targets_are_one_sentence(family, values, order, told):
    with pytest.raises(DataError) as caught:
        code_target(family, values, [f"p:{i + 1}" for i in range(3)], "y", order, 2)
    assert told in str(caught.value)


def test_classes_have_an_order():
    assert code_target("binomial", [10, 9, 10, 9], ["p"] * 4, "y", (), 2).classes == ("9", "10")
    coded = code_target("ordinal", ["lo", "hi"] * 2, ["p"] * 4, "y", ("lo", "hi"), 2)
    assert coded.y.tolist() == [0, 1, 0, 1]
    require_varied([1, 2], "y")
