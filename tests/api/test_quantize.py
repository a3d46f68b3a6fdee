"""`blankfill quantize`: what it writes, where that opens, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch

import blankfill
from blankfill import api
from blankfill.cli.main import main
from blankfill.errors import BlankfillError, CheckpointError, ConfigError, ConversionError
from blankfill.interop import quantize as writing
from blankfill.model import quantized
from blankfill.runs import CheckpointState, newest_checkpoint, read_run, write_run, write_state
from blankfill.runs.record import StoreEntry
from blankfill.runs.tensors import load_tensors, write_tensors
from conftest import small_corpus
from interop.runs import ARCHITECTURES, make_run

TEXT = "the [MASK] fox reads books."
BITS = [8, 4]
ANY = {"max_loss_increase": 1000.0, "max_blanks": 3}
"""Of weights that nobody trained any loss is as good as another."""


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer_folder):
    home = tmp_path_factory.mktemp("held-out")
    (home / "text.txt").write_text("\n\n".join(small_corpus(40, seed=9)), encoding="utf-8")
    api.data_build(home / "text.txt", tokenizer=tokenizer_folder, out=home / "store")
    return home / "store"


@pytest.fixture(scope="module", autouse=True)
def short_timing():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blankfill.evaluate.quantized.TIMED_SECONDS", 1e-9)
        patch.setattr("blankfill.evaluate.quantized.TIMED_TOKENS", 1)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return make_run(tmp_path_factory.mktemp("run") / "run", tokenizer_folder, ffn_size=64)


@pytest.fixture(scope="module")
def small(tmp_path_factory, run, store):
    """The run in 8 and in 4 bits, and what the verb told of each."""
    home = tmp_path_factory.mktemp("small")
    told = {
        bits: api.quantize(run, bits=bits, out=home / str(bits), data=store, **ANY)
        for bits in BITS
    }  # fmt: skip
    return {bits: (home / str(bits), result) for bits, result in told.items()}


def changed(run, folder, change):
    """A copy of a run whose weights were changed."""
    shutil.copytree(run, folder)
    checkpoint = newest_checkpoint(folder).path
    tensors = load_tensors(checkpoint / "model.safetensors")
    tensors = {name: change(name, tensor.clone()) for name, tensor in tensors.items()}
    files = write_tensors(checkpoint, "model", tensors).files
    write_state(checkpoint, CheckpointState(step=0, files=files))
    return folder


@pytest.mark.parametrize("bits", BITS)
def test_it_tells_size_loss_and_speed_and_what_was_made_of_what(bits, small, run, store):
    folder, told = small[bits]
    file = newest_checkpoint(folder).path / "model.safetensors"
    whole = newest_checkpoint(run).path / "model.safetensors"
    assert told.num_bytes == (whole.stat().st_size, file.stat().st_size)
    tensors = load_tensors(whole)
    assert told.num_parameters == sum(tensor.numel() for tensor in tensors.values())
    assert told.float_bytes == 4 * told.num_parameters
    before, after = told.loss_nats
    assert told.loss_increase == pytest.approx(after / before - 1)
    assert told.loss_increase_error > 0
    assert [speed.batch for speed in told.speeds] == [1, 4, 32]
    assert all(speed.before > 0 and speed.after > 0 for speed in told.speeds)
    origin = read_run(folder).quantized
    assert (origin.run, origin.step, origin.bits, origin.weights) == (str(run), 0, bits, "last")
    for path, loss in ((run, before), (folder, after)):
        blanks = api.evaluate(path, data=store, baselines=False, max_blanks=3).runs[0].blanks
        answers = [language.scores[0] for language in blanks.languages]
        tokens = np.array([language.num_tokens for language in blanks.languages])
        nats = np.array([answer.loss_nats_per_token.value for answer in answers])
        assert (nats * tokens).sum() / tokens.sum() == pytest.approx(loss, rel=1e-5)
        (path / "evaluation.json").unlink()


@pytest.mark.parametrize("bits", BITS)
def test_every_verb_that_computes_without_training_opens_it(bits, small, capsys):
    folder = str(small[bits][0])
    for words in (
        ["fill", folder, TEXT, "--num-candidates", "2"], ["generate", folder, "the old"],
        ["score", folder, TEXT, "old"], ["rank", folder, TEXT, "old", "young"], ["info", folder],
    ):  # fmt: skip
        assert main(words) == 0, words
    assert f"to {bits} bits a weight, from step 0 of" in capsys.readouterr().out
    lm = blankfill.load(folder)
    assert f"weights in {bits} bits on cpu" in repr(lm)
    assert lm.fill(TEXT).blanks[0].probability > 0


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("words", [
    ["export", "RUN", "--to", "hf", "--out", "o"], ["import", "RUN", "--out", "o"],
    ["resize", "RUN", "--tokenizer", "TOK", "--out", "o"], ["pretrain", "--resume", "RUN"],
    ["pretrain", "tiny", "--data", "STORE", "--init", "RUN", "--out", "o"],
    ["quantize", "RUN", "--bits", "8", "--out", "o", "--data", "STORE"],
    ["quantize", "RUN", "--bits", "4", "--out", "o", "--data", "STORE"],
])  # fmt: skip
def test_what_takes_whole_weights_names_the_run_that_has_them(
    bits, words, small, run, store, tokenizer_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    known = {"RUN": str(small[bits][0]), "STORE": str(store), "TOK": str(tokenizer_folder)}
    words = [known.get(word, word) for word in words]
    if "--init" in words:  # the same model, so that nothing else stands in the way
        small_options = {"hidden-size": 32, "num-layers": 2, "num-heads": 2, "ffn-size": 64}
        words += [f"--model.{name}={value}" for name, value in small_options.items()]
    assert main(words) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"is quantised to {bits} bits" in told
    assert told.endswith(str(run))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_is_loaded_as_it_is_stored_and_in_no_other_type(dtype, small):
    with pytest.raises(CheckpointError, match=f"has no weights in {dtype}; take the run"):
        blankfill.load(small[8][0], dtype=dtype)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bits", BITS)
def test_every_architecture_is_quantised_and_a_neighbour_is_not_heard(
    architecture, bits, store, tokenizer_folder, tmp_path
):
    options = {"hidden_size": 64, "ffn_size": 96}
    whole = make_run(tmp_path / "run", tokenizer_folder, architecture, **options)
    api.quantize(whole, bits=bits, out=tmp_path / "o", data=store, **ANY)
    lm = blankfill.load(tmp_path / "o")
    texts = [TEXT, "a dog [MASK]", "\u4eba\u5c71[MASK]\u6c34\u706b", "the [MASK] [MASK] town"]
    together = lm.fill(texts, max_new_tokens=4)
    for text, among in zip(texts, together, strict=True):
        alone = lm.fill(text, max_new_tokens=4)
        assert alone.text == among.text
        for one, other in zip(alone.blanks, among.blanks, strict=True):
            assert one.probability == pytest.approx(other.probability, rel=1e-3)


def test_an_average_and_an_earlier_checkpoint_are_quantised_where_they_are_named(
    run, store, tmp_path
):
    both = tmp_path / "both"
    shutil.copytree(run, both)
    first = newest_checkpoint(both).path
    tensors = load_tensors(first / "model.safetensors")
    second = first.with_name("step-00000007")
    second.mkdir()
    halved = {name: tensor / 2 for name, tensor in tensors.items()}
    files = write_tensors(second, "model", halved).files
    files |= write_tensors(second, "ema", tensors).files
    write_state(second, CheckpointState(step=7, files=files))
    found = {}
    for name, options in {
        "last": {}, "ema": {"weights": "ema"}, "first": {"checkpoint": 0},
    }.items():  # fmt: skip
        told = api.quantize(both, bits=8, out=tmp_path / name, data=store, **options, **ANY)
        checkpoint = newest_checkpoint(tmp_path / name)
        assert told.step == checkpoint.step == (0 if name == "first" else 7)
        found[name] = load_tensors(checkpoint.path / "model.safetensors")
    codes = found["last"]["embed.word.weight.scales"] * 2
    assert torch.allclose(codes, found["ema"]["embed.word.weight.scales"])
    assert all(torch.equal(found["ema"][name], found["first"][name]) for name in found["ema"])
    assert read_run(tmp_path / "ema").quantized.weights == "ema"


def test_it_takes_what_the_run_was_validated_on(run, store, tmp_path):
    validated = tmp_path / "run"
    shutil.copytree(run, validated)
    record = read_run(run)
    entry = StoreEntry(path=str(store), fingerprint="", documents=1, tokens=1)
    write_run(validated, replaced(record, validation=(entry,)))
    assert api.quantize(validated, bits=8, out=tmp_path / "o", **ANY).num_blanks >= 3
    gone = StoreEntry(path=str(tmp_path / "gone"), fingerprint="", documents=1, tokens=1)
    write_run(validated, replaced(record, validation=(gone,)))
    with pytest.raises(ConfigError, match=r"validated on cannot be read .*gone.*: --data"):
        api.quantize(validated, bits=8, out=tmp_path / "p", **ANY)


def replaced(record, **fields):
    import dataclasses

    return dataclasses.replace(record, **fields)


def refused(kind, match, folder, *args, **options):
    """A refusal that leaves nothing behind."""
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(kind, match=match) as caught:
        api.quantize(*args, **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_without_held_out_text_it_says_what_to_give(run, tmp_path):
    refused(ConfigError, "was not validated .*: --data", tmp_path, run, bits=8, out=tmp_path / "o")


def test_a_folder_that_is_taken_is_left_alone(run, store, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").write_text("a user's")
    refused(
        BlankfillError, "already holds", tmp_path, run, bits=8, out=tmp_path / "o", data=store,
    )  # fmt: skip
    assert (tmp_path / "o" / "mine").read_text() == "a user's"


@pytest.mark.parametrize("name", ["embed.word.weight", "blocks.1.mlp.down.weight", "norm.bias"])
def test_weights_that_are_no_numbers_are_named(name, run, store, tmp_path):
    def change(each, tensor):
        if each == name:
            tensor.view(-1)[3] = float("nan")
        return tensor

    odd = changed(run, tmp_path / "run", change)
    refused(
        CheckpointError, f"not finite in {name}", tmp_path, odd, bits=8, out=tmp_path / "o",
        data=store,
    )  # fmt: skip


def test_rows_that_are_no_whole_groups_are_named_before_anything_is_read(
    store, tokenizer_folder, tmp_path
):
    odd = make_run(tmp_path / "run", tokenizer_folder, hidden_size=48, num_heads=2)
    newest_checkpoint(odd).path.joinpath("model.safetensors").chmod(0)
    match = r"bits=4 .* groups of 32, .* embed\.word\.weight have 48, .*take bits=8"
    refused(ConfigError, match, tmp_path, odd, bits=4, out=tmp_path / "o", data=store)
    newest = newest_checkpoint(odd).path.joinpath("model.safetensors")
    newest.chmod(0o600)
    assert api.quantize(odd, bits=8, out=tmp_path / "o", data=store, **ANY).bits == 8


def test_a_loss_that_rises_too_much_leaves_nothing(run, store, tmp_path, monkeypatch, capsys):
    real = quantized._to_8

    def sharper(weights):
        codes, scales = real(weights)
        return codes, 4 * scales

    monkeypatch.setattr(quantized, "_to_8", sharper)
    match = r"in 8 bits the loss of .* rises by .*max_loss_increase=0\.05 allows 5 %; nothing"
    refused(
        ConversionError, match, tmp_path, run, bits=8, out=tmp_path / "o", data=store,
        max_blanks=3,
    )  # fmt: skip
    words = [str(run), "--bits", "8", "--out", str(tmp_path / "o"), "--data", str(store)]
    assert main(["quantize", *words, "--max-blanks", "3", "--max-loss-increase", "1%"]) == 2
    assert "max_loss_increase=0.01" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_larger_than_told_leaves_nothing(run, store, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "HEADER_BYTES_PER_TENSOR", 1)
    refused(
        ConversionError, "should take .* at most, and took", tmp_path, run, bits=8,
        out=tmp_path / "o", data=store, **ANY,
    )  # fmt: skip


def test_a_run_that_would_not_be_smaller_is_refused_before_it_is_read(
    store, tokenizer_folder, tmp_path
):
    # Of a model in 16 bits whose rows have four numbers, scales and biases are most.
    thin = make_run(
        tmp_path / "thin", tokenizer_folder, "post-ln", hidden_size=4, ffn_size=4, num_layers=1
    )
    half = changed(thin, tmp_path / "half", lambda _, tensor: tensor.bfloat16())
    match = "would not be smaller in 8 bits"
    refused(ConversionError, match, tmp_path, half, bits=8, out=tmp_path / "o", data=store)


@pytest.mark.parametrize("word", ["16", "7", "0", "-8", "eight", "8.0", "", "None"])
def test_bits_are_8_or_4(word, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", str(run), "--bits", word, "--out", "o"]) == 2
    told = capsys.readouterr().err.strip()
    assert "--bits" in told
    assert "8, 4" in told
    assert "\n" not in told


def test_what_was_written_is_verified_when_it_is_opened(small, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(small[4][0], damaged)
    file = newest_checkpoint(damaged).path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        blankfill.load(damaged)
    told = json.loads((damaged / "run.json").read_text(encoding="utf-8"))
    told["quantized"]["bits"] = 8
    shutil.copytree(small[4][0], tmp_path / "other")
    (tmp_path / "other" / "run.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(CheckpointError, match="restore the file that was changed"):
        blankfill.load(tmp_path / "other")
