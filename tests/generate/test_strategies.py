"""Every strategy and search: as filled by hand, the same alone as in any batch."""

import itertools
import math

import numpy as np
import pytest
import torch

from blankfill.config.filling import BeamSearch, Wish, wish_of
from blankfill.errors import BlankfillError, RequestError
from blankfill.generate.sampling import (
    Sampling,
    kept_tokens,
    min_p_filter,
    top_k_filter,
    typical_filter,
)
from blankfill.generate.search import fill_tokens
from blankfill.model.glm import GLM
from conftest import language_model
from generate.by_hand import (
    SCHEMES,
    NearError,
    fill_by_hand,
    make_model,
    make_prompts,
    next_log_probs,
)

STRATEGIES = ["left_to_right", "confident", "independent", "refine", "splice"]
IN_ANY_ORDER = ("confident", "independent")


def fits(scheme, strategy):
    return scheme != "original" or strategy not in IN_ANY_ORDER


CASES = [
    (name, scheme, strategy)
    for (name, scheme), strategy in itertools.product(SCHEMES, STRATEGIES)
    if fits(scheme, strategy)
]


@pytest.fixture(scope="module")
def models():
    return {name: make_model(name) for name in ("ours", "glm", "glm-130b")}


@pytest.mark.parametrize(("name", "scheme", "strategy"), CASES)
def test_every_strategy_fills_what_is_filled_by_hand(models, ids, name, scheme, strategy):
    lm = language_model(models[name], ids, scheme=scheme)
    prompts = make_prompts(ids, [1, 9, 20, 33], most_blanks=5)
    filled = fill_tokens(lm, prompts, max_new_tokens=3, wish=Wish(strategy=strategy))
    compared = 0
    for tokens, text in zip(prompts, filled, strict=True):
        try:
            expected = fill_by_hand(lm, tokens, strategy, 3)
        except NearError:
            continue
        assert [blank.tokens.tolist() for blank in text.blanks] == [fill for fill, _ in expected]
        for blank, (_, logprob) in zip(text.blanks, expected, strict=True):
            assert blank.logprob == pytest.approx(logprob, abs=1e-5 * (1 + len(blank.tokens)) * 4)
        compared += 1
    assert compared >= 3


SEARCHES = {
    "greedy": {},
    "drawn": {"sampling": Sampling(temperature=1.0, top_k=20, top_p=0.9, min_p=0.01, seed=3)},
    "beams": {"wish": BeamSearch(width=3)},
    "candidates": {"num_candidates": 3},
    "drawn candidates": {"num_candidates": 3, "sampling": Sampling(temperature=0.8, typical=0.9)},
}


def answers(text):
    fills = [[blank, *blank.others] for blank in text.blanks]
    return [[(fill.tokens.tolist(), fill.ended) for fill in each] for each in fills]


@pytest.mark.parametrize(
    ("name", "scheme", "strategy", "search"),
    [(*case, "beams") for case in CASES]
    + [("ours", "corrupted", *each) for each in itertools.product(STRATEGIES, SEARCHES)],
)
def test_no_batch_changes_an_answer(models, ids, name, scheme, strategy, search):
    lm = language_model(models[name], ids, scheme=scheme)
    options = dict(SEARCHES[search])
    wish = Wish(strategy=strategy, beams=options.pop("wish", None))
    prompts = make_prompts(ids, [1, 9, 30, 12])
    prompts.append(prompts[1].copy())  # shares its Part A with another
    options |= {"max_new_tokens": 3, "wish": wish}
    alone = [fill_tokens(lm, [prompt], **options)[0] for prompt in prompts]
    order = np.random.default_rng(1).permutation(len(prompts))
    for batch_size in (4, 32):
        told = []
        together = fill_tokens(
            lm, [prompts[i] for i in order], batch_size=batch_size, advance=told.append, **options
        )
        assert sum(told) == len(prompts)
        for i, text in zip(order, together, strict=True):
            assert answers(text) == answers(alone[i])
            for blank, single in zip(text.blanks, alone[i].blanks, strict=True):
                assert blank.logprob == pytest.approx(single.logprob, abs=1e-4)


@pytest.mark.parametrize("penalty", ["none", "glm", "glm-130b"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_beam_is_greedy(models, ids, strategy, penalty):
    lm = language_model(models["ours"], ids)
    prompts = make_prompts(ids, [9, 30])
    greedy = fill_tokens(lm, prompts, max_new_tokens=3, wish=Wish(strategy=strategy))
    wish = Wish(strategy=strategy, beams=BeamSearch(width=1, penalty=penalty))
    for one, other in zip(
        greedy, fill_tokens(lm, prompts, max_new_tokens=3, wish=wish), strict=True
    ):
        assert answers(one) == answers(other)
        for blank, single in zip(one.blanks, other.blanks, strict=True):
            assert blank.logprob == pytest.approx(single.logprob, abs=1e-5)


def every_fill(lm, tokens, closed, blank, words, limit):
    """Log-probability of every fill of a blank, its end counted; cut off where it is best so."""
    found = {}
    so_far = {(): 0.0}
    for length in range(limit + 1):
        longer = {}
        for fill, logprob in so_far.items():
            after = next_log_probs(lm, tokens, closed, blank, list(fill))
            end = max(float(after[lm.ids.eop]), float(after[lm.ids.eos]))
            ended = length < limit or end == float(after.max())
            found[fill] = (logprob + end * ended, length + ended)
            longer |= {(*fill, word): logprob + float(after[word]) for word in words}
        so_far = longer
    return found


@pytest.mark.parametrize("penalty", ["none", "glm", "glm-130b"])
def test_wide_beams_find_what_trying_everything_finds(ids, penalty):
    lm = language_model(make_model(vocab_size=11), ids)
    words = range(8, 11)
    tokens = np.array([8, ids.mask, 10, 9], np.int32)
    search = BeamSearch(width=256, penalty=penalty)
    scores = {
        fill: search.score(*found)
        for fill, found in every_fill(lm, tokens, [], 0, words, 3).items()
    }
    expected = sorted(scores, key=scores.get, reverse=True)
    (text,) = fill_tokens(
        lm, [tokens], max_new_tokens=3, num_candidates=30, wish=Wish(beams=search)
    )
    (blank,) = text.blanks
    found = [tuple(fill.tokens.tolist()) for fill in (blank, *blank.others)]
    assert len(set(found)) == 30
    assert found == expected[:30]
    if penalty == "glm-130b":  # the end is counted, the text around the blank is not
        ended = next(fill for fill in (blank, *blank.others) if fill.ended)
        expected = ended.logprob / ((5 + len(ended.tokens) + 1) / 6)
        assert scores[tuple(ended.tokens.tolist())] == pytest.approx(expected, abs=1e-4)


def test_joint_beams_find_the_best_fills_of_all_blanks_together(ids):
    lm = language_model(make_model(vocab_size=11), ids)
    tokens = np.array([8, ids.mask, 10, ids.mask], np.int32)
    wish = wish_of(
        strategy="left_to_right", num_candidates=12, joint=True, beams=1, length_penalty="glm",
        temperature=0.0,
    )  # fmt: skip
    scores = {}
    for first, (logprob, _) in every_fill(lm, tokens, [], 0, range(8, 11), 1).items():
        rest = every_fill(lm, tokens, [(0, list(first))], 1, range(8, 11), 1)
        scores |= {(first, second): logprob + found for second, (found, _) in rest.items()}
    expected = sorted(scores, key=scores.get, reverse=True)[:12]
    wide = Wish(beams=BeamSearch(width=64, penalty="none"), joint=True)
    for each in (wide, wish):
        (text,) = fill_tokens(lm, [tokens], max_new_tokens=1, num_candidates=12, wish=each)
        found = [tuple(tuple(blank.tokens.tolist()) for blank in fills) for fills in text.together]
        assert len(found) == 12
        assert found[0] == tuple(tuple(blank.tokens.tolist()) for blank in text.blanks)
        if each is wide:
            assert found == expected
        for fills, texts in zip(text.together, found, strict=True):
            logprob = sum(blank.logprob for blank in fills)
            assert logprob == pytest.approx(scores[texts], abs=1e-4)


def test_independent_joint_fills_are_the_best_products(models, ids):
    lm = language_model(models["ours"], ids)
    prompts = make_prompts(ids, [30], most_blanks=4)
    wish = Wish(strategy="independent", joint=True)
    (text,) = fill_tokens(lm, prompts, max_new_tokens=3, num_candidates=5, wish=wish)
    lists = [[blank, *blank.others] for blank in text.blanks]
    sums = sorted(sum(f.logprob for f in fills) for fills in itertools.product(*lists))[::-1]
    found = [sum(fill.logprob for fill in fills) for fills in text.together]
    assert found == pytest.approx(sums[:5])


def test_joint_draws_are_draws_of_whole_texts(models, ids):
    lm = language_model(models["ours"], ids)
    prompts = make_prompts(ids, [30], most_blanks=4)
    sampling = Sampling(temperature=1.0, seed=4)
    options = {"max_new_tokens": 3, "sampling": sampling}
    (single,) = fill_tokens(lm, prompts, **options)
    (text,) = fill_tokens(lm, prompts, num_candidates=6, wish=Wish(joint=True), **options)
    assert answers(text) == answers(single)
    assert len(text.together) == 6
    found = [sum(fill.logprob for fill in fills) for fills in text.together]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) > 1


def test_only_splice_encodes_part_a_again(models, ids, monkeypatch):
    lm = language_model(models["ours"], ids)
    (prompt,) = prompts = make_prompts(ids, [60], seed=7, most_blanks=5)
    blanks = int(np.isin(prompt, [ids.mask, ids.smask, ids.gmask]).sum())
    assert blanks > 2
    calls = []
    forward = GLM.forward

    def counted(self, tokens, *rest, **more):
        calls.append(tokens.numel())
        return forward(self, tokens, *rest, **more)

    monkeypatch.setattr(GLM, "forward", counted)
    for strategy in STRATEGIES:
        calls.clear()
        fill_tokens(lm, prompts, max_new_tokens=3, wish=Wish(strategy=strategy))
        encoded = [count for count in calls if count >= len(prompt) - blanks]
        assert len(encoded) == (blanks if strategy == "splice" else 1), strategy


@pytest.mark.parametrize(
    "wanted",
    [
        {"joint": True, "strategy": "confident"},
        {"joint": True, "strategy": "splice"},
        {"beams": 3, "temperature": 1.0},
        {"beams": 3, "num_candidates": 1000},
    ],
)
def test_what_does_not_go_together_is_refused(wanted):
    plain = {
        "strategy": "left_to_right", "num_candidates": 1, "joint": False, "beams": 1,
        "length_penalty": "glm", "temperature": 0.0,
    }  # fmt: skip
    with pytest.raises(RequestError):
        wish_of(**plain | wanted)


@pytest.mark.parametrize("strategy", IN_ANY_ORDER)
def test_positions_that_count_earlier_fills_ask_for_an_order(models, ids, strategy):
    lm = language_model(models["ours"], ids, scheme="original")
    with pytest.raises(RequestError, match="original"):
        fill_tokens(lm, make_prompts(ids, [9]), wish=Wish(strategy=strategy))


def test_a_text_that_grows_too_long_has_its_error_and_the_others_their_fills(models, ids):
    lm = language_model(models["ours"], ids)
    long = np.full(126, 9, np.int32)
    long[[3, 60]] = ids.mask
    short = np.array([9, ids.mask, 10], np.int32)
    options = {"lengths": [8, 8], "wish": Wish(strategy="splice")}
    first, second = fill_tokens(lm, [long, short], **options)
    assert first.error is not None
    assert "133" in first.error
    assert second.error is None
    assert len(second.blanks[0].tokens) == 8


def test_a_rule_of_draws_keeps_what_it_says():
    log_probs = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()

    def kept(found):
        return torch.isfinite(found)[0].tolist()

    assert kept(top_k_filter(log_probs, 2)) == [True, True, False, False]
    assert kept(top_k_filter(log_probs, 0)) == [True] * 4
    assert kept(top_k_filter(log_probs, 99)) == [True] * 4
    assert kept(min_p_filter(log_probs, 0.3)) == [True, True, True, False]
    assert kept(min_p_filter(log_probs, 1.0)) == [True, False, False, False]
    # The entropy is 1.21 nats; surprises are 0.69, 1.39, 1.90 and 2.30.
    assert kept(typical_filter(log_probs, 0.2)) == [False, True, False, False]
    assert kept(typical_filter(log_probs, 0.7)) == [True, True, False, False]
    assert kept(typical_filter(log_probs, 1.0)) == [True] * 4


def test_rules_of_draws_apply_one_after_the_other():
    log_probs = torch.tensor([[0.4, 0.3, 0.2, 0.1, 0.0]]).log()
    drawn = kept_tokens(log_probs, Sampling(temperature=1.0, top_k=3, top_p=0.7))
    # Of the first three, 0.44, 0.33 and 0.22, two reach 0.7.
    assert drawn[0].tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0, 0], abs=1e-6)
    assert float(kept_tokens(log_probs, Sampling(temperature=1.0))[0, 4]) == 0.0


@pytest.mark.parametrize(
    "values", [{"top_k": -1}, {"min_p": 1.5}, {"typical": 0.0}, {"min_p": math.nan}]
)
def test_impossible_rules_of_draws_are_refused(values):
    with pytest.raises(BlankfillError):
        Sampling(**values)
