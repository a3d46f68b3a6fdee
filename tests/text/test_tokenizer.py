import json
import shutil
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blankfill.errors import DataError
from blankfill.text.corpus import read_documents
from blankfill.text.tokenizer import Tokenizer, WordTokenizer, copy_tokenizer
from shared import shared_path

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
HARD_TEXT = st.lists(
    st.sampled_from(
        [" ", "  ", "\u2581", "\n", "\r\n", "\t", "\0", "a", "the", "\u4eba", "\uff0c", "\u3000",
         "\ufeff", "\ufffd", "\u2028", "[MASK]", "<0x41>", "<unk>", "\U0001f600", "e\u0301",
         "\u2047"]
    )
).map("".join)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return Tokenizer.load(tokenizer_folder)


@settings(deadline=None, max_examples=200)
@given(text=ANY_TEXT | HARD_TEXT)
def test_decode_undoes_encode(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids.tolist()) & set(astuple(tokenizer.ids))
    assert ids.dtype == np.int32


@settings(deadline=None, max_examples=50)
@given(text=ANY_TEXT | HARD_TEXT)
def test_blanks_are_special_only_where_asked_for(tokenizer, text):
    around = text.replace("[", "(")
    ids = tokenizer.encode_with_blanks(f"{around}[gMASK]{around}[MASK][sMASK]")
    found = [i for i in ids.tolist() if i in astuple(tokenizer.ids)]
    assert found == [tokenizer.ids.gmask, tokenizer.ids.mask, tokenizer.ids.smask]
    assert tokenizer.decode(ids) == f"{around}[gMASK]{around}[MASK][sMASK]"


@pytest.mark.parametrize(
    "unit", [" ", "a", "\u4eba", "\u4eba\n", "ab \n\n", "\u2581", "\U0001f600"]
)
def test_very_long_texts_come_back(tokenizer, unit):
    text = unit * (350_000 // len(unit))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_document_of_a_real_corpus_comes_back(tokenizer):
    for document in read_documents([shared_path("data/corpus.small.jsonl.gz")]):
        assert tokenizer.decode(tokenizer.encode(document.text)) == document.text


def test_runs_of_blanks_take_few_tokens(tokenizer):
    assert len(tokenizer.encode(" " * 64)) == 1
    assert len(tokenizer.encode("\n\n\t")) == 2


def test_bytes_that_are_no_text_are_shown_as_replacement(tokenizer):
    (half,) = tokenizer.encode("\ue000")[:1]
    assert tokenizer.decode([half]) == "\ufffd"


@pytest.mark.parametrize("wrong", [-1, 500, 10**9])
def test_ids_outside_the_vocabulary_are_refused(tokenizer, wrong):
    with pytest.raises(DataError, match=f"token id {wrong} "):
        tokenizer.decode([0, wrong])


def test_half_a_surrogate_pair_is_refused_in_one_sentence(tokenizer):
    with pytest.raises(DataError, match="surrogate"):
        tokenizer.encode("a\ud800")


def test_every_token_can_be_shown(tokenizer):
    shown = [tokenizer.token(i) for i in range(tokenizer.vocab_size)]
    assert all(text and text.isprintable() for text in shown)
    assert shown[tokenizer.ids.mask] == "[MASK]"
    assert "\\n" in shown


def test_a_copy_has_the_same_fingerprint(tokenizer, tokenizer_folder, tmp_path):
    copy_tokenizer(tokenizer_folder, tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").fingerprint == tokenizer.fingerprint


def _break_nothing_there(folder):
    shutil.rmtree(folder)


def _break_no_model(folder):
    (folder / "tokenizer.model").unlink()


def _break_changed_model(folder):
    other = (folder / "tokenizer.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(other.replace(b"sample.txt", b"Sample.txt"))


def _break_rubbish_model(folder):
    (folder / "tokenizer.model").write_bytes(b"rubbish")


def _break_manifest(folder):
    (folder / "tokenizer.json").write_text("{")


def _break_version(folder):
    manifest = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(manifest | {"version": 99}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_break_nothing_there, "no such tokenizer folder"),
        (_break_no_model, "tokenizer.model is missing"),
        (_break_changed_model, "changed or damaged"),
        (_break_rubbish_model, "not a SentencePiece model"),
        (_break_manifest, "not JSON"),
        (_break_version, "version 99 is newer"),
    ],
)
def test_a_damaged_tokenizer_is_named(tokenizer_folder, tmp_path, damage, reason):
    copy_tokenizer(tokenizer_folder, tmp_path / "tok")
    damage(tmp_path / "tok")
    with pytest.raises(DataError, match=reason):
        Tokenizer.load(tmp_path / "tok")


def test_words_are_the_tokens_of_a_word_tokenizer():
    words = WordTokenizer("The quick brown fox the lazy dog. [MASK]")
    ids = words.encode("the quick fox")
    assert words.decode(ids) == "the quick fox"
    assert words.encode_with_blanks("quick [MASK] fox").tolist()[1] == words.ids.mask
    assert words.token(int(ids[0])) == "the"
    with pytest.raises(DataError, match="'cat'"):
        words.encode("the cat")


def test_words_that_look_like_special_tokens_are_words():
    text = "Press [E] to open [MASK] or [S]"
    words = WordTokenizer(text)
    ids = words.encode(text)
    assert words.decode(ids) == text
    assert not {words.ids.eop, words.ids.mask, words.ids.sop} & set(ids.tolist())
    assert words.encode_with_blanks("open [MASK] or").tolist()[1] == words.ids.mask


def test_chinese_is_cut_into_characters():
    text = "\u5c0f\u732b\u770b Python \u548c\u96e8\u3002"
    words = WordTokenizer(text)
    shown = [words.token(int(i)) for i in words.encode(text)]
    assert shown == ["\u5c0f", "\u732b", "\u770b", "Python", "\u548c", "\u96e8", "\u3002"]
    assert words.decode(words.encode(text)) == text.replace(" ", "")
    spaced = WordTokenizer("a\u3000b")
    assert spaced.decode(spaced.encode("a\u3000b")) == "a b"
