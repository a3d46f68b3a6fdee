import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.errors import ConfigError, RequestError
from blankfill.generate.sampling import Sampling, choose, top_p_filter
from blankfill.generate.search import fill_tokens
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask
from blankfill.objective.blank import build_prompt
from blankfill.objective.mask import visible
from blankfill.objective.positions import blank_positions
from blankfill.rng import generator
from conftest import language_model

SCHEMES = ["corrupted", "linear", "original"]


@pytest.fixture(scope="module")
def model():
    cfg = ModelConfig(
        vocab_size=60, hidden_size=32, num_layers=2, num_heads=2, ffn_size=48, max_position=128
    )
    model = GLM(cfg)
    init_weights(model, 5)
    generator_ = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # far from its start, so that answers are sharp
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator_))
    return model.eval()


@pytest.fixture
def prompts(ids):
    rng = np.random.default_rng(0)

    def prompt(length, masks):
        tokens = rng.integers(8, 60, length).astype(np.int32)
        for index, mask in masks:
            tokens[index] = mask
        return tokens

    return [
        prompt(7, [(2, ids.mask), (5, ids.mask)]),
        prompt(1, [(0, ids.gmask)]),
        prompt(40, [(0, ids.mask), (20, ids.smask), (39, ids.gmask)]),
        prompt(12, [(11, ids.gmask)]),
        prompt(25, [(i, ids.mask) for i in range(0, 24, 3)]),
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_p=0.9, seed=3)])
def test_a_batch_gives_the_answers_of_one_by_one(model, prompts, ids, scheme, sampling):
    lm = language_model(model, ids, scheme=scheme)
    options = {"max_new_tokens": 10, "sampling": sampling}
    together = fill_tokens(lm, prompts, **options)
    alone = [fill_tokens(lm, [prompt], **options)[0] for prompt in prompts]
    for batch, single in zip(together, alone, strict=True):
        assert np.array_equal(batch.tokens, single.tokens)
        for a, b in zip(batch.blanks, single.blanks, strict=True):
            # float32 sums over padded keys in another order
            assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
            assert a.ended == b.ended


@pytest.mark.parametrize("scheme", SCHEMES)
def test_cached_generation_scores_what_one_full_pass_scores(model, prompts, ids, scheme):
    tokens = prompts[2]
    lm = language_model(model, ids, scheme=scheme)
    filled = fill_tokens(lm, [tokens], max_new_tokens=6)[0]
    prompt = build_prompt(tokens, ids)
    inputs, targets, positions, lengths = [], [], [prompt.positions], []
    for blank, kind, index in zip(filled.blanks, prompt.kinds, prompt.blanks, strict=True):
        inputs += [ids.sop, *blank.tokens]
        targets += [*blank.tokens, ids.eop if blank.ended else None]
        positions.append(
            blank_positions(
                scheme, kind, mask_index=int(index), part_a_length=len(tokens),
                earlier_lengths=lengths, num_inputs=1 + len(blank.tokens),
            )
        )  # fmt: skip
        lengths = [*lengths, len(blank.tokens)]
    sequence = np.concatenate([tokens, np.array(inputs)])
    seen = visible(np.zeros(len(sequence), np.int32), np.arange(len(sequence)) >= len(tokens))
    with torch.no_grad():
        hidden = model(
            torch.tensor(sequence)[None].long(),
            torch.tensor(np.concatenate(positions, axis=1))[None].long(),
            DenseMask(torch.tensor(seen)[None]),
        )
        logits = model.logits(hidden)[0]
    logits[:, [ids.mask, ids.smask, ids.gmask, ids.sop, ids.pad, ids.dblock]] = float("-inf")
    log_probs = logits.log_softmax(-1)
    expected = sum(
        float(log_probs[len(tokens) + i, t]) for i, t in enumerate(targets) if t is not None
    )
    # eos also ends a blank; its probability is counted where it was chosen instead of eop
    if any(int(log_probs[len(tokens) + i].argmax()) == ids.eos for i in range(len(targets))):
        pytest.skip("this model ends a blank in eos")
    assert sum(b.logprob for b in filled.blanks) == pytest.approx(expected, abs=1e-3)


def test_the_fills_stand_where_the_masks_stood(model, prompts, ids):
    filled = fill_tokens(language_model(model, ids), prompts)
    for prompt, result in zip(prompts, filled, strict=True):
        rebuilt, blanks = [], list(result.blanks)
        for token in prompt:
            rebuilt += (
                blanks.pop(0).tokens.tolist() if token in (ids.mask, ids.smask, ids.gmask)
                else [token]
            )  # fmt: skip
        assert result.tokens.tolist() == rebuilt


def test_forced_tokens_begin_the_fill(model, prompts, ids):
    forced = [[[50, 51, ids.eop], [52]]]
    result = fill_tokens(language_model(model, ids), prompts[:1], forced=forced)[0]
    assert result.blanks[0].tokens.tolist() == [50, 51]
    assert result.blanks[0].ended
    assert result.blanks[1].tokens[0] == 52


def test_forced_tokens_past_the_limit_are_cut_off(model, prompts, ids):
    lm = language_model(model, ids)
    forced = [[[50, 51, 52, ids.eop], [53]]]
    (result,) = fill_tokens(lm, prompts[:1], max_new_tokens=2, forced=forced)
    assert result.blanks[0].tokens.tolist() == [50, 51]
    assert not result.blanks[0].ended
    assert result.blanks[1].tokens[0] == 53
    (whole,) = fill_tokens(lm, prompts[:1], max_new_tokens=3, forced=[[[50, 51]]])
    assert result.blanks[0].logprob > whole.blanks[0].logprob


def test_a_forced_beginning_has_no_other_candidates(model, prompts, ids):
    lm = language_model(model, ids)
    options = {"max_new_tokens": 3, "num_candidates": 3}
    (forced,) = fill_tokens(lm, prompts[:1], forced=[[[50, ids.eop]]], **options)
    assert forced.blanks[0].others == ()
    assert len(forced.blanks[1].others) == 2
    first = {blank.tokens[:1].tobytes() for blank in (forced.blanks[1], *forced.blanks[1].others)}
    assert len(first) == 3


def test_a_fill_of_a_given_length_takes_the_best_token_that_does_not_end_it(model, prompts, ids):
    tokens = np.append(prompts[0][:5], prompts[0][6:])  # one blank
    (free,) = fill_tokens(language_model(model, ids), [tokens], max_new_tokens=12)
    for length in (1, 4, 12):
        (held,) = fill_tokens(language_model(model, ids), [tokens], lengths=[length])
        (blank,) = held.blanks
        assert len(blank.tokens) == length
        prompt = build_prompt(tokens, ids)
        inputs = np.concatenate([prompt.tokens, [ids.sop], blank.tokens])
        positions = np.concatenate(
            [prompt.positions,
             blank_positions("corrupted", prompt.kinds[0], mask_index=int(prompt.blanks[0]),
                             part_a_length=len(tokens), earlier_lengths=[],
                             num_inputs=1 + length)], axis=1,
        )  # fmt: skip
        part_b = np.arange(len(inputs)) >= len(tokens)
        seen = visible(np.zeros(len(inputs), np.int32), part_b)
        with torch.no_grad():
            hidden = model(
                torch.from_numpy(inputs)[None].long(),
                torch.from_numpy(positions)[None].long(),
                DenseMask(torch.from_numpy(seen)[None]),
            )
            logits = model.logits(hidden)[0, len(tokens) : -1].clone()
        logits[:, :8] = -torch.inf  # the special tokens, those that end a blank among them
        assert logits.argmax(-1).tolist() == blank.tokens.tolist()
    same = min(len(free.blanks[0].tokens), 12)
    assert blank.tokens[:same].tolist() == free.blanks[0].tokens[:same].tolist()


def test_input_specials_are_never_generated(model, prompts, ids):
    sampling = Sampling(temperature=5.0, seed=1)
    lm = language_model(model, ids)
    for result in fill_tokens(lm, prompts, sampling=sampling, max_new_tokens=40):
        for blank in result.blanks:
            assert not set(blank.tokens.tolist()) & set(range(8))


def test_a_text_without_a_blank_is_refused(model, ids):
    with pytest.raises(RequestError, match=r"\[MASK\]"):
        fill_tokens(language_model(model, ids), [np.array([9, 10])])


def test_a_text_longer_than_the_positions_is_refused(model, ids):
    with pytest.raises(RequestError, match="reads 128"):
        fill_tokens(language_model(model, ids), [np.array([ids.mask] + [9] * 128)])


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = [
        int(torch.isfinite(top_p_filter(log_probs, p)).sum()) for p in (0.01, 0.49, 0.51, 0.96, 1)
    ]
    assert kept == [1, 1, 2, 4, 4]


def test_draws_follow_the_probabilities():
    # 4,000 draws: 3 degrees of freedom, 99.99 % quantile of chi-square 21.1.
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    log_probs = probabilities.log().expand(4000, 4)
    rngs = [generator(0, "test", i) for i in range(4000)]
    counts = choose(log_probs, Sampling(temperature=1.0), rngs).bincount(minlength=4)
    assert float(((counts - 4000 * probabilities) ** 2 / (4000 * probabilities)).sum()) < 21.1


def test_more_candidates_than_there_are_first_tokens_are_as_many_as_there_are(model, prompts, ids):
    # Ids from 50 on only pad the vocabulary, as the embedding of a real tokenizer has them.
    lm = language_model(model, ids, num_tokens=50)
    never = {ids.mask, ids.smask, ids.gmask, ids.sop, ids.pad, ids.dblock}
    for text in fill_tokens(lm, prompts[:3], num_candidates=10**6, max_new_tokens=1):
        for blank in text.blanks:
            fills = [blank, *blank.others]
            firsts = [fill.tokens[0] if len(fill.tokens) else -1 for fill in fills]
            assert set(firsts) == set(range(50)) - never - {ids.eop, ids.eos} | {-1}
            assert firsts.count(-1) == 2  # one that is empty and ends in eop, and one in eos
            assert len(fills) == 50 - len(never)


class _Draw:
    """A generator that gives one number."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@pytest.mark.parametrize("temperature", [1e-4, 0.03, 1.0, 300.0, 1e4])
def test_a_draw_follows_the_law_at_every_temperature_that_may_be_given(temperature):
    # The last two tokens may never appear. Draws in the middle of each token's part give it back,
    # and so do the smallest and the largest draw there are for the first and the last.
    log_probs = torch.tensor([-9.0, -9.0 - temperature, -9.0 - 3 * temperature, -np.inf, -np.inf])
    law = np.exp([0.0, -1.0, -3.0])
    edges = np.append(0, np.cumsum(law / law.sum()))
    draws = [0.0, *(edges[:-1] + edges[1:]) / 2, np.nextafter(1, 0)]
    rows = log_probs.expand(len(draws), 5)
    chosen = choose(rows, Sampling(temperature=temperature), [_Draw(u) for u in draws])
    assert chosen.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_sampling_is_refused(values):
    with pytest.raises(ConfigError):
        Sampling(**values)
