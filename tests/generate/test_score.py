"""The probability of a candidate: by brute force, beside what filling says, and in any company."""

import dataclasses
import itertools
import json
import math
import threading

import pytest

import blankfill
from blankfill.cli.main import main
from blankfill.errors import RequestError
from blankfill.results import to_dict
from generate.brute_force import known_by_one_pass
from interop.runs import make_run

TEXT = "the old [MASK] reads [sMASK] in the town"
FILLS = ["fox", "books", "young dog", "人山水", "dog", "bread and water", "fox", "a"]


@pytest.fixture(
    scope="module",
    params=[("ours", "corrupted"), ("glm-130b", "linear"), ("glm-10b", "corrupted"),
            ("chatglm-6b", "original")],
)  # fmt: skip
def lm(request, tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("score") / "run"
    return blankfill.load(make_run(folder, tokenizer_folder, *request.param))


def brute_force(lm, spans):
    """Log-probability of every token and end, by one uncached pass."""
    part_a = lm.tokenizer.encode_with_blanks("the old[MASK] reads[sMASK] in the town")
    return known_by_one_pass(lm, part_a, spans)


def test_a_score_is_what_one_pass_over_everything_says(lm):
    scored = lm.score(TEXT, FILLS)
    assert [each.fills for each in scored.candidates] == list(
        zip(FILLS[::2], FILLS[1::2], strict=True)
    )
    for each in scored.candidates:
        spans = [lm.tokenizer.encode(" " + fill) for fill in each.fills]
        values = brute_force(lm, spans)
        ends = values[len(spans[0])] + values[-1]
        assert each.logprob == pytest.approx(sum(values), abs=1e-5)
        assert each.tokens_logprob == pytest.approx(sum(values) - ends, abs=1e-5)
        assert each.mean_logprob == pytest.approx(sum(values) / len(values), abs=1e-5)
        assert each.probability == pytest.approx(math.exp(sum(values)), rel=1e-4)
        assert each.blanks[0].logprob == pytest.approx(sum(values[: len(spans[0]) + 1]), abs=1e-5)
        assert sum(blank.logprob for blank in each.blanks) == pytest.approx(each.logprob)


def test_a_fill_has_the_probability_that_its_score_says(lm):
    filled = lm.fill("the old [MASK] reads", num_candidates=4, max_new_tokens=5).blanks[0]
    ended = [each for each in filled.candidates if each.ended and each.text.strip()]
    for each in ended:
        tokens = lm.tokenizer.encode(each.text)
        if tuple(map(lm.tokenizer.token, tokens.tolist())) == each.tokens and each.text[0] == " ":
            (scored,) = lm.score("the old [MASK] reads", [each.text]).candidates
            # eos ends a fill as well, and has a probability of its own
            assert math.exp(scored.tokens_logprob) >= each.probability * (1 - 1e-4)


def test_company_and_order_change_no_score(lm):
    together = {each.fills: each for each in lm.score(TEXT, FILLS).candidates}
    for fills in itertools.pairwise(FILLS):
        alone = lm.score(TEXT, fills).candidates[0]
        if fills in together:
            assert alone.logprob == pytest.approx(together[fills].logprob, abs=1e-5)


def test_ranks_follow_each_of_the_published_rules(lm):
    keys = {"probability": "logprob", "tokens": "tokens_logprob", "mean": "mean_logprob"}
    for by, key in keys.items():
        values = [getattr(each, key) for each in lm.rank(TEXT, FILLS, by=by).candidates]
        assert values == sorted(values, reverse=True)
        assert len(values) == len(FILLS) // 2
    same = lm.rank("the [MASK]", ["fox", "fox"]).candidates
    assert [each.fills for each in same] == [("fox",), ("fox",)]


def test_threads_get_the_answers_of_one(lm):
    texts = ["the old [MASK] reads", "[MASK] reads books and [MASK] bread"]
    asks = [
        lambda: lm.fill(texts, max_new_tokens=4),
        lambda: lm.generate("the old", max_new_tokens=4, temperature=1.0, seed=3),
        lambda: lm.score(TEXT, FILLS),
        lambda: lm.rank(TEXT, FILLS, by="mean"),
    ]
    alone, found = [ask() for ask in asks], {}

    def work(number):
        found[number] = [ask() for ask in asks[number % 4 :] + asks[: number % 4]]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        assert found[number] == alone[number % 4 :] + alone[: number % 4]


@pytest.mark.parametrize(
    ("text", "candidates", "said"),
    [("no blank", ["a"], "has no blank"), ("a [MASK]", [], "0 given"),
     ("a [MASK] b [MASK]", ["a"], "2 blanks"), ("a [MASK]", ["a", ""], "fill 2 is empty"),
     ("a [MASK]", ["x" * 9000], "tokens and this model writes"),
     ("a [MASK]" + " a" * 9000, ["a"], "tokens and this model reads"),
     ("a [MASK]", ["\ud800"], "not valid Unicode")],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_in_a_sentence(lm, text, candidates, said):
    with pytest.raises(RequestError, match=said):
        lm.score(text, candidates)
    with pytest.raises(RequestError, match=said):
        blankfill.api.rank(lm.path, text, candidates)


def test_the_verbs_are_the_methods(tmp_path, tokenizer_folder, capsys):
    run = make_run(tmp_path / "run", tokenizer_folder, "ours", "corrupted")
    lm = blankfill.load(run)
    for verb, answer in (("score", lm.score(TEXT, FILLS)), ("rank", lm.rank(TEXT, FILLS))):
        assert main([verb, str(run), TEXT, *FILLS, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["candidates"] == answer.to_dict()["candidates"]
        assert main([verb, str(run), TEXT, *FILLS]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[-1] for line in lines] == [
            " ... ".join(each.fills) for each in answer.candidates
        ]
    assert main(["score", str(run), TEXT, "fox"]) == 2
    assert "2 blanks" in capsys.readouterr().err


def test_a_probability_of_zero_is_null(lm):
    (scored,) = lm.score("the [MASK]", ["fox"]).candidates
    never = dataclasses.replace(scored, probability=0.0, logprob=-math.inf)
    assert to_dict(never)["logprob"] is None
    assert json.loads(json.dumps(never.to_dict(), allow_nan=False))["logprob"] is None
    assert repr(scored).startswith("ScoredCandidate(fills=('fox',)")
    item = lm.fill("the [MASK]", max_new_tokens=2)
    assert item.to_dict()["blanks"][0]["text"] == item.blanks[0].text
