"""`data build --hold-out`: the same document is always on the same side, and two stores appear."""

import hashlib
import json

import pytest

from blankfill.api.data import data_build
from blankfill.cli.main import main
from blankfill.data import ingest
from blankfill.data.store import TokenStore
from blankfill.disk.publish import NameLock
from blankfill.errors import DataError, OutputError
from conftest import small_corpus
from data.text_files import texts_of, write_lines


def held_out_by_the_law(texts, share):
    """The documented law, once more: SHA-256 of the text as a binary fraction."""
    return [t for t in texts if int(hashlib.sha256(t.encode()).hexdigest(), 16) / 2**256 < share]


def sides(files, tokenizer, out, share, **options):
    data_build(files, tokenizer=tokenizer, out=out, hold_out=share, **options)
    return texts_of(out), texts_of(out.with_name(out.name + "-held-out"))


def test_the_hash_of_a_text_decides_and_nothing_is_lost(tmp_path, tokenizer_folder):
    texts = small_corpus(400)
    path = write_lines(tmp_path / "a.jsonl", texts)
    training, held_out = sides([path], tokenizer_folder, tmp_path / "s", 0.1)
    assert held_out == held_out_by_the_law(texts, 0.1)
    assert training == [text for text in texts if text not in set(held_out)]
    assert 20 < len(held_out) < 60  # 40 expected, standard deviation 6
    assert len(training) + len(held_out) == 400
    for folder, side in (("s", "training"), ("s-held-out", "held-out")):
        store = TokenStore.open(tmp_path / folder)
        assert store.manifest["hold_out"] == {"share": 0.1, "side": side}
        assert (tmp_path / folder / "tokenizer").is_dir()


def test_order_files_neighbours_and_processes_change_no_side(
    tmp_path, tokenizer_folder, monkeypatch
):
    texts = small_corpus(300)
    whole = write_lines(tmp_path / "a.jsonl", texts)
    shards = [write_lines(tmp_path / f"{i}.jsonl", texts[::-1][i::3]) for i in range(3)]
    few = write_lines(tmp_path / "few.jsonl", texts[:100])
    first = sides([whole], tokenizer_folder, tmp_path / "s1", 0.2)
    monkeypatch.setattr(ingest, "PACKET_RECORDS", 20)
    second = sides(shards, tokenizer_folder, tmp_path / "s2", 0.2, num_workers=2)
    part = sides([few], tokenizer_folder, tmp_path / "s3", 0.2)
    larger = sides([few, few], tokenizer_folder, tmp_path / "s4", 0.4)
    assert list(map(sorted, first)) == list(map(sorted, second))
    assert set(part[1]) == set(first[1]) & set(texts[:100])
    assert set(part[1]) < set(larger[1])
    assert not set(larger[0]) & set(larger[1])


def test_a_question_is_on_one_side_whatever_its_answers_are(tmp_path, tokenizer_folder):
    path = tmp_path / "pairs.jsonl"
    records = [{"text": f"what is {i}?", "answer": f"it is {k}"} for i in range(60) for k in "ab"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    result = data_build(
        [path], tokenizer=tokenizer_folder, out=tmp_path / "s", hold_out=0.3, answer_field="answer"
    )
    assert result.held_out is not None
    assert result.held_out.pairs == 2 * len(
        held_out_by_the_law([f"what is {i}?" for i in range(60)], 0.3)
    )


def test_the_command_takes_a_percentage_and_names_both_stores(tmp_path, tokenizer_folder, capsys):
    path = write_lines(tmp_path / "a.jsonl", small_corpus(200))
    out = tmp_path / "s"
    words = ["data", "build", str(path), "--tokenizer", str(tokenizer_folder), "--out", str(out)]
    assert main([*words, "--hold-out", "10%"]) == 0
    said = capsys.readouterr().out
    count = len(held_out_by_the_law(small_corpus(200), 0.1))
    assert f"held out: {count} of 200 documents" in " ".join(said.split())
    assert f"{out}:" in said
    assert f"{out}-held-out:" in said
    assert main([*words, "--hold-out", "0.1", "--overwrite", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["held_out"]["documents"] == count
    assert result["held_out"]["path"] == f"{out}-held-out"


@pytest.mark.parametrize("share", ["1", "100%", "-1%", "nan", "nan%", "x%", "%", "1e-9"])
def test_a_share_that_is_none_is_refused_before_anything_is_read(
    share, tmp_path, tokenizer_folder, capsys
):
    words = ["data", "build", str(tmp_path / "missing"), "--tokenizer", str(tokenizer_folder)]
    assert main([*words, "--out", str(tmp_path / "s"), f"--hold-out={share}"]) == 2
    assert "hold" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_side_without_a_document_is_refused_and_nothing_is_left(tmp_path, tokenizer_folder):
    def fraction(text):
        return int(hashlib.sha256(text.encode()).hexdigest(), 16) / 2**256

    texts = sorted(small_corpus(40), key=fraction)[:4]
    path = write_lines(tmp_path / "a.jsonl", texts)
    lowest, highest = fraction(texts[0]), fraction(texts[-1])
    enough = f"{100 * lowest + 0.1:.1f}%"
    for share, said in (
        (lowest / 2, f"none of the 4 documents.*try --hold-out {enough}"),
        (highest + 1e-3, "all of the 4 documents"),
    ):
        with pytest.raises(DataError, match=said):
            data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "s", hold_out=share)
    one = write_lines(tmp_path / "one.jsonl", texts[:1])
    with pytest.raises(DataError, match="there is one document"):
        data_build([one], tokenizer=tokenizer_folder, out=tmp_path / "s", hold_out=0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "one.jsonl"]
    data_build(
        [path], tokenizer=tokenizer_folder, out=tmp_path / "s", hold_out=float(enough[:-1]) / 100
    )


def test_both_places_are_looked_at_before_work_begins(tmp_path, tokenizer_folder):
    path = write_lines(tmp_path / "a.jsonl", small_corpus(100))

    def build(**options):
        data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "s", hold_out=0.2, **options)

    second = tmp_path / "s-held-out"
    second.mkdir()
    (second / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="s-held-out"):
            build(overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "s-held-out"]
    assert [p.name for p in second.iterdir()] == ["notes.txt"]
    (second / "notes.txt").unlink()
    with NameLock(second), pytest.raises(OutputError, match="another process"):
        build()
    build()
    before = texts_of(second)
    with pytest.raises(OutputError, match="--overwrite"):
        build()
    build(overwrite=True)
    assert texts_of(second) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "s", "s-held-out"]


def test_a_place_that_is_taken_meanwhile_stays_and_both_stores_are_kept(
    tmp_path, tokenizer_folder, monkeypatch
):
    path = write_lines(tmp_path / "a.jsonl", small_corpus(100))
    read_records = ingest.read_records

    def taking(*args, **options):
        yield from read_records(*args, **options)
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "notes.txt").write_text("mine")

    monkeypatch.setattr(ingest, "read_records", taking)
    with pytest.raises(OutputError, match=r"complete in .*s-2"):
        data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "s", hold_out=0.2)
    assert (tmp_path / "s" / "notes.txt").read_text() == "mine"
    assert len(texts_of(tmp_path / "s-2")) + len(texts_of(tmp_path / "s-held-out")) == 100


def test_a_held_out_store_of_an_earlier_build_is_warned_of(tmp_path, tokenizer_folder, caplog):
    path = write_lines(tmp_path / "a.jsonl", small_corpus(100))
    data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "s", hold_out=0.2)
    assert "earlier build" not in caplog.text
    result = data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "s", overwrite=True)
    assert result.held_out is None
    assert "s-held-out stands from an earlier build" in caplog.text
