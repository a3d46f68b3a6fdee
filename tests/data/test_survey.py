"""What a text is, found by reading it: counts, what is held out, and what tells it from another."""

import gzip
import json
import os

import pytest

from blankfill.data.hold_out import fraction_of
from blankfill.data.survey import stamp_of_files, survey_text
from blankfill.errors import DataError
from blankfill.text.options import TextOptions

TEXTS = ["the old fox", "另一个文件。", "a river\nand a town", "one more", "the last one"]


def survey(*files, hold_out=0.5, text_field="text"):
    options = TextOptions(text_field=text_field)
    return survey_text(list(files), options, hold_out=hold_out)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS), encoding="utf-8")
    return path


def test_counts_are_those_of_the_documents(lines):
    found = survey(lines)
    assert found.documents == {"en": 4, "zh": 1}
    assert found.bytes == {
        "en": sum(len(t) for t in TEXTS) - len(TEXTS[1]), "zh": len(TEXTS[1].encode())
    }  # fmt: skip
    held = [t for t in TEXTS if fraction_of(t) < 0.5]
    assert sum(found.held_out.values()) == len(held)
    assert found.held_out_bytes == sum(len(t.encode()) for t in held)
    assert found.lowest_fraction == min(map(fraction_of, TEXTS))
    assert found.highest_fraction == max(map(fraction_of, TEXTS))


def test_the_fingerprint_is_of_the_documents_and_not_of_their_files(lines, tmp_path):
    first = survey(lines)
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    second = survey(packed)
    assert first.fingerprint == second.fingerprint
    assert first.stamp != second.stamp
    with lines.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "new"}) + "\n")
    assert survey(lines).fingerprint != first.fingerprint


@pytest.mark.parametrize("order", [["ab", "c"], ["a", "bc"], ["c", "ab"]])
def test_other_documents_of_the_same_characters_are_another_text(order, tmp_path):
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text("".join(json.dumps({"text": t}) + "\n" for t in ["abc"]))
    second.write_text("".join(json.dumps({"text": t}) + "\n" for t in order))
    assert survey(first).fingerprint != survey(second).fingerprint


def test_the_stamp_changes_with_names_sizes_and_times(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text")
    stamps = [stamp_of_files([tmp_path])]
    os.utime(path, ns=(0, 0))
    stamps.append(stamp_of_files([tmp_path]))
    path.write_text("text more")
    os.utime(path, ns=(0, 0))
    stamps.append(stamp_of_files([tmp_path]))
    path.rename(tmp_path / "b.txt")
    stamps.append(stamp_of_files([tmp_path]))
    assert len(set(stamps)) == 4
    assert stamp_of_files([str(tmp_path)]) == stamps[-1]


def test_an_alphabet_is_what_makes_up_its_share(tmp_path):
    (tmp_path / "a.txt").write_text("aaaa bbb\n cc d", encoding="utf-8")
    found = survey(tmp_path)
    assert [found.alphabet(share) for share in (0.0, 0.4, 0.41, 0.9, 0.91, 1.0)] == [
        0, 1, 2, 3, 4, 4
    ]  # fmt: skip


def test_what_cannot_be_used_is_counted(lines, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": 3}\n{"text": ""}\n')
    found = survey(tmp_path)
    assert sum(found.skipped.values()) == len(found.first_skipped) == 2
    assert found.num_documents == 5


def test_what_can_be_read_once_only_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="one time only"):
        survey("-")
    with pytest.raises(DataError, match=r"pipe\.txt is a pipe"):
        survey(tmp_path / "pipe.txt")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_text_is_one_sentence(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=name):
        survey(tmp_path / name)
