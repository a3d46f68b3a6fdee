"""Fills obey their bounds, whatever searches for them; bounds that cannot be obeyed are told."""

import builtins
import random
import re
import sys

import numpy as np
import pytest
import torch

from blankfill.cli.main import main
from blankfill.config.filling import Bounds
from blankfill.config.model import ModelConfig
from blankfill.errors import BlankfillError, RequestError
from blankfill.generate import expression
from blankfill.generate.spelling import spelling_of
from blankfill.generate.words import Phrases, automaton_of
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.text.tokenizer import Tokenizer
from conftest import language_model

TEXTS = ["the old fox [MASK] the river.", "人山水[MASK]天地，[MASK]看书。"]
LIMIT = 12


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return Tokenizer.load(tokenizer_folder)


@pytest.fixture(scope="module")
def lm(tokenizer):
    cfg = ModelConfig(
        vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, ffn_size=48, max_position=128
    )
    model = GLM(cfg)
    init_weights(model, 1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return language_model(model.eval(), tokenizer)


def holds(word):
    """Whether a text holds a word: whole where it is of letters, in Chinese anywhere."""
    inner = re.escape(word)
    if word.isascii():
        return lambda text: bool(re.search(rf"(?<![A-Za-z0-9]){inner}(?![A-Za-z0-9])", text))
    return lambda text: word in text


def bare(text):
    return text.removeprefix(" ")


BOUNDS = {
    "least": ({"min_tokens": 4}, lambda f: len(f.tokens) >= 4),
    "most": ({"max_tokens": 2}, lambda f: len(f.tokens) <= 2),
    "exactly": ({"min_tokens": 3, "max_tokens": 3}, lambda f: len(f.tokens) == 3),
    "required": ({"required": ["dog"]}, lambda f: holds("dog")(f.text)),
    "two words": (
        {"required": ["dog", "水"], "max_tokens": 8},
        lambda f: holds("dog")(f.text) and "水" in f.text,
    ),
    "forbidden": (
        {"forbidden": ["the", "山"], "min_tokens": 5},
        lambda f: not holds("the")(f.text) and "山" not in f.text,
    ),
    "begin": ({"begin_with": "re"}, lambda f: bare(f.text).startswith("re")),
    "end": ({"end_with": "ds"}, lambda f: f.text.endswith("ds")),
    "both": (
        {"begin_with": "ab", "end_with": "ba"},
        lambda f: bare(f.text).startswith("ab") and f.text.endswith("ba") and len(f.text) >= 4,
    ),
    "no piece": ({"required": ["龘"]}, lambda f: "龘" in f.text),
    "allowed": ({"allowed": ["reads", "sees", "水火"]},
                lambda f: bare(f.text) in ("reads", "sees", "水火")),
    "allowed and more": (
        {"allowed": ["reads", "sees", "sees bread"], "required": ["sees"]},
        lambda f: bare(f.text) in ("sees", "sees bread"),
    ),
}  # fmt: skip
SEARCHES = {
    "greedy": {},
    "drawn": {"temperature": 1.5, "seed": 3, "num_candidates": 3},
    "beams": {"beams": 3},
    "candidates": {"num_candidates": 3, "strategy": "confident"},
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", BOUNDS)
def test_every_fill_obeys(lm, name, search):
    values, obeys = BOUNDS[name]
    options = {"bounds": Bounds(**values), "max_new_tokens": LIMIT, **SEARCHES[search]}
    items = lm.fill(TEXTS, **options)
    for item in items:
        assert item.error is None, item.error
        for blank in item.blanks:
            for fill in (blank, *blank.candidates):
                assert fill.ended
                assert len(fill.tokens) <= LIMIT
                assert obeys(fill), fill
    alone = lm.fill(TEXTS[1], **options)
    assert alone.text == items[1].text
    for blank, single in zip(items[1].blanks, alone.blanks, strict=True):
        assert [c.text for c in blank.candidates] == [c.text for c in single.candidates]


EXPRESSIONS = ["[a-z]{3,9}", "(dog|fox)s?", "[0-9]{4}", "[一-龥]{2}", "x|", "a/b\\.?", "(a*)*b"]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("pattern", EXPRESSIONS)
def test_every_fill_matches_its_expression(lm, pattern, search):
    pytest.importorskip("llguidance")
    options = {"bounds": Bounds(regex=pattern), "max_new_tokens": LIMIT, **SEARCHES[search]}
    for item in lm.fill(TEXTS, **options):
        assert item.error is None, item.error
        for blank in item.blanks:
            for fill in (blank, *blank.candidates):
                assert fill.ended
                assert re.fullmatch(pattern, bare(fill.text)), fill.text


def test_a_match_has_bytes_for_characters_without_a_piece_alone(lm, tokenizer):
    pytest.importorskip("llguidance")
    bounds = Bounds(regex=".{6}")
    for item in lm.fill(TEXTS, bounds=bounds, temperature=3.0, num_candidates=4):
        pieces = [p for b in item.blanks for f in (b, *b.candidates) for p in f.tokens]
        assert pieces
        for byte in (int(p[3:5], 16) for p in pieces if re.fullmatch("<0x..>", p)):
            assert byte < 128
            (token,) = tokenizer.encode(chr(byte)).tolist()
            assert tokenizer.token(token) == f"<0x{byte:02X}>"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("[", "unclosed"),
        ("(?=a)b", "look-around"),
        ("a{1000}{1000}", "matches"),
        ("[a-z]{100}", "at most 12 characters"),
        ("((a|b)*a(a|b){400})", "expression"),
        ("", "0 characters"),
        ("a" * 3000, "3,000 characters"),
    ],
)
def test_an_expression_that_cannot_be_followed_is_told(lm, pattern, says):
    pytest.importorskip("llguidance")
    with pytest.raises(RequestError, match=says) as told:
        lm.fill(TEXTS[0], bounds=Bounds(regex=pattern), max_new_tokens=LIMIT)
    assert "\n" not in str(told.value)


def test_without_the_library_an_expression_says_how_to_get_it(lm, monkeypatch):
    found = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("llguidance"):
            raise ImportError(name)
        return found(name, *rest, **more)

    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.setattr(builtins, "__import__", without)
    expression.expression_of.cache_clear()
    with pytest.raises(RequestError, match=r"pip install 'blankfill\[constraints\]'"):
        lm.fill(TEXTS[0], bounds=Bounds(regex="[a-c]+"))


def test_most_tokens_may_be_more_than_the_limit_of_the_call(lm):
    bounds = Bounds(min_tokens=9, max_tokens=9)
    (blank,) = lm.fill(TEXTS[0], bounds=bounds, max_new_tokens=3).blanks
    assert len(blank.tokens) == 9
    assert blank.ended


def test_a_stop_ends_the_fill_before_it(lm):
    free = lm.fill(TEXTS[0], max_new_tokens=8, bounds=Bounds(min_tokens=8))
    text = free.blanks[0].text
    for at in range(1, len(text)):
        stop = text[at : at + 2]
        (blank,) = lm.fill(TEXTS[0], max_new_tokens=8, bounds=Bounds(stop=[stop])).blanks
        assert stop not in blank.text[1:]
        assert blank.ended


def test_what_follows_a_stopped_fill_is_as_if_it_had_ended_there(lm, tokenizer):
    text = "the old fox [MASK] the river [MASK] and a dog."
    options = {"max_new_tokens": 6}
    free = lm.fill(text, bounds=Bounds(min_tokens=3), **options).blanks[0].text
    stopped = lm.fill(text, bounds=Bounds(stop=[free[-2:]]), **options)
    first = stopped.blanks[0].text
    scored = lm.score(text, [bare(blank.text) or "the" for blank in stopped.blanks])
    if first.startswith(" ") and stopped.blanks[1].text.startswith(" "):
        assert scored.candidates[0].blanks[1].logprob == pytest.approx(
            np.log(stopped.blanks[1].probability), abs=1e-3
        )


def test_the_only_fills_are_listed_as_they_rank(lm):
    fills = ["reads", "sees the dog", "sells", "水火", "brings bread"]
    item = lm.fill(TEXTS[0], bounds=Bounds(allowed=fills), num_candidates=5)
    ranked = lm.rank(TEXTS[0], fills).candidates
    assert [bare(one.text) for one in item.blanks[0].candidates] == [r.fills[0] for r in ranked]
    for one, other in zip(item.blanks[0].candidates, ranked, strict=True):
        assert one.probability == pytest.approx(other.probability, rel=1e-3)
    assert item.blanks[0].text == item.blanks[0].candidates[0].text


def test_the_automaton_says_of_every_text_what_reading_it_says(tokenizer):
    rng = random.Random(4)
    spelling = spelling_of(tokenizer)
    checked = 0
    for _ in range(60):
        words = [rng.choice(["ab", "a", "ba", "水", "b c", "水火"]) for _ in range(3)]
        phrases = Phrases(
            begin=rng.choice(["", " ", "a", "ab"]), end=rng.choice(["", "b", "ab", "火"]),
            required=tuple(words[: rng.randint(0, 2)]), forbidden=(words[2],),
            has_inside=rng.random() < 0.3,
        )  # fmt: skip
        if set(phrases.required) & set(phrases.forbidden):
            continue
        try:
            automaton = automaton_of(spelling, phrases)
        except RequestError:
            continue
        assert automaton.distance[0] < 2**20
        for _ in range(40):
            text = "".join(rng.choice("ab水火 c.") for _ in range(rng.randint(0, 9)))
            if rng.random() < 0.5:
                text = phrases.begin + text + phrases.end
            state = 0
            for token in tokenizer.encode(text).tolist():
                state = int(automaton.following[state, token])
            inner = len(text) - len(phrases.begin) - len(phrases.end)
            expected = (
                text.startswith(phrases.begin) and text.endswith(phrases.end)
                and inner >= phrases.has_inside
                and all(holds(word)(text) for word in phrases.required)
                and not any(holds(word)(text) for word in phrases.forbidden)
            )  # fmt: skip
            assert bool(automaton.accepts[state]) == expected, (phrases, text)
            checked += expected
    assert checked > 50


CONTRADICTIONS = [
    ({"min_tokens": 5, "max_tokens": 2}, "min_tokens=5 is above max_tokens=2"),
    ({"required": ["dog"], "forbidden": ["dog"]}, "required and forbidden"),
    ({"stop": ["a"], "required": ["b"]}, "stop"),
    ({"stop": ["a"], "begin_with": "cab"}, "stop"),
    ({"required": [""]}, "empty"),
    ({"allowed": [""]}, "empty"),
    ({"forbidden": [3]}, "texts"),
    ({"begin_with": "\ud800"}, "Unicode"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
]


@pytest.mark.parametrize(("values", "says"), CONTRADICTIONS)
def test_contradictory_bounds_are_told(values, says):
    with pytest.raises(BlankfillError, match=says):
        Bounds(**values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"min_tokens": 50}, "max_new_tokens=12"),
        ({"min_tokens": 500, "max_tokens": 600}, "this model writes"),
        ({"required": ["abcdefghijklmnopqrstuvwxyz"], "max_tokens": 2}, "at least"),
        ({"required": ["a dog"], "forbidden": ["dog"]}, "forbidden"),
        ({"begin_with": "dog ", "forbidden": ["dog"]}, "forbidden"),
        ({"allowed": ["dog"], "forbidden": ["dog"]}, "none of the allowed"),
        ({"allowed": ["a dog reads the books"], "max_tokens": 2}, "tokens and a fill may"),
        ({"allowed": [" "]}, "no token"),
        ({"required": [f"word{i}x{i}" for i in range(14)]}, "too many"),
    ],
)
def test_bounds_that_no_fill_obeys_are_told(lm, values, says):
    with pytest.raises(RequestError, match=says) as told:
        lm.fill(TEXTS[0], bounds=Bounds(**values), max_new_tokens=12)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "words",
    [
        ["--min-tokens", "5", "--max-tokens", "2"],
        ["--required", "dog", "--forbidden", "dog"],
        ["--min-tokens", "5", "--max-new-tokens", "2"],
        ["--strategy", "backwards"],
        ["--joint", "--strategy", "refine"],
        ["--beams", "3", "--temperature", "1"],
        ["--beams", "0"],
        ["--top-k", "-1"],
        ["--back-off", "99"],
    ],
)
def test_the_verb_refuses_in_one_sentence_before_it_looks_for_the_run(words, capsys):
    assert main(["fill", "no-run", "a [MASK] b", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("blankfill: ")
    assert said.count("\n") == 1
    assert "no-run" not in said
