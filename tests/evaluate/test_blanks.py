import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.errors import DataError
from blankfill.evaluate import blanks
from blankfill.evaluate.blanks import evaluate_blanks, fill_items, score_items
from blankfill.evaluate.items import draw_items
from blankfill.evaluate.pictures import draw_curves, draw_exact
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask
from blankfill.objective.batch import Kind
from blankfill.objective.blank import build_example
from blankfill.objective.mask import visible
from conftest import language_model

CFG = ObjectiveConfig()


class Store:
    """Random documents of two languages."""

    def __init__(self, lengths, seed=0):
        rng = np.random.default_rng(seed)
        self.documents = [rng.integers(8, 60, n).astype(np.uint16) for n in lengths]
        self.languages = np.array([1 + i % 2 for i in range(len(lengths))], np.uint8)
        self.lengths = np.array(lengths, np.int64)
        self.num_tokens = sum(lengths)

    def __len__(self):
        return len(self.documents)

    def document(self, index):
        return self.documents[index]


class Letters:
    """A tokenizer whose tokens are two bytes long."""

    vocab_size = 60

    def __init__(self, ids):
        self.ids = ids

    def decode(self, tokens):
        return "ab" * len(tokens)


@pytest.fixture(scope="module")
def model():
    cfg = ModelConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24)
    model = GLM(cfg)
    init_weights(model, 3)
    return model.eval()


@pytest.fixture
def store():
    return Store([5, 30, 200, 90, 1, 47, 64, 12])


def test_items_are_one_blank_in_a_piece_of_its_document(store):
    items = draw_items([store], CFG, row_length=64, max_items=1000)
    assert set(items) == {"en", "zh"}
    documents = {d.tobytes(): d for d in store.documents}
    for item in items["en"] + items["zh"]:
        assert 0 <= item.start < item.end <= len(item.tokens)
        filled = np.concatenate([item.tokens[: item.start], item.span, item.tokens[item.end :]])
        assert any(filled.astype(np.uint16).tobytes() in key for key in documents)
        assert (item.prompt(1) == 1).sum() == 1
        assert len(item.prompt(1, both_sides=False)) == item.start + 1


def test_items_are_the_same_every_time_and_bounded(store):
    first, again = (draw_items([store], CFG, row_length=64, max_items=5) for _ in range(2))
    for language, items in first.items():
        assert len(items) <= 5
        assert [(i.start, i.end) for i in items] == [(i.start, i.end) for i in again[language]]


def test_the_loss_of_packed_items_is_the_loss_of_each_alone(model, store, ids):
    items = draw_items([store], CFG, row_length=64, max_items=20)["en"]
    examples = [
        build_example(
            item.tokens, np.array([[item.start, item.end]]), kind=Kind.SHORT,
            order=np.array([0]), ids=ids,
        )
        for item in items
    ]  # fmt: skip
    token_nats, end_nats = blanks._loss(model, examples, pad=ids.pad)
    expected_tokens = expected_ends = 0.0
    for example in examples:
        n = len(example.tokens)
        seen = visible(np.zeros(n, np.int32), example.is_part_b)
        with torch.no_grad():
            hidden = model(
                torch.from_numpy(example.tokens)[None].long(),
                torch.from_numpy(example.positions)[None].long(),
                DenseMask(torch.from_numpy(seen)[None]),
            )
            scores = model.logits(hidden)[0].log_softmax(-1).double().numpy()
        nats = [-scores[i, t] for i, t in enumerate(example.targets) if t >= 0]
        expected_tokens += sum(nats[:-1])
        expected_ends += nats[-1]
    # float32 sums of hundreds of terms in another order
    assert token_nats == pytest.approx(expected_tokens, rel=1e-5)
    assert end_nats == pytest.approx(expected_ends, rel=1e-5)


def test_items_are_scored_and_filled_in_the_frame_of_their_vocabulary(
    model, store, ids, monkeypatch
):
    lm = language_model(model, Letters(dataclasses.replace(ids, opening=61)))
    items = draw_items([store], CFG, row_length=64, max_items=6)["en"]
    scored, asked = [], []
    monkeypatch.setattr(blanks, "_loss", lambda _, examples, pad: scored.extend(examples))
    monkeypatch.setattr(blanks, "fill_tokens", lambda _, prompts, *_1, **_2: asked.extend(prompts))
    for both_sides in (True, False):
        scored.clear()
        asked.clear()
        score_items(lm, items, both_sides=both_sides)
        with contextlib.suppress(TypeError):  # nothing was filled
            fill_items(lm, items, both_sides=both_sides)
        for item, example, prompt in zip(items, scored, asked, strict=True):
            wanted = [61, *item.tokens[: item.start], ids.mask]
            if both_sides:
                wanted += [*item.tokens[item.end :], ids.eos]
            assert example.tokens[: example.part_b_start].tolist() == wanted
            assert prompt.tolist() == wanted
            assert example.targets[example.part_b_start :].tolist() == [*item.span, ids.eop]


def test_a_report_has_every_system_and_its_pictures(model, store, ids, tmp_path):
    report = evaluate_blanks(
        language_model(model, Letters(ids)), [store], CFG, row_length=64,
        train_stores=[Store([50] * 20, 1)], max_items=8,
    )  # fmt: skip
    for language in report.languages:
        systems = [score.system for score in language.scores]
        assert systems == ["model", "model without the right side", "trigram", "unigram"]
        for score in language.scores:
            assert 0 <= score.exact_match <= 1
            # Two bytes a token: bits per byte are nats per token / ln 2 / 2.
            assert score.bits_per_byte == pytest.approx(score.loss_nats / np.log(2) / 2)
            assert (score.end_loss_nats is None) == (score.system in ("trigram", "unigram"))
    metrics = [
        {"step": s, "loss_nats_en": 5 - s / 50, "loss_nats_zh": 6 - s / 50,
         "validation_loss_nats_en": 5.0} for s in range(10, 100, 10)
    ]  # fmt: skip
    draw_curves(metrics, report, tmp_path / "loss.png")
    draw_exact(report, tmp_path / "exact.svg")
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exact.svg", "loss.png"]


def test_without_training_text_the_baselines_are_left_out(model, store, ids):
    lm = language_model(model, Letters(ids))
    report = evaluate_blanks(lm, [store], CFG, row_length=64, max_items=3)
    assert len(report.languages[0].scores) == 2


def test_nothing_held_out_is_one_sentence(model, ids):
    with pytest.raises(DataError, match="no held-out document"):
        evaluate_blanks(language_model(model, Letters(ids)), [Store([])], CFG, row_length=64)
