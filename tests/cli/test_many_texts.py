"""Texts without end: from stdin or files, in order, some at a time, and on after a stop."""

import gzip
import io
import json
import os
import sys
import threading

import pytest

import blankfill
from blankfill import api
from blankfill.cli.main import main
from blankfill.errors import BlankfillError, OutputError
from blankfill.generate import infill
from blankfill.text import line_texts
from blankfill.text.line_texts import lines_of_files
from interop.runs import make_run

TEXTS = [f"the {n} [MASK] reads" for n in range(7)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return str(make_run(tmp_path_factory.mktemp("many") / "run", tokenizer_folder))


@pytest.fixture(scope="module")
def answers(run):
    """What the model says of each text."""
    items = blankfill.load(run).fill(TEXTS, max_new_tokens=3)
    return said([item.to_dict() for item in items])


def read_answers(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(answers):
    """What was answered, without the last digits of probabilities, which the batch decides."""
    return [
        (each["prompt"], each["text"], [blank["tokens"] for blank in each["blanks"]])
        for each in answers
    ]


def fill(run, *words):
    return main(["fill", run, "--max-new-tokens=3", *map(str, words)])


def stdin_of(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture
def few(monkeypatch):
    """Two texts at a time."""
    monkeypatch.setattr(line_texts, "MOST_TEXTS", 2)
    monkeypatch.setattr("blankfill.api.answers.MOST_TEXTS", 2)


def test_a_file_of_texts_becomes_a_file_of_answers_in_order(run, answers, few, tmp_path, capsys):
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(TEXTS).encode())
    out = tmp_path / "new" / "answers.jsonl"
    assert fill(run, "--files", tmp_path / "texts.txt", "--out", out) == 0
    assert f"7 answers are in {out}" in capsys.readouterr().out
    lines = read_answers(out)
    assert said(lines) == answers
    assert {(line["run"], line["step"]) for line in lines} == {(run, 0)}
    assert lines[0]["options"] == {"max_new_tokens": 3}
    assert [path.name for path in out.parent.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("cut", [0, 1, 60, 200, 401, 100_000])
def test_a_stopped_call_goes_on_after_its_last_whole_line(
    cut, run, answers, few, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "answers.jsonl"
    assert fill(run, "--out", out, "--", *TEXTS) == 0
    whole = out.read_bytes()
    out.write_bytes(whole[: min(cut, len(whole) - 1)])
    kept = out.read_bytes().count(b"\n")
    asked = []
    fill_texts = infill.fill_texts

    def ask(lm, texts, **options):
        asked.extend(texts)
        return fill_texts(lm, texts, **options)

    monkeypatch.setattr("blankfill.generate.fill_texts", ask)
    capsys.readouterr()
    assert fill(run, "--out", out, "--", *TEXTS) == 0
    assert said(read_answers(out)) == answers
    assert out.read_bytes().startswith(whole[: whole.rfind(b"\n", 0, cut) + 1])
    assert asked == TEXTS[kept:]
    assert (f"{kept} of them by an earlier call" in capsys.readouterr().out) == (kept > 0)
    assert fill(run, "--out", out, "--", *TEXTS, "the last [MASK]") == 0
    assert said(read_answers(out))[:7] == answers
    assert len(read_answers(out)) == 8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--temperature", "1", "--", *TEXTS], "with the options {}"),
        (["--", "another [MASK]", *TEXTS[1:]], "line 1 of OUT answers another text"),
        (["--", *TEXTS[:3]], "more answers than there are texts, 3"),
    ],
)
def test_answers_to_something_else_stay_as_they_are(words, told, run, tmp_path, capsys):
    out = tmp_path / "answers.jsonl"
    assert main(["fill", run, "--out", str(out), "--", *TEXTS[:5]]) == 0
    before = out.read_bytes()
    assert main(["fill", run, "--out", str(out), *words]) == 2
    assert told.replace("OUT", str(out)) in capsys.readouterr().err
    assert out.read_bytes() == before


def test_another_model_s_answers_stay_as_they_are(run, tmp_path, tokenizer_folder):
    out = tmp_path / "answers.jsonl"
    api.fill(run, TEXTS, out=out)
    other = make_run(tmp_path / "other", tokenizer_folder)
    with pytest.raises(OutputError, match=f"was answered by {run}, step 0"):
        api.fill(other, TEXTS, out=out)


@pytest.mark.parametrize(
    "held", [b"a user's notes\n", b"notes without an end", b'{"a": 1}\n', b"[]\n"]
)
def test_a_file_that_is_not_ours_is_never_written(held, run, tmp_path, monkeypatch):
    monkeypatch.setattr("blankfill.generate.language_model.load_weights", None)
    (tmp_path / "notes").write_bytes(held)
    with pytest.raises(OutputError, match="is not a file of answers"):
        api.fill(run, TEXTS, out=tmp_path / "notes")
    assert (tmp_path / "notes").read_bytes() == held
    with pytest.raises(OutputError, match="is a folder"):
        api.fill(run, TEXTS, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_nothing_is_left_where_nothing_was_answered(run, tmp_path):
    with pytest.raises(BlankfillError, match="no blank"):
        api.fill(run, "no blank", out=tmp_path / "deep" / "answers.jsonl")
    with pytest.raises(BlankfillError, match="no-run"):
        api.fill("no-run", TEXTS, out=tmp_path / "deep" / "answers.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_one_bad_text_is_told_in_its_own_answer_and_the_others_go_on(run, tmp_path, few, capsys):
    lines = ['"the [MASK]"', '{"text": "a\\n[MASK]"}', "{broken", '{"text": 3}', '"no blank"',
             '"' + "x " * 300 + '[MASK]"', '"\\ud800 [MASK]"', '{"text": "last [MASK]", "n": 1}',
             "[" * 100_000]  # fmt: skip
    data = "\n".join(lines).encode() + b"\n\xff\xfe [MASK]\n"
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(data))
    out = tmp_path / "answers.jsonl"
    assert fill(run, "--files", tmp_path / "t.jsonl.gz", "--out", out) == 2
    assert "10 answers" in capsys.readouterr().out
    found = read_answers(out)
    errors = [line["error"] and line["error"].split("; ")[0].split(": ", 1)[1] for line in found]
    assert errors == [
        None, None, "it is not JSON", "it has no text", "the text has no blank",
        "the text has 600 tokens and this model reads 128",
        "the text is not valid Unicode at character 0", None, "it is not JSON",
        "it is not UTF-8 at byte 0",
    ]  # fmt: skip
    assert found[2]["error"].startswith("line 3: ")
    assert found[6]["prompt"] == "\ud800 [MASK]"
    assert [bool(line["text"]) for line in found] == [error is None for error in errors]
    assert (
        fill(run, "--files", tmp_path / "t.jsonl.gz", "--out", out) == 0
    )  # all of them stand there


def test_stdin_is_answered_as_it_arrives(run, answers, monkeypatch):
    """A program that writes a line and waits gets its answer before it writes the next."""
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(open(read, "rb")))  # noqa: SIM115
    found, each = [], threading.Semaphore(0)

    def keep(part):
        found.extend(part.items)
        each.release()

    def type_lines():
        with open(write, "wb", buffering=0) as pipe:
            for text in TEXTS:
                pipe.write(text.encode() + b"\n")
                assert each.acquire(timeout=60)

    typist = threading.Thread(target=type_lines)
    typist.start()
    result = api.fill(run, "-", max_new_tokens=3, each=keep)
    typist.join()
    sys.stdin.close()
    assert said([item.to_dict() for item in found]) == answers
    assert (result.items, result.num_texts, result.num_errors) == ((), 7, 0)


def test_memory_is_bounded_however_many_texts_there_are(run, monkeypatch, few):
    most = []

    def ask(lm, texts, **_):
        most.append(len(texts))
        return [infill.FilledItem(prompt=text, text=text, blanks=()) for text in texts]

    monkeypatch.setattr("blankfill.generate.fill_texts", ask)

    class Endless(io.RawIOBase):
        sent = 0

        def readable(self):
            return True

        def read1(self, size):
            self.sent += 1
            return b"a [MASK]\n" * 5 if self.sent <= 300 else b""

    class Stdin:
        buffer = Endless()

    monkeypatch.setattr(sys, "stdin", Stdin())
    parts = []
    result = api.fill(run, "-", each=lambda part: parts.append(len(part.items)))
    assert result.num_texts == sum(parts) == 1500
    assert max(most) == 2


def test_an_answer_of_many_parts_is_one_json_object(run, answers, few, monkeypatch, capsys):
    stdin_of(monkeypatch, "\n".join(TEXTS).encode())
    assert fill(run, "-", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert said(printed["items"]) == answers
    assert (printed["run"], printed["num_texts"], printed["num_errors"]) == (run, 7, 0)
    stdin_of(monkeypatch, b"\xff\n\n")
    assert fill(run, "-", "--json") == 2
    assert "not UTF-8" in json.loads(capsys.readouterr().out)["items"][0]["error"]


def test_files_follow_each_other_and_their_lines_have_names(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo")
    (tmp_path / "b.txt").write_bytes(b"three\n\xff\n")
    files, chunks = lines_of_files([tmp_path / "a.txt", tmp_path / "b.txt"])
    texts = [text for chunk in chunks for text in chunk]
    assert [text.text for text in texts] == ["one", "two", "three", "\ufffd"]
    assert texts[2].place == f"{tmp_path / 'b.txt'}, line 1"
    assert texts[3].error.startswith("it is not UTF-8")
    assert [file.num_texts for file in files] == [2, 2]


def test_a_line_without_end_is_told_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(line_texts, "LONGEST_LINE", 100)
    (tmp_path / "a.txt").write_bytes(b"short\n" + b"x" * 10**7 + b"\nlast")
    _, chunks = lines_of_files([tmp_path / "a.txt"])
    texts = [text for chunk in chunks for text in chunk]
    assert [text.place for text in texts] == ["line 1", "line 2", "line 3"]
    assert "longer than 100 bytes" in texts[1].error
    assert (texts[1].text, texts[2].text) == ("", "last")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--files", "missing"], "missing: cannot be read"),
        (["--files", "."], "is a folder"),
        (["a [MASK]", "--files", "t"], "both given"),
        (["--files", "empty"], "hold no text"),
        (["--files", "damaged.gz"], "damaged"),
        ([], "lacks TEXT..."),
    ],
)
def test_files_that_cannot_be_used_are_told(words, told, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").write_text("a [MASK]")
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "damaged.gz").write_bytes(gzip.compress(b"a [MASK]\n" * 1000)[:-20])
    assert main(["fill", run, *words]) == 2
    said_all = capsys.readouterr().err
    assert told in said_all
    assert said_all.count("blankfill: ") == 1


def test_generate_takes_and_writes_files_too(run, tmp_path):
    (tmp_path / "t.txt").write_text("the old\nthe [gMASK]\n")
    out = tmp_path / "o"
    result = api.generate(run, files=tmp_path / "t.txt", out=out, max_new_tokens=3)
    assert (result.num_texts, result.num_found, result.items) == (2, 0, ())
    assert [line["prompt"] for line in read_answers(out)] == ["the old", "the [gMASK]"]
    again = api.generate(run, files=tmp_path / "t.txt", out=out, max_new_tokens=3)
    assert (again.num_texts, again.num_found, again.exit_code) == (0, 2, 0)
