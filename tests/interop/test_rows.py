"""A vocabulary beside the rows of a model's embedding: whether it can be the model's."""

from types import SimpleNamespace

import pytest

from blankfill.api import import_
from blankfill.errors import ConversionError
from blankfill.interop.rows import check_vocabulary, vocabulary_notes
from interop import foreign

IDS = {"wordpiece": 30_527, "roberta": 50_270, "gpt2": 50_266, "cog-pretrain": 50_011,
       "icetk": 150_344}  # fmt: skip
"""Ids of each published vocabulary, special tokens included."""


def plan(rows, preset="", ranks=1, layout="glm-hf", **config):
    source = SimpleNamespace(
        path="p", layout=layout, ranks=[{}] * ranks, config=config, config_path="config.json"
    )
    taken = [SimpleNamespace(first_row=0)]
    return SimpleNamespace(
        source=source, cfg=SimpleNamespace(vocab_size=rows), preset=preset, taken=taken
    )


def vocabulary(kind, num_ids=None, **ids):
    return SimpleNamespace(
        kind=kind, vocab_size=num_ids or IDS[kind], ids=SimpleNamespace(mask=3, gmask=4, sop=6) if
        not ids else SimpleNamespace(**ids),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "rows", "preset"),
    [
        ("wordpiece", 30_592, "glm-large"), ("wordpiece", 30_592, ""), ("roberta", 50_304, ""),
        ("gpt2", 50_304, "glm-10b"), ("cog-pretrain", 50_048, "glm-10b-zh"),
        ("icetk", 150_528, "glm-130b"), ("icetk", 150_528, "chatglm-6b-v0"),
    ],
)  # fmt: skip
def test_published_padding_is_as_it_should_be(kind, rows, preset):
    assert vocabulary_notes(vocabulary(kind), plan(rows, preset)) == []


def test_icetk_without_its_image_ids_is_as_it_should_be():
    found = vocabulary("icetk", 130_344)
    assert vocabulary_notes(found, plan(130_528, "chatglm-6b")) == []


@pytest.mark.parametrize(
    ("kind", "rows", "preset", "said"),
    [
        ("wordpiece", 50_048, "", "19,521|30,592"),
        ("wordpiece", 50_048, "glm-large-zh", "cog-pretrain"),
        ("gpt2", 50_304, "glm-roberta", "roberta"),
        ("roberta", 50_304, "glm-10b", "gpt2"),
        ("cog-pretrain", 50_304, "", "50,048"),
        ("cog-pretrain", 150_528, "", "150,528 rows"),
        ("gpt2", 150_528, "chatglm-6b-v0", "icetk"),
    ],
)
def test_another_models_vocabulary_is_warned_of(kind, rows, preset, said):
    (note,) = vocabulary_notes(vocabulary(kind), plan(rows, preset))
    assert "may be another model's vocabulary" in note
    assert any(word in note for word in said.split("|"))


@pytest.mark.parametrize(("ranks", "doubted"), [(1, True), (2, False), (8, False)])
def test_more_ranks_may_pad_more(ranks, doubted):
    notes = vocabulary_notes(vocabulary("wordpiece", 1000), plan(1200, ranks=ranks))
    assert bool(notes) == doubted


def test_fewer_rows_than_ids_are_refused():
    with pytest.raises(ConversionError, match="30527 ids and the embedding of p 30526 rows"):
        check_vocabulary(vocabulary("wordpiece"), plan(30_526))


def test_special_ids_that_the_configuration_has_otherwise_are_said():
    fields = {"mask_token_id": 3, "gmask_token_id": 99, "bos_token_id": 6}
    (note,) = vocabulary_notes(
        vocabulary("icetk", 130_344), plan(130_528, layout="chatglm-hf", **fields)
    )
    assert "gmask_token_id=99" in note


@pytest.mark.parametrize(("rows", "doubted"), [(500, False), (627, False), (628, True)])
def test_an_import_says_so(tmp_path, tokenizer_folder, rows, doubted):
    model = foreign.draw(gated=False, positions=41, tied=True, vocab=rows)
    foreign.glm_hf(tmp_path / "theirs", model)
    result = import_(tmp_path / "theirs", out=tmp_path / "ours", tokenizer=tokenizer_folder)
    assert any("another model's vocabulary" in note for note in result.notes) == doubted
