"""Runs with the vocabulary of a published model, or with none, go to every layout."""

import functools
import importlib.util
import json
import os
import stat
import sys

import pytest

from blankfill.api import export
from blankfill.api import import_ as import_model
from blankfill.cli.main import main
from blankfill.errors import DataError
from blankfill.interop import export as exports
from blankfill.interop.export_hf import CODE_FILES, TOKENIZER_FILES
from blankfill.interop.export_parity import compare
from interop.foreign import draw, glm_hf
from interop.published import (
    KINDS,
    MORE_PROMPTS,
    PROMPTS,
    TEXTS,
    make_published_run,
    make_vocabulary,
    vocabulary_file,
)


def load(path):
    """Run one file of an export as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"_tested_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.fixture
def fewer_prompts(monkeypatch):
    """The proof on 4 prompts in place of 100, by one thread: every layout is tried here."""
    monkeypatch.setattr("blankfill.runtime.available_cores", lambda: 1)
    monkeypatch.setattr(exports, "compare", functools.partial(compare, num_prompts=4))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_vocabulary_gives_the_ids_and_texts_of_its_run(kind, tmp_path, fewer_prompts):
    if not kind.startswith(("icetk", "cog")):
        pytest.importorskip("tokenizers")
    vocabulary = make_vocabulary(kind, tmp_path / "vocabulary")
    run = make_published_run(tmp_path / "run", vocabulary, hidden_size=16)
    result = export(run, to="hf", out=tmp_path / "out")
    assert result.has_tokenizer
    assert set(CODE_FILES) <= set(result.files)
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["published"]
    file = next(n for n in ("vocabulary.json", "tokenizer.model") if n in result.files)
    theirs = load(tmp_path / "out" / "vocabulary_blankfill.py").open_vocabulary(
        tmp_path / "out" / file, settings
    )
    for text in TEXTS:
        ids = vocabulary.encode(text).tolist()
        assert theirs.encode(text) == ids, text
        assert theirs.encode_with_blanks(text) == ids, text
        assert theirs.decode(ids) == vocabulary.decode(ids), text
    for text in [*PROMPTS, *MORE_PROMPTS]:
        if any(f"[{role.replace('mask', 'MASK')}]" in text for role in settings["untrained"]):
            for encode in (theirs.encode_with_blanks, vocabulary.encode_with_blanks):
                with pytest.raises((ValueError, DataError), match="never saw"):
                    encode(text)
            continue
        ids = vocabulary.encode_with_blanks(text.replace(" [", "[")).tolist()
        assert theirs.encode_with_blanks(text) == ids, text
        assert theirs.decode(ids) == vocabulary.decode(ids), text
    assert len(set(theirs.pieces)) == len(theirs.pieces) == vocabulary.vocab_size
    every = list(range(vocabulary.vocab_size - 60, vocabulary.vocab_size))
    assert theirs.decode(every) == vocabulary.decode(every)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["special_ids"] == theirs.special


@pytest.mark.parametrize(("to", "file"), [("glm", "model.safetensors"), ("sat", "latest")])
@pytest.mark.parametrize("kind", ["cog-pretrain", "wordpiece", "gpt2", None])
def test_the_released_layouts_carry_the_very_file_of_their_vocabulary(
    to, file, kind, tmp_path, fewer_prompts
):
    vocabulary = None if kind is None else make_vocabulary(kind, tmp_path / "vocabulary")
    result = export(
        make_published_run(tmp_path / "run", vocabulary, activation="gelu"), to=to,
        out=tmp_path / "out",
    )  # fmt: skip
    assert file in result.files
    assert result.parity.max_logit_difference == 0
    held = {} if vocabulary is None else vocabulary.files
    assert {name: (tmp_path / "out" / name).read_bytes() for name in held} == held
    assert result.has_tokenizer == (kind is not None)


@pytest.mark.parametrize("to", ["hf", "glm", "sat"])
@pytest.mark.parametrize("with_vocabulary", [True, False])
def test_what_was_imported_is_exported(to, with_vocabulary, tmp_path, capsys, fewer_prompts):
    path = vocabulary_file("cog-pretrain", tmp_path / "vocabulary")
    glm_hf(tmp_path / "glm", draw(gated=False, positions=65, tied=True, vocab=128, inner=128))
    options = ["--tokenizer", str(path)] if with_vocabulary else []
    imported = ["import", str(tmp_path / "glm"), "--out", str(tmp_path / "im"), *options]
    assert main(imported) == 0
    assert main(["export", str(tmp_path / "im"), "--to", to, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert ("weights only" in told) == (not with_vocabulary)
    if to == "hf":
        held = {name.name for name in (tmp_path / "out").iterdir()}
        assert (set(TOKENIZER_FILES) <= held) == with_vocabulary
    else:
        again = import_model(tmp_path / "out", out=tmp_path / "again")
        assert again.tokenizer == ("cog-pretrain" if with_vocabulary else "")


def test_an_export_without_a_vocabulary_computes_what_its_run_does(tmp_path, fewer_prompts):
    run = make_published_run(tmp_path / "run", None, "ours")
    result = export(run, to="hf", out=tmp_path / "out")
    assert not result.has_tokenizer
    assert result.parity.num_greedy_tokens > 8
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["special_ids"] == {}  # nobody knows them
    assert "special_ids=ids" in (tmp_path / "out" / "README.md").read_text()


def test_a_run_without_a_vocabulary_still_fills_nothing(tmp_path, capsys):
    run = make_published_run(tmp_path / "run", None)
    assert main(["fill", str(run), "a [MASK]"]) == 2
    assert "imported without a tokenizer" in capsys.readouterr().err


def test_whoever_may_read_the_folder_may_read_the_weights(tmp_path, fewer_prompts):
    mask = os.umask(0o022)
    try:
        export(make_published_run(tmp_path / "run", None), to="hf", out=tmp_path / "out",
               max_shard_gb=5e-5)  # fmt: skip
    finally:
        os.umask(mask)
    files = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) > 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
