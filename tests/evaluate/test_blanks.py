import contextlib
import dataclasses
import json

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.data.ingest import build_store
from blankfill.data.store import TokenStore
from blankfill.errors import CheckpointError, DataError
from blankfill.evaluate import blanks
from blankfill.evaluate.blanks import (
    encode_set,
    evaluate_blanks,
    exact_fills,
    fill_items,
    score_items,
)
from blankfill.evaluate.held_out import draw_held_out
from blankfill.evaluate.items import encode_blanks
from blankfill.evaluate.pictures import draw_curves, draw_exact
from blankfill.generate import FilledBlank
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask
from blankfill.objective.batch import Kind
from blankfill.objective.blank import build_example
from blankfill.objective.mask import visible
from blankfill.text.tokenizer import Tokenizer
from conftest import language_model, small_corpus


@pytest.fixture(scope="module")
def stores(tokenizer_folder, tmp_path_factory):
    """Stores for training and for evaluation."""
    folder = tmp_path_factory.mktemp("blanks")
    found = []
    for name, seed in (("train", 1), ("valid", 2)):
        source = folder / f"{name}.jsonl"
        lines = [json.dumps({"text": text}) for text in small_corpus(40, seed)]
        source.write_text("\n".join(lines), encoding="utf-8")
        build_store([source], tokenizer=tokenizer_folder, out=folder / name)
        found.append(TokenStore.open(folder / name))
    return found


@pytest.fixture(scope="module")
def asked(stores):
    return draw_held_out([stores[1]], max_blanks=12)


@pytest.fixture(scope="module")
def lm(tokenizer_folder):
    tokenizer = Tokenizer.load(tokenizer_folder)
    cfg = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24,
        max_position=128,
    )  # fmt: skip
    model = GLM(cfg)
    init_weights(model, 3)
    return language_model(model.eval(), tokenizer)


@pytest.fixture(scope="module")
def items(lm, asked):
    return encode_set(asked, lm.tokenizer, row_length=128)["en"]


def test_a_blank_is_encoded_by_itself_and_reads_as_the_text(lm, asked):
    decode = lm.tokenizer.decode
    for language, found in encode_set(asked, lm.tokenizer, row_length=128).items():
        for item, blank in zip(found, asked.by_language[language], strict=True):
            assert item.blank == blank
            parts = (item.before, item.span, item.after)
            assert tuple(map(decode, parts)) == (blank.before, blank.text, blank.after)
            assert item.span.tolist() == lm.tokenizer.encode(blank.text).tolist()
            assert decode(item.tokens[item.start : item.end]) == blank.text
            assert (item.prompt(lm.ids.mask) == lm.ids.mask).sum() == 1
            assert len(item.prompt(lm.ids.mask, both_sides=False)) == item.start + 1
            assert not item.shortened


@pytest.mark.parametrize("row_length", [24, 30, 40])
def test_rows_that_are_too_short_read_what_is_nearest_and_say_so(lm, asked, row_length):
    found = asked.by_language["en"]
    whole = encode_blanks(found, lm.tokenizer, row_length=10_000)
    for short, full in zip(
        encode_blanks(found, lm.tokenizer, row_length=row_length), whole, strict=True
    ):
        n, m = len(short.before), len(short.after)
        assert short.before.tolist() == full.before.tolist()[len(full.before) - n :]
        assert short.after.tolist() == full.after.tolist()[:m]
        # Part A with one mask, and Part B after one sop, fill the row.
        size = n + m + 1 + 1 + len(short.span)
        assert size == row_length if short.shortened else size <= row_length
        if short.shortened and n < len(full.before) and m < len(full.after):
            assert abs(n - m) <= 1


def test_rows_that_cannot_hold_a_blank_are_refused(lm, asked):
    with pytest.raises(DataError, match=r"takes \d+ tokens.*train\.row_length"):
        encode_set(asked, lm.tokenizer, row_length=5)


def test_the_loss_of_packed_items_is_the_loss_of_each_alone(lm, items):
    examples = [
        build_example(
            item.tokens, np.array([[item.start, item.end]]), kind=Kind.SHORT,
            order=np.array([0]), ids=lm.ids,
        )
        for item in items
    ]  # fmt: skip
    token_nats, end_nats = score_items(lm, items)
    for example, found, end in zip(examples, token_nats, end_nats, strict=True):
        n = len(example.tokens)
        seen = visible(np.zeros(n, np.int32), example.is_part_b)
        with torch.no_grad():
            hidden = lm.model(
                torch.from_numpy(example.tokens)[None].long(),
                torch.from_numpy(example.positions)[None].long(),
                DenseMask(torch.from_numpy(seen)[None]),
            )
            scores = lm.model.logits(hidden)[0].log_softmax(-1).double().numpy()
        nats = [-scores[i, t] for i, t in enumerate(example.targets) if t >= 0]
        # float32 sums in another order
        assert found == pytest.approx(sum(nats[:-1]), rel=1e-5)
        assert end == pytest.approx(nats[-1], rel=1e-5)


def test_items_are_scored_and_filled_in_the_frame_of_their_vocabulary(lm, items, monkeypatch):
    class Framed:
        vocab_size = lm.tokenizer.vocab_size
        ids = dataclasses.replace(lm.ids, opening=61)

    framed = dataclasses.replace(lm, tokenizer=Framed())
    scored, asked = [], []
    monkeypatch.setattr(blanks, "_loss", lambda _, examples, pad: scored.extend(examples))
    monkeypatch.setattr(blanks, "fill_tokens", lambda _, prompts, *_1, **_2: asked.extend(prompts))
    for both_sides in (True, False):
        scored.clear()
        asked.clear()
        score_items(framed, items, both_sides=both_sides)
        with contextlib.suppress(TypeError):  # nothing was filled
            fill_items(framed, items, both_sides=both_sides)
        for item, example, prompt in zip(items, scored, asked, strict=True):
            wanted = [61, *item.before, lm.ids.mask]
            if both_sides:
                wanted += [*item.after, lm.ids.eos]
            assert example.tokens[: example.part_b_start].tolist() == wanted
            assert prompt.tolist() == wanted
            assert example.targets[example.part_b_start :].tolist() == [*item.span, lm.ids.eop]


def filled(tokens, *, ended):
    return FilledBlank(tokens=np.array(tokens, np.int32), logprob=0.0, ended=ended)


def test_a_fill_is_exact_where_its_text_is_whatever_its_tokens(lm, items):
    item = max(items, key=lambda one: len(one.blank.text))
    spelled = np.concatenate([lm.tokenizer.encode(c) for c in item.blank.text])
    assert spelled.tolist() != item.span.tolist()
    fills = [
        filled(item.span, ended=True), filled(spelled, ended=True), filled(item.span, ended=False),
        filled(item.span[:-1], ended=True), filled([*item.span, item.span[0]], ended=True),
    ]  # fmt: skip
    exact = exact_fills(lm.tokenizer, fills, [item] * 5)
    assert exact.tolist() == [True, True, True, False, False]
    assert exact_fills(lm.tokenizer, fills, [item] * 5, must_end=True).tolist() == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("both_sides", [True, False])
def test_a_system_that_is_told_the_length_writes_so_many_tokens(lm, items, both_sides):
    given = fill_items(lm, items, both_sides=both_sides, given_length=True)
    assert [len(fill.tokens) for fill in given] == [len(item.span) for item in items]
    free = fill_items(lm, items, both_sides=both_sides)
    for told, alone in zip(given, free, strict=True):
        same = min(len(told.tokens), len(alone.tokens))
        assert told.tokens[:same].tolist() == alone.tokens[:same].tolist()


def test_a_report_has_every_system_what_it_was_told_and_its_pictures(lm, asked, stores, tmp_path):
    report = evaluate_blanks(lm, asked, train_stores=[stores[0]])
    assert report.law == asked.law
    for language in report.languages:
        found = asked.by_language[language.language]
        assert language.num_characters == sum(len(blank.text) for blank in found)
        assert language.num_words == sum(blank.num_words for blank in found)
        num_bytes = sum(len(blank.text.encode()) for blank in found)
        assert [(score.system, score.reads) for score in language.scores] == [
            ("model", "both sides"), ("model", "left side"), ("trigram", "two tokens"),
            ("unigram", "nothing"),
        ]  # fmt: skip
        for score in language.scores:
            assert (score.exact_match is None) == (score.reads != "both sides")
            assert (score.end_loss_nats is None) == (score.reads != "both sides")
            nats = score.loss_nats_per_token.value * language.num_tokens
            for per, number in (
                (score.loss_nats_per_character, language.num_characters),
                (score.loss_nats_per_word, language.num_words),
                (score.bits_per_byte, num_bytes * np.log(2)),
            ):
                assert per.value == pytest.approx(nats / number)
                assert per.standard_error > 0
            assert 0 <= score.exact_match_given_length.value <= 1
    metrics = [
        {"step": s, "loss_nats_en": 5 - s / 50, "loss_nats_zh": 6 - s / 50,
         "validation_loss_nats_en": 5.0} for s in range(10, 100, 10)
    ]  # fmt: skip
    draw_curves(metrics, report, tmp_path / "loss.png")
    draw_exact(report, tmp_path / "exact.svg")
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exact.svg", "loss.png"]


def test_without_training_text_the_baselines_are_left_out(lm, asked):
    assert len(evaluate_blanks(lm, asked).languages[0].scores) == 2


def test_a_model_whose_loss_is_no_number_is_named(lm, asked, monkeypatch):
    nothing = np.full(12, np.nan)
    monkeypatch.setattr(blanks, "_loss", lambda *_, **__: (nothing, nothing))
    with pytest.raises(CheckpointError, match="not a finite number"):
        evaluate_blanks(lm, asked)
