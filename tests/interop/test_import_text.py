"""An imported model with its published vocabulary reads and writes text."""

import json

import pytest
import sentencepiece

from blankfill.api import data_build, evaluate, fill, generate, import_, info
from blankfill.cli.main import main
from blankfill.text.vocabularies.pieces import CogVocabulary, IceVocabulary
from interop import foreign

TEXT = [
    "the quick brown fox jumps over the lazy dog.",
    "你好世界。今天天气很好！",
    "a b c d e",
] * 40


def train(path, **options):
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT), model_writer=file, vocab_size=90, model_type="unigram",
            hard_vocab_limit=False, minloglevel=2, unk_id=0, bos_id=1, eos_id=2,
            user_defined_symbols=["<n>"], **options,
        )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def glm_130b(tmp_path_factory):
    """A small GLM-130B with icetk beside it, imported."""
    folder = tmp_path_factory.mktemp("130b")
    (folder / "theirs").mkdir()
    train(folder / "theirs" / "ice_text.model", pad_id=3)
    model = foreign.draw(gated=True, positions=0, tied=True, vocab=21_000)
    foreign.sat_glm_130b(folder / "theirs", model, 2)
    config = {"num_attention_heads": 8, "max_sequence_length": 128}
    (folder / "theirs" / "model_config.json").write_text(json.dumps(config))
    result = import_(folder / "theirs", out=folder / "ours")
    assert (result.tokenizer, result.model["max_position"]) == ("icetk", 128)
    return folder


def test_it_fills_and_continues(glm_130b):
    item = fill(glm_130b / "ours", ["the [MASK] fox [MASK] over"], max_new_tokens=3).items[0]
    assert len(item.blanks) == 2
    assert item.text.startswith("the")
    item = generate(glm_130b / "ours", ["the quick"], max_new_tokens=3).items[0]
    assert item.text.startswith("the quick")
    facts = info(str(glm_130b / "ours")).facts
    assert facts["imported from"].endswith("(sat-glm-130b)")
    assert info(str(glm_130b / "ours" / "tokenizer")).kind == "tokenizer"


def test_stores_of_its_vocabulary_are_built_shown_and_evaluated(glm_130b, tmp_path, capsys):
    (tmp_path / "corpus.txt").write_text("\n\n".join(TEXT), encoding="utf-8")
    tokenizer = glm_130b / "ours" / "tokenizer"
    data_build([str(tmp_path / "corpus.txt")], tokenizer=tokenizer, out=tmp_path / "store")
    assert main(["data", "show", str(tmp_path / "store"), "--index", "0"]) == 0
    assert "the quick brown fox" in capsys.readouterr().out
    result = evaluate(glm_130b / "ours", data=[tmp_path / "store"], max_blanks=8)
    # 21,000 rows that were drawn at random know nothing: about log(21,000) = 9.95 nats a target.
    assert 9 < result.runs[0].rows["loss_nats"] < 12


def test_training_goes_on_from_it(glm_130b, tmp_path):
    import torch

    from blankfill.config.run import RunConfig, from_dict
    from blankfill.prepare import build_trainer

    (tmp_path / "corpus.txt").write_text("\n\n".join(TEXT), encoding="utf-8")
    tokenizer = glm_130b / "ours" / "tokenizer"
    data_build([str(tmp_path / "corpus.txt")], tokenizer=tokenizer, out=tmp_path / "store")
    described = json.loads((glm_130b / "ours" / "run.json").read_text())
    cfg = from_dict(RunConfig, described["config"])
    trainer = build_trainer(
        cfg, data=[tmp_path / "store"], run=tmp_path / "run", init=glm_130b / "ours"
    )
    # The embedding keeps its 21,000 rows, which are more than the vocabulary rounded up.
    model = foreign.draw(gated=True, positions=0, tied=True, vocab=21_000)
    for name, value in foreign.ours(model).items():
        assert torch.equal(trainer.engine.model.state_dict()[name], value.float()), name


def test_another_vocabulary_can_be_given_later(glm_130b, tmp_path):
    model = foreign.draw(gated=False, positions=41, tied=True, vocab=128)
    foreign.glm_megatron(tmp_path / "theirs", model, 1)
    first = import_(tmp_path / "theirs", out=tmp_path / "bare", num_heads=8)
    assert first.tokenizer == ""
    assert any("no vocabulary" in note for note in first.notes)
    path = train(tmp_path / "cog-pretrain.model", pad_id=-1)
    second = import_(tmp_path / "bare", out=tmp_path / "ours", tokenizer=path)
    assert second.tokenizer == "cog-pretrain"
    assert second.checksum == first.checksum
    assert fill(tmp_path / "ours", ["the [MASK] dog"], max_new_tokens=2).items[0].blanks


def test_ids_that_collide_are_named_and_a_blank_can_still_end(tmp_path):
    path = train(tmp_path / "cog-pretrain.model", pad_id=-1)
    released = CogVocabulary(path.read_bytes(), fixed=False)
    assert released.ids.gmask == released.ids.eop
    assert {"gmask", "eop"} <= set(released.ids.shared)
    from blankfill.generate.scores import banned_tokens
    from blankfill.interop.keymap import TEMPLATES
    from blankfill.model.glm import GLM
    from conftest import language_model

    banned = banned_tokens(language_model(GLM(TEMPLATES["glm"]), released))
    assert not banned[released.ids.eop]
    assert not banned[released.ids.eos]
    assert banned[released.ids.mask]
    ice = IceVocabulary(train(tmp_path / "ice_text.model", pad_id=3).read_bytes())
    assert ice.ids.shared == ()
