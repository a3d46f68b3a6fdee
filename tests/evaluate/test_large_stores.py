"""An evaluation's memory is bounded, however much training and held-out text there is."""

import hashlib
import json
import tracemalloc

import numpy as np
import pytest

from blankfill.cli.console import Answer
from blankfill.cli.evaluate import print_report
from blankfill.config.model import ModelConfig
from blankfill.data.store import TokenStore
from blankfill.evaluate import baselines, held_out, ngram
from blankfill.evaluate.baselines import fit_baselines, sample_documents
from blankfill.evaluate.blanks import evaluate_blanks
from blankfill.evaluate.held_out import draw_held_out
from blankfill.evaluate.law import draw_blanks
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.text.tokenizer import Tokenizer, copy_tokenizer
from conftest import language_model

DOCUMENTS, LENGTH = 200_000, 5_000
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def huge(tokenizer_folder, tmp_path_factory):
    """A store of a billion tokens, all of which are a hole in the file: one token, repeated."""
    folder = tmp_path_factory.mktemp("huge")
    lengths = np.full(DOCUMENTS, LENGTH, np.int64)
    (folder / "offsets.bin").write_bytes(np.cumsum([0, *lengths], dtype="<i8").tobytes())
    (folder / "languages.bin").write_bytes((np.arange(DOCUMENTS) % 2 + 1).astype("u1").tobytes())
    for name, size in (("tokens.bin", 2), ("sentences.bin", 1 / 8)):
        with (folder / name).open("wb") as file:
            file.truncate(int(DOCUMENTS * LENGTH * size))
    tokenizer = Tokenizer.load(tokenizer_folder)
    manifest = {
        "format": "blankfill token store", "version": 2, "dtype": "<u2", "documents": DOCUMENTS,
        "tokens": DOCUMENTS * LENGTH, "vocab_size": tokenizer.vocab_size, "by_language": {},
        "languages": ["other", "en", "zh"], "fingerprint": hashlib.sha256().hexdigest(),
        "tokenizer": {"fingerprint": tokenizer.fingerprint}, "sha256": {},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    copy_tokenizer(tokenizer_folder, folder / "tokenizer")
    return TokenStore.open(folder)


def peak(work):
    """Run something and give the most bytes that it held, numpy's arrays included."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_billion_tokens_are_evaluated_in_bounded_memory_and_the_sample_is_stated(
    huge, tokenizer_folder, monkeypatch, capsys
):
    # The keys of all trigrams would be 8 GB, the held-out documents 5 GB as text.
    monkeypatch.setattr(held_out, "MAX_DOCUMENTS", 100)
    monkeypatch.setattr(baselines, "MAX_TOKENS", 123_456)
    tokenizer = Tokenizer.load(tokenizer_folder)
    cfg = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24,
        max_position=512,
    )  # fmt: skip
    model = GLM(cfg)
    init_weights(model, 3)
    lm = language_model(model.eval(), tokenizer)
    found = []

    def work():
        blanks = draw_held_out([huge], max_blanks=4)
        found.append(evaluate_blanks(lm, blanks, train_stores=[huge, huge]))

    work()  # modules that are loaded on first use are no memory of the evaluation's
    assert peak(work) < 16 * MEGABYTE
    report = found[-1]
    assert (report.ngram_tokens, report.training_tokens) == (123_456, 2 * DOCUMENTS * LENGTH)
    assert [language.num_blanks for language in report.languages] == [4, 4]
    print_report(report, Answer())
    assert "123,456 of 2,000,000,000 training tokens" in capsys.readouterr().out


def test_drawing_holds_the_blanks_and_one_document_whatever_there_is_to_read():
    words = [f"w{i} " for i in range(997)]

    def documents(count):
        class Documents:
            def __iter__(self):
                return (f"{i} " + "".join(words) * 3 for i in range(count))

        return {"en": Documents()}

    few, many = (
        peak(lambda count=count: draw_blanks(documents(count), max_blanks=50))
        for count in (200, 600)
    )
    assert many < few + 200_000  # a digest for each document


@pytest.mark.parametrize("tokens", [100_000, 400_000])
def test_the_trigram_holds_less_than_thirty_bytes_a_token_of_text_like_any(tokens, monkeypatch):
    # So MAX_TOKENS of them take a gigabyte at most.
    monkeypatch.setattr(ngram, "STRETCH", tokens // 8)
    text = (np.random.default_rng(0).zipf(1.2, tokens) % 60_000).astype(np.uint16)
    assert peak(lambda: ngram.Trigram([text], 60_000)) < 30 * tokens + MEGABYTE
    assert 30 * baselines.MAX_TOKENS <= 1.01e9


def test_what_the_n_gram_models_hold_grows_with_the_sample_and_not_with_the_store(huge):
    for limit in (10_000, 100_000):
        assert peak(lambda limit=limit: fit_baselines([huge], 60, max_tokens=limit)) < 16 * MEGABYTE


def test_a_sample_is_of_all_documents_and_the_same_every_time(huge):
    first, again = (
        [document.ctypes.data for document in sample_documents([huge], 20 * LENGTH)]
        for _ in range(2)
    )
    assert first == again
    assert len(set(first)) == 20
    tokens = huge.shard(0).tokens
    start, end = tokens.ctypes.data, tokens.ctypes.data + tokens.nbytes
    shares = np.sort((np.array(first) - start) / (end - start))
    assert shares[0] < 0.25
    assert shares[-1] > 0.75
    assert [len(d) for d in sample_documents([huge], LENGTH + 3)] == [LENGTH, 3]


def test_text_that_fits_is_read_whole_and_in_order(random_store):
    stores = [random_store([3, 0, 5], 1), random_store([2], 2)]
    read = [document.tolist() for document in sample_documents(stores, 10)]
    assert read == [d.tolist() for store in stores for d in store.documents]
