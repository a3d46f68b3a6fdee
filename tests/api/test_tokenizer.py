import io
import json
from dataclasses import asdict

import pytest

from blankfill.api.tokenizer import (
    tokenizer_decode,
    tokenizer_encode,
    tokenizer_info,
    tokenizer_train,
)
from blankfill.cli.main import main
from blankfill.errors import DataError, RequestError


@pytest.fixture
def stdin(monkeypatch):
    def give(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


def test_train_reads_stdin_and_its_result_is_json(tmp_path, stdin):
    stdin(b'{"text": "some words and some more words"}\n' * 50)
    report = tokenizer_train(["-"], out=tmp_path / "tok", vocab_size=292)
    assert report.num_documents == {"en": 50}
    assert json.loads(json.dumps(asdict(report)))["vocab_size"] == 292


def test_decode_undoes_encode(tokenizer_folder):
    result = tokenizer_encode(tokenizer_folder, " the  fox\n\u4eba\u5c71 [MASK]")
    assert tokenizer_decode(tokenizer_folder, list(map(str, result.ids))).text == (
        " the  fox\n\u4eba\u5c71 [MASK]"
    )
    assert len(result.tokens) == len(result.ids)
    assert "[MASK]" not in result.tokens
    assert "[MASK]" in tokenizer_encode(tokenizer_folder, "the [MASK]", blanks=True).tokens


def test_a_dash_reads_the_text_and_the_ids_from_stdin(tokenizer_folder, stdin):
    stdin("the fox\r\n\u4eba".encode())
    ids = tokenizer_encode(tokenizer_folder, "-").ids
    stdin(", ".join(map(str, ids)).encode())
    assert tokenizer_decode(tokenizer_folder, ["-"]).text == "the fox\r\n\u4eba"
    stdin(b"\xff")
    with pytest.raises(RequestError, match="UTF-8"):
        tokenizer_encode(tokenizer_folder, "-")


@pytest.mark.parametrize("ids", [["1", "x"], ["99999"], ["-3"]])
def test_ids_that_are_none_are_named(tokenizer_folder, ids):
    with pytest.raises(DataError, match=ids[-1]):
        tokenizer_decode(tokenizer_folder, ids)


def test_info_counts_every_piece_once_and_measures_files(tokenizer_folder):
    info = tokenizer_info(tokenizer_folder, [str(tokenizer_folder.parent / "corpus.txt")])
    assert sum(info.pieces.values()) == info.vocab_size
    assert info.pieces["byte"] == 256
    assert info.pieces["special"] == 9
    assert info.pieces["Han"] >= 16
    (rate,) = info.languages.values()
    assert rate.exact == rate.documents == 1
    assert rate.characters_per_token == rate.characters / rate.tokens


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_verbs_answer_on_stdout(tokenizer_folder, capsys, options):
    tok, corpus = str(tokenizer_folder), str(tokenizer_folder.parent / "corpus.txt")
    commands = [
        ["tokenizer", "info", tok, corpus],
        ["tokenizer", "encode", tok, "the fox"],
        ["tokenizer", "decode", tok, "300", "301"],
        ["info", tok],
    ]
    for command in commands:
        assert main([*command, *options]) == 0
        out = capsys.readouterr().out
        assert out.strip()
        if options:
            assert isinstance(json.loads(out), dict)


def test_decoded_text_is_printed_as_it_is(tokenizer_folder, capsys):
    text = "a\r\n\tb  c\x0c\u2028[bold]"
    ids = tokenizer_encode(tokenizer_folder, text).ids
    assert main(["tokenizer", "decode", str(tokenizer_folder), *map(str, ids)]) == 0
    assert capsys.readouterr().out == text + "\n"


def test_training_by_command_names_what_was_skipped(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "some words and more"}\n' * 30 + "{}\n")
    command = ["tokenizer", "train", str(tmp_path / "a.jsonl"), "--vocab-size", "292"]
    assert main([*command, "--out", str(tmp_path / "tok")]) == 0
    assert "a.jsonl:31: the field 'text' is missing" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "tok2"), "--strict"]) == 2
    assert not (tmp_path / "tok2").exists()
