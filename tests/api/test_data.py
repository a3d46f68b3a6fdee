import json
from dataclasses import asdict

import pytest

from blankfill.api.data import data_build, data_info, data_show
from blankfill.cli.main import main
from blankfill.errors import ConfigError, DataError
from conftest import small_corpus

TEXTS = small_corpus(30)


@pytest.fixture
def store(tmp_path, tokenizer_folder):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "store")
    return tmp_path / "store"


def test_build_tells_what_the_store_holds(tmp_path, tokenizer_folder, store):
    result = data_build([tmp_path / "a.jsonl"], tokenizer=tokenizer_folder, out=tmp_path / "s2")
    assert result.store.documents == 30
    assert result.store.fingerprint == data_info(store, verify=True).fingerprint
    assert json.loads(json.dumps(asdict(result)))["store"]["languages"]["zh"]["documents"] == 15


def test_show_gives_documents_back_as_text(store, tokenizer_folder):
    shown = data_show(store, index=3, count=5).documents
    assert [(d.index, d.text) for d in shown] == list(enumerate(TEXTS))[3:8]
    assert data_show(store, index=29, count=9).documents[0].text == TEXTS[29]
    assert data_show(store, tokenizer=tokenizer_folder).documents[0].text == TEXTS[0]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"index": 30}, DataError), ({"index": -1}, ConfigError), ({"count": 0}, ConfigError)],
)
def test_documents_that_are_not_there_are_refused(store, options, error):
    with pytest.raises(error, match=str(next(iter(options.values())))):
        data_show(store, **options)


def test_another_tokenizer_is_refused(store, tmp_path):
    from blankfill.api.tokenizer import tokenizer_train

    tokenizer_train([tmp_path / "a.jsonl"], out=tmp_path / "tok", vocab_size=340)
    with pytest.raises(DataError, match="another tokenizer"):
        data_show(store, tokenizer=tmp_path / "tok")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_verbs_answer_on_stdout(store, tmp_path, tokenizer_folder, capsys, options):
    build = ["data", "build", str(tmp_path / "a.jsonl"), "--tokenizer", str(tokenizer_folder)]
    commands = [
        [*build, "--out", str(tmp_path / "new")],
        ["data", "info", str(store)],
        ["data", "show", str(store), "--index", "2"],
        ["info", str(store)],
    ]
    for command in commands:
        assert main([*command, *options]) == 0
        out = capsys.readouterr().out
        assert out.strip()
        if options:
            assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize(
    "command",
    [
        ["data", "build", "nowhere.txt", "--tokenizer", "TOK", "--out", "OUT"],
        ["data", "build", "FILE", "--tokenizer", "nowhere", "--out", "OUT"],
        ["data", "build", "FILE", "--tokenizer", "TOK", "--out", "STORE"],
        ["data", "build", "FILE", "--tokenizer", "TOK", "--out", "OUT", "--text-field", "body"],
        ["data", "build", "FILE", "--tokenizer", "TOK", "--out", "OUT", "--num-workers", "-1"],
        ["data", "info", "nowhere"],
        ["data", "show", "STORE", "--index", "1000"],
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(store, tmp_path, tokenizer_folder, capsys, command):
    names = {
        "TOK": tokenizer_folder, "FILE": tmp_path / "a.jsonl", "STORE": store,
        "OUT": tmp_path / "out",
    }  # fmt: skip
    assert main([str(names.get(word, word)) for word in command]) == 2
    said = capsys.readouterr().err
    assert said.startswith("blankfill: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
