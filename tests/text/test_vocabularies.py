"""The published vocabularies, on small models that are trained here in the same format."""

import json

import numpy as np
import pytest
import sentencepiece

from blankfill.errors import DataError
from blankfill.objective import Kind, build_example
from blankfill.objective.frame import frame_blanks
from blankfill.text.vocabularies import load_tokenizer, open_vocabulary, save_vocabulary
from blankfill.text.vocabularies.pieces import CogVocabulary, IceVocabulary

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "你好世界 今天天气很好",
    "a b c d e f g",
] * 40


def train(path, pieces, **options):
    """Train a SentencePiece model whose first ids are those of the published one."""
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT), model_writer=file, vocab_size=pieces,
            model_type="unigram", hard_vocab_limit=False, minloglevel=2, **options,
        )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def ice(tmp_path_factory):
    """Like ice_text.model: 0 <unk>, 1 <s>, 2 </s>, 3 <pad>, 4 <n>."""
    path = tmp_path_factory.mktemp("ice") / "ice_text.model"
    return train(path, 90, unk_id=0, bos_id=1, eos_id=2, pad_id=3, user_defined_symbols=["<n>"])


@pytest.fixture(scope="module")
def cog(tmp_path_factory):
    """Like cog-pretrain.model: 0 <unk>, 1 <s>, 2 </s>, 3 <n>."""
    path = tmp_path_factory.mktemp("cog") / "cog-pretrain.model"
    return train(path, 90, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, user_defined_symbols=["<n>"])


def appended_by_the_library(path):
    """Extend the model as icetk does: through SentencePiece's own protocol buffer."""
    proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    model = proto.ModelProto()
    model.ParseFromString(path.read_bytes())
    names = ["[MASK]", "[gMASK]", "[sMASK]", "<eod>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
    for name in names:
        model.pieces.add(piece=name, score=0.0, type=3)
    for name in ["<|tab|>", *(f"<|blank_{i}|>" for i in range(2, 81))]:
        model.pieces.add(piece=name, score=0.0, type=4)
    model.trainer_spec.byte_fallback = True
    for i in range(256):
        model.pieces.add(piece=f"<0x{i:02X}>", score=0.0, type=6)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def test_icetk_numbers_pieces_behind_the_images_and_commands_behind_them(ice):
    vocabulary = IceVocabulary(ice.read_bytes())
    n = sentencepiece.SentencePieceProcessor(model_file=str(ice)).get_piece_size()
    # With the 130,000 pieces of the published model these are 150000 to 150087 and on to 150343.
    first = 20_000 + n
    ids = vocabulary.ids
    assert (ids.mask, ids.gmask, ids.smask, ids.sop, ids.eop, ids.dblock) == (
        first, first + 1, first + 2, first + 4, first + 5, first + 7,
    )  # fmt: skip
    assert (ids.eos, ids.pad) == (20_002, 20_003)
    assert vocabulary.token(20_004) == "<n>"
    assert vocabulary.token(first + 8) == "<|tab|>"
    assert vocabulary.token(first + 9) == "<|blank_2|>"
    assert vocabulary.token(first + 87) == "<|blank_80|>"
    assert vocabulary.token(first + 88) == "<0x00>"
    assert vocabulary.vocab_size == first + 88 + 256
    assert vocabulary.token(7) == "<image_7>"


@pytest.mark.parametrize(
    "text", ["the quick fox", "你好世界", "a\tb", "a   b", "a\n\nb", "ὕδωρ!", "", " " * 200 + "x"]
)
def test_icetk_encodes_as_the_library_with_its_pieces_appended_by_the_library(ice, text):
    reference = appended_by_the_library(ice)
    spelled = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    for length in range(80, 1, -1):  # as the published code replaces them, longest first
        spelled = spelled.replace(" " * length, f"<|blank_{length}|>")
    expected = [i + 20_000 for i in reference.encode(spelled)]
    vocabulary = IceVocabulary(ice.read_bytes())
    assert vocabulary.encode(text).tolist() == expected
    assert vocabulary.decode(expected) == text


def test_icetk_without_images_is_told_by_the_rows_of_the_model(ice):
    first = IceVocabulary(ice.read_bytes())
    n = first.vocab_size - 20_000
    assert open_vocabulary(ice, num_rows=n + 60).ids.mask == first.ids.mask - 20_000
    assert open_vocabulary(ice, num_rows=20_000 + n).ids.mask == first.ids.mask
    assert open_vocabulary(ice.parent).ids.mask == first.ids.mask
    plain = open_vocabulary(ice, num_rows=n)
    assert (plain.ids.eos, plain.ids.pad) == (2, 3)
    text = plain.encode("the fox")
    assert (text + 20_000).tolist() == first.encode("the fox").tolist()
    assert plain.fingerprint != first.fingerprint


def test_icetk_with_its_commands_in_the_file_is_not_extended_again(ice, tmp_path):
    baked = tmp_path / "ice_text.model"
    baked.write_bytes(appended_by_the_library(ice).serialized_model_proto())
    one = IceVocabulary(baked.read_bytes(), num_image_ids=0)
    other = IceVocabulary(ice.read_bytes(), num_image_ids=0)
    assert (one.vocab_size, one.ids) == (other.vocab_size, other.ids)
    assert one.encode("a  fox\n").tolist() == other.encode("a  fox\n").tolist()


def test_icetk_shows_images_and_blanks_and_hides_the_end(ice):
    vocabulary = IceVocabulary(ice.read_bytes())
    ids = vocabulary.encode_with_blanks("the [MASK] dog")
    assert ids[-1] == vocabulary.ids.eos  # GLM-130B closes a text that does not end in a blank
    assert (
        vocabulary.decode([12, *ids.tolist(), 3, 4]) == "<image_12>the[MASK]dog<image_3><image_4>"
    )
    words = vocabulary.encode("the dog").tolist()
    assert vocabulary.decode([*words, 9, *words]) == "the dog<image_9>the dog"
    assert vocabulary.encode_with_blanks("the fox [gMASK]")[-1] == vocabulary.ids.gmask
    assert vocabulary.encode("[MASK]").tolist() != [vocabulary.ids.mask]


def test_cog_pretrain_numbers_its_commands_as_each_model_did(cog):
    n = sentencepiece.SentencePieceProcessor(model_file=str(cog)).get_piece_size()
    for fixed, gmask, dblock in ((True, n + 9, n + 10), (False, n + 7, n + 9)):
        ids = CogVocabulary(cog.read_bytes(), fixed=fixed).ids
        assert (ids.pad, ids.eos, ids.mask, ids.sop, ids.eop, ids.smask) == (
            n, n, n + 3, n + 6, n + 7, n + 8,
        )  # fmt: skip
        assert (ids.gmask, ids.dblock) == (gmask, dblock)
    assert set(ids.shared) == {"pad", "eos", "gmask", "eop"}


def test_cog_pretrain_opens_with_cls_and_closes_with_eos_but_for_gmask(cog):
    vocabulary = CogVocabulary(cog.read_bytes(), fixed=True)
    n = vocabulary.ids.pad
    ids = vocabulary.encode_with_blanks("the [MASK] dog\n")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(cog))
    assert ids.tolist() == [
        n + 2, *reference.encode("the "), n + 3, *reference.encode(" dog<n>"), n,
    ]  # fmt: skip
    assert vocabulary.encode_with_blanks("the [gMASK]").tolist()[-1] == vocabulary.ids.gmask
    assert vocabulary.encode_with_blanks("the [MASK]").tolist()[-1] == n
    assert vocabulary.decode(ids) == "the[MASK]dog\n"


@pytest.mark.parametrize(
    ("asked", "right"), [("the [MASK] fox", " fox"), ("the [MASK]", ""), ("the [gMASK]", ""),
                         ("the [gMASK] fox", " fox"), ("the [sMASK]", "")],
)  # fmt: skip
def test_a_training_example_is_framed_as_a_prompt_is(cog, asked, right):
    vocabulary = CogVocabulary(cog.read_bytes(), fixed=True)
    kinds = {"[MASK]": Kind.SHORT, "[sMASK]": Kind.SENTENCE, "[gMASK]": Kind.DOCUMENT}
    kind = next(kinds[mask] for mask in kinds if mask in asked)
    parts = [vocabulary.encode(part) for part in ("the ", "quick", right)]
    start, end = np.cumsum([len(part) for part in parts])[:2]
    tokens, spans = frame_blanks(
        np.concatenate(parts), np.array([[start, end]], np.int32), kind, vocabulary.ids
    )
    example = build_example(tokens, spans, kind=kind, order=np.array([0]), ids=vocabulary.ids)
    prompt = vocabulary.encode_with_blanks(asked)
    assert example.tokens[: example.part_b_start].tolist() == prompt.tolist()
    assert example.targets[example.part_b_start :].tolist() == [*parts[1], vocabulary.ids.eop]


@pytest.mark.parametrize("make", [
    lambda ice, cog: IceVocabulary(ice.read_bytes()),
    lambda ice, cog: IceVocabulary(ice.read_bytes(), num_image_ids=0),
    lambda ice, cog: CogVocabulary(cog.read_bytes(), fixed=False),
])  # fmt: skip
def test_a_saved_vocabulary_comes_back(ice, cog, make, tmp_path):
    vocabulary = make(ice, cog)
    save_vocabulary(vocabulary, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.fingerprint, loaded.ids, loaded.vocab_size) == (
        vocabulary.fingerprint, vocabulary.ids, vocabulary.vocab_size,
    )  # fmt: skip
    name = next(iter(vocabulary.files))
    (tmp_path / name).write_bytes(vocabulary.files[name] + b" ")
    with pytest.raises(DataError, match=f"{name}: its SHA-256"):
        load_tokenizer(tmp_path)


def test_what_is_no_vocabulary_is_named(tmp_path, tokenizer_folder):
    with pytest.raises(DataError, match="no such vocabulary"):
        open_vocabulary(tmp_path / "nothing.model")
    with pytest.raises(DataError, match="holds no vocabulary"):
        open_vocabulary(tmp_path)
    (tmp_path / "x.model").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a SentencePiece model"):
        open_vocabulary(tmp_path / "x.model")
    with pytest.raises(DataError, match="neither icetk nor cog-pretrain"):
        open_vocabulary(tokenizer_folder / "tokenizer.model")


def english(folder):
    """Small vocabularies of BERT, GPT-2 and RoBERTa, trained by their library."""
    library = pytest.importorskip("tokenizers")
    lines = [line for line in TEXT if line.isascii()]
    bert = library.BertWordPieceTokenizer(lowercase=True)
    bert.train_from_iterator(lines, vocab_size=60, min_frequency=1, show_progress=False)
    bert.save_model(str(folder), "bert")
    for name, special in (("gpt2", ["<|endoftext|>"]),
                          ("roberta", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])):  # fmt: skip
        bpe = library.ByteLevelBPETokenizer()
        bpe.train_from_iterator(lines, vocab_size=300, min_frequency=1, special_tokens=special,
                                show_progress=False)  # fmt: skip
        (folder / name).mkdir()
        bpe.save_model(str(folder / name))
    return library, folder


def test_wordpiece_is_that_of_bert_with_glms_tokens_behind_it(tmp_path):
    library, folder = english(tmp_path)
    (folder / "bert-vocab.txt").rename(folder / "vocab.txt")
    vocabulary = open_vocabulary(folder / "vocab.txt")
    reference = library.BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    n = reference.get_vocab_size()
    assert (
        vocabulary.encode("The quick Fox!").tolist()
        == reference.encode("The quick Fox!", add_special_tokens=False).ids
    )
    assert (vocabulary.ids.sop, vocabulary.ids.eop) == (n, n + 1)
    ids = vocabulary.encode_with_blanks("the [MASK] dog")
    assert [vocabulary.token(i) for i in (ids[0], ids[-1])] == ["[CLS]", "[PAD]"]
    assert ids.tolist().count(vocabulary.ids.mask) == 1
    assert vocabulary.decode(vocabulary.encode("The lazy dog")) == "the lazy dog"
    with pytest.raises(DataError, match="never saw"):
        vocabulary.encode_with_blanks("the [gMASK]")


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_byte_pairs_are_those_of_their_library(tmp_path, kind):
    library, folder = english(tmp_path)
    vocabulary = open_vocabulary(folder / kind)
    assert vocabulary.kind == kind
    reference = library.ByteLevelBPETokenizer(
        str(folder / kind / "vocab.json"), str(folder / kind / "merges.txt")
    )
    text = "The quick fox, 42 jumps\n\tover ὕδωρ  it."
    assert vocabulary.encode(text).tolist() == reference.encode(text).ids
    assert vocabulary.decode(vocabulary.encode(text)) == text
    n = len(json.loads((folder / kind / "vocab.json").read_text(encoding="utf-8")))
    assert (vocabulary.ids.sop, vocabulary.ids.eop) == (n, n + 1)
    if kind == "gpt2":  # 50257 pieces: [CLS] 50259, [MASK] 50260, [gMASK] 50263, ...
        ids = vocabulary.ids
        assert (ids.mask, ids.gmask, ids.smask, ids.dblock) == (n + 3, n + 6, n + 7, n + 8)
        assert vocabulary.encode_with_blanks("a [gMASK]").tolist()[0] == n + 2
    save_vocabulary(vocabulary, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert np.array_equal(loaded.encode(text), vocabulary.encode(text))
    (folder / kind / "merges.txt").unlink()
    with pytest.raises(DataError, match=r"merges\.txt is missing"):
        open_vocabulary(folder / kind / "vocab.json")
