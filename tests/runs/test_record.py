import dataclasses
import json

import pytest

from blankfill.cli.main import main
from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.errors import CheckpointError
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.runs import newest_checkpoint, read_run, save_checkpoint, write_run
from blankfill.runs.made_with import Hardware, Software
from blankfill.runs.record import (
    ChangeEntry,
    ImportedFrom,
    InitEntry,
    MixtureEntry,
    QuantizedFrom,
    ResizedFrom,
    StoreEntry,
    TokenizerEntry,
)
from blankfill.text.tokenizer import Tokenizer, copy_tokenizer
from conftest import run_record

CFG = RunConfig(
    model=ModelConfig(vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, ffn_size=48),
    train=TrainConfig(row_length=128),
)
EVERYTHING = {
    "tokenizer": TokenizerEntry(fingerprint="t"),
    "data": (StoreEntry(path="/a", fingerprint="f", documents=3, tokens=7, share=0.25),),
    "validation": (StoreEntry(path="/v\udce9", fingerprint="g", documents=1, tokens=2),),
    "hardware": dataclasses.replace(
        Hardware.here("cuda, x"), peak_flops_per_second=10**15, peak_source="measured"
    ),
    "software": Software.here(),
    "attention": "blocks", "compiled": False, "precision": "bfloat16",
    "threads": 2, "process": {"OMP_NUM_THREADS": "2"}, "preset": "tiny", "validation_every": 200,
    "mixtures": (MixtureEntry(row=0, shares=(0.5, 0.5)), MixtureEntry(row=9, shares=(0.1, 0.9))),
    "init": InitEntry(path="/i", step=3, fingerprint="h"),
    "imported": ImportedFrom(source="/s", layout="glm-hf", preset="", checksum="c"),
    "resized": ResizedFrom(run="/r", step=1, tokenizer="u", num_kept=4, num_from_file=0),
    "quantized": QuantizedFrom(run="/q", step=2, weights="ema", bits=4),
    "changes": (ChangeEntry(step=5, values={"train.steps": 9, "shares": [0.1, 0.9]}),),
}  # fmt: skip


@pytest.mark.parametrize("fields", [{}, EVERYTHING], ids=["least", "everything"])
def test_a_record_comes_back_as_it_was_written(tmp_path, fields):
    record = run_record(CFG, **fields)
    write_run(tmp_path, record)
    assert read_run(tmp_path) == record


def test_every_field_of_a_record_is_tried():
    names = {field.name for field in dataclasses.fields(run_record(CFG))}
    assert names == {"config", "started", *EVERYTHING}


def test_a_folder_without_run_json_is_not_a_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a run: it has no run\.json"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"version": 99})])
def test_a_damaged_run_json_is_one_sentence(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        read_run(tmp_path)


def leaves(value, path=()):
    """Every place of a value: the objects and lists themselves, and what they hold."""
    if path:
        yield path
    if isinstance(value, dict) and path[-1:] != ("values",):  # of a change, which may be anything
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list) and "values" not in path:
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i))


def changed(value, path, new):
    value = json.loads(json.dumps(value))
    at = value
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = new
    return value


def test_a_value_of_another_type_anywhere_is_named(tmp_path):
    write_run(tmp_path, run_record(CFG, **EVERYTHING))
    good = json.loads((tmp_path / "run.json").read_text())
    tried = 0
    for path in leaves({name: good[name] for name in EVERYTHING}):
        name = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)[1:]
        held = good
        for step in path:
            held = held[step]
        wrong = [7] if isinstance(held, dict | str) else {"x": 7}
        (tmp_path / "run.json").write_text(json.dumps(changed(good, path, wrong)))
        with pytest.raises(CheckpointError) as caught:
            read_run(tmp_path)
        assert f"its '{name}' is " in str(caught.value), path
        tried += 1
    assert tried > 50


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("started",), "its 'started' is null"),
        (("config",), "its 'config' is null"),
        (("config", "train"), "its 'config.train' is null"),
        (("data", 0, "tokens"), r"its 'data\[0\]\.tokens' is null"),
        (("hardware", "cores"), r"its 'hardware\.cores' is null"),
    ],
)
def test_a_field_that_has_to_be_there_is_missed(tmp_path, path, words):
    write_run(tmp_path, run_record(CFG, **EVERYTHING))
    good = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(changed(good, path, None)))
    with pytest.raises(CheckpointError, match=words):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("model", {"num_layers": "two"}, r"config\.model\.num_layers='two'"),
        ("model", {"colour": 1}, r"config\.model\.colour"),
        ("model", {"num_layers": 0}, "num_layers=0"),
        ("train", 7, r"its 'config\.train' is a whole number"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_sentence(tmp_path, section, value, words):
    write_run(tmp_path, run_record(CFG))
    good = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(changed(good, ("config", section), value)))
    with pytest.raises(CheckpointError, match=words):
        read_run(tmp_path)


EARLIER = "was written by an earlier blankfill, in format 1 "


def make_run(run, tokenizer_folder):
    tokenizer = Tokenizer.load(tokenizer_folder)
    model = GLM(CFG.model)
    init_weights(model, 0)
    run.mkdir()
    copy_tokenizer(tokenizer_folder, run / "tokenizer")
    write_run(run, run_record(CFG, tokenizer))
    save_checkpoint(run, 1, {"model": model.state_dict(), "optimizer": {}}, keep=1)


def as_of_format_1(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))


@pytest.mark.parametrize(
    "words",
    [
        "info RUN", "fill RUN hello[MASK]", "report RUN --out OUT", "import RUN --out OUT",
        "export RUN --to hf --out OUT", "resize RUN --tokenizer TOK --out OUT",
        "evaluate RUN --data STORE", "pretrain tiny --data STORE --out RUN --resume",
        "pretrain tiny --data STORE --out OUT --init RUN",
    ],
)  # fmt: skip
def test_a_run_of_an_earlier_format_is_refused_by_every_verb_and_left_as_it_is(
    words, tokenizer_folder, tmp_path, capsys
):
    (tmp_path / "text.txt").write_text("the old fox reads a book.\n\nthe dog brings water.")
    names = {"RUN": "run", "OUT": "out", "TOK": "tok", "STORE": "store"}
    paths = {word: str(tmp_path / name) for word, name in names.items()}
    copy_tokenizer(tokenizer_folder, tmp_path / "tok")
    store = ["--tokenizer", paths["TOK"], "--out", paths["STORE"]]
    assert main(["data", "build", str(tmp_path / "text.txt"), *store]) == 0
    make_run(tmp_path / "run", tokenizer_folder)
    as_of_format_1(tmp_path / "run" / "run.json")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([paths.get(word, word) for word in words.split()]) == 2
    err = capsys.readouterr().err
    assert f"run.json {EARLIER}" in err
    assert "train the run again, or use the blankfill that wrote it" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert after == before


def test_a_checkpoint_of_an_earlier_format_is_not_taken_for_a_damaged_one(
    tokenizer_folder, tmp_path
):
    make_run(tmp_path / "run", tokenizer_folder)
    as_of_format_1(tmp_path / "run" / "checkpoints" / "step-00000001" / "state.json")
    with pytest.raises(CheckpointError, match=f"state.json {EARLIER}"):
        newest_checkpoint(tmp_path / "run")
