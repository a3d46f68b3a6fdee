"""Surprise by word and the score of a whole text: by brute force, in any company, of any length."""

import json
import math

import numpy as np
import pytest

import blankfill
from blankfill.cli.main import main
from blankfill.errors import BlankfillError
from blankfill.generate import known
from blankfill.generate.trim import around_blanks
from generate.brute_force import known_by_one_pass
from interop.runs import make_run

TEXT = "the old fox, 人山水火。 reads\nbooks in the town 3000."
LONG = " ".join(f"the old fox {n} reads books in the town of 人山水火 and sells" for n in range(12))


@pytest.fixture(
    scope="module",
    params=[("ours", "corrupted"), ("glm-130b", "linear"), ("glm-10b", "corrupted"),
            ("chatglm-6b", "original")],
)  # fmt: skip
def lm(request, tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("surprise") / "run"
    return blankfill.load(make_run(folder, tokenizer_folder, *request.param))


def test_a_surprise_is_what_one_pass_over_the_text_without_the_word_says(lm):
    found = lm.surprise(TEXT)
    assert [word.text for word in found.words[:8]] == [
        "the", "old", "fox", ",", "人", "山", "水", "火",
    ]  # fmt: skip
    for word in found.words:
        assert TEXT[word.start : word.start + len(word.text)] == word.text
        begin = word.start - TEXT[: word.start].endswith(" ")
        end = word.start + len(word.text)
        span = lm.tokenizer.encode(TEXT[begin:end])
        part_a = lm.tokenizer.encode_with_blanks(f"{TEXT[:begin]}[MASK]{TEXT[end:]}")
        values = known_by_one_pass(lm, part_a, [span])
        assert word.surprise == pytest.approx(-sum(values[:-1]), abs=1e-5)
        assert word.logprob == pytest.approx(sum(values), abs=1e-5)
        assert word.end_logprob == pytest.approx(values[-1], abs=1e-5)
        assert len(word.tokens) == len(span)
    assert found.total == pytest.approx(sum(word.surprise for word in found.words))
    assert found.mean == pytest.approx(found.total / len(found.words))


def test_a_surprise_is_what_score_says_of_the_word_in_its_place(lm):
    word = lm.surprise("the old fox reads").words[2]
    (scored,) = lm.score("the old [MASK] reads", ["fox"]).candidates
    assert scored.logprob == pytest.approx(word.logprob, abs=1e-5)
    assert scored.tokens_logprob == pytest.approx(-word.surprise, abs=1e-5)


def test_many_words_are_read_in_few_passes_and_the_passes_change_nothing(lm, monkeypatch):
    calls = []
    forward = type(lm.model).forward
    monkeypatch.setattr(
        type(lm.model), "forward", lambda *a, **k: calls.append(1) or forward(*a, **k)
    )
    together = lm.surprise(TEXT)
    assert len(calls) < len(together.words)
    monkeypatch.setattr(known, "PREFIX_POSITIONS", 1)
    monkeypatch.setattr(known, "STEP_POSITIONS", 1)
    alone = lm.surprise(TEXT)
    for one, other in zip(alone.words, together.words, strict=True):
        assert one.surprise == pytest.approx(other.surprise, abs=1e-5)


def test_a_long_text_is_measured_with_what_stands_around_each_word(lm):
    found = lm.surprise(LONG)
    assert lm.tokenizer.encode(LONG).size > 2 * lm.row_length
    word = found.words[len(found.words) // 2]
    begin, end = word.start - 1, word.start + len(word.text)
    part_a = lm.tokenizer.encode_with_blanks(f"{LONG[:begin]}[MASK]{LONG[end:]}")
    room = lm.row_length - len(word.tokens) - 1
    kept = part_a[around_blanks(part_a, lm.ids, room)]
    assert len(kept) == room
    values = known_by_one_pass(lm, kept, [lm.tokenizer.encode(LONG[begin:end])])
    assert word.logprob == pytest.approx(sum(values), abs=1e-5)


@pytest.mark.parametrize("mode", ["bidirectional", "one-way"])
@pytest.mark.parametrize("text", ["fox", TEXT, LONG])
def test_a_whole_text_is_scored_each_token_once(lm, mode, text):
    stride = 50
    found = lm.score(text, mode=mode, stride=stride)
    tokens = lm.tokenizer.encode(text)
    expected, end = [], 0
    while end < len(tokens):
        start, end = end, min(len(tokens), end + stride) if end else min(len(tokens), 127)
        before = tokens[max(0, end - 127) : start]
        if mode == "bidirectional":
            part_a, span = [*before, lm.ids.gmask], tokens[start:end]
        else:
            part_a, span = [lm.ids.gmask], [*before, *tokens[start:end]]
        values = known_by_one_pass(lm, part_a, [span], ends=False)
        expected += values[len(values) - (end - start) :]
    assert found.token_logprobs == pytest.approx(expected, abs=1e-5)
    assert len(found.tokens) == len(tokens)
    assert found.logprob == pytest.approx(sum(expected), abs=1e-4)
    assert found.mean_logprob == pytest.approx(found.logprob / len(tokens))
    assert found.bits_per_byte == pytest.approx(-found.logprob / math.log(2) / len(text.encode()))
    assert (found.num_windows == 1) == (text != LONG)


def test_the_two_ways_differ_once_there_is_text_before(lm):
    both = [lm.score(LONG, mode=mode).logprob for mode in ("bidirectional", "one-way")]
    assert abs(both[0] - both[1]) > 1e-3
    assert lm.score(LONG).logprob == pytest.approx(both[0], abs=1e-9)


@pytest.mark.parametrize("blanks", [[0], [9], [19], [5, 7], [0, 9]])
@pytest.mark.parametrize("room", [10, 13, 19, 20, 25])
def test_what_is_kept_of_a_long_text_holds_its_blanks_and_fills_the_room(ids, blanks, room):
    tokens = np.full(20, 30, np.int32)
    tokens[blanks] = ids.mask
    kept = around_blanks(tokens, ids, room)
    assert kept.stop - kept.start == min(20, room)
    assert 0 <= kept.start <= blanks[0]
    assert blanks[-1] < kept.stop <= 20
    before, after = blanks[0] - kept.start, kept.stop - blanks[-1] - 1
    # One side has less only where there is no more of it.
    assert abs(before - after) <= 1 or kept.start == 0 or kept.stop == 20


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda lm: lm.surprise("the [MASK] fox"), r"has the blank \[MASK\]"),
        (lambda lm: lm.surprise(" \n "), "has no word"),
        (lambda lm: lm.surprise("\ud800 a"), "not valid Unicode"),
        (lambda lm: lm.surprise("the " + "x" * 4000), "the word at character 4 has"),
        (lambda lm: lm.score("the [sMASK] fox"), r"has the blank \[sMASK\]"),
        (lambda lm: lm.score(""), "the text is empty"),
        (lambda lm: lm.score("the fox", stride=127), "stride=127 must be from 1 to 126"),
        (lambda lm: lm.score("a [MASK]", ["fox"], mode="one-way"), "mode=one-way is for a whole"),
        (lambda lm: lm.score("a [MASK]", ["fox"], stride=3), "stride=3 is for a whole text"),
        (lambda lm: lm.score("a [MASK]", []), "0 given"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(lm, ask, said):
    with pytest.raises(BlankfillError, match=said):
        ask(lm)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return make_run(tmp_path_factory.mktemp("verbs") / "run", tokenizer_folder)


def test_the_verbs_are_the_methods(run, capsys):
    lm = blankfill.load(run)
    assert main(["surprise", str(run), TEXT, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["words"] == lm.surprise(TEXT).to_dict()["words"]
    assert main(["surprise", str(run), "the old fox"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[1:] for line in lines] == [["0", "the"], ["4", "old"], ["8", "fox"]]
    for mode in ("bidirectional", "one-way"):
        assert main(["score", str(run), LONG, "--mode", mode, "--stride=9", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)["whole"]
        assert printed == lm.score(LONG, mode=mode, stride=9).to_dict()
        assert main(["score", str(run), LONG, "--mode", mode, "--stride=9"]) == 0
        assert f"{mode}, in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["surprise", "RUN", "a [MASK]"], "has the blank [MASK]"),
        (["surprise", "RUN", ""], "has no word"),
        (["score", "RUN", "a [MASK]"], "has the blank [MASK]"),
        (["score", "RUN", "no blank", "fox"], "has no blank"),
        (["score", "RUN", "a [MASK]", "fox", "--stride", "2"], "stride=2 is for a whole"),
        (["score", "RUN", "fox", "--stride", "0"], "stride=0 must be"),
        (["rank", "RUN", "a [MASK]"], "rank lacks CANDIDATE..."),
    ],
)
def test_mistakes_are_told_before_the_weights_are_read(words, said, run, monkeypatch, capsys):
    monkeypatch.setattr("blankfill.generate.language_model.load_weights", None)
    assert main([str(run) if word == "RUN" else word for word in words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the [tMASK] fox", "there is no blank [tMASK]"),
        ("the [MASK_1] and the [MASK]", "there is no blank [MASK_1]"),
        ("the [MASK1]", "there is no blank [MASK1]"),
        ("the [GMASK]", "there is no blank [GMASK]"),
        ("the [mask] fox", "has no blank, and [mask] is none"),
        ("the <mask> fox", "has no blank, and <mask> is none"),
        ("the <extra_id_0> fox", "has no blank, and <extra_id_0> is none"),
        ("the {{mask}} fox", "has no blank, and {{mask}} is none"),
        ("the ____ fox", "has no blank, and ____ is none"),
        ("the fox", "has no blank; write [MASK]"),
    ],
)
def test_what_is_no_blank_is_told(text, said, run, capsys):
    for words in (["fill", str(run), text], ["score", str(run), text, "fox"],
                  ["rank", str(run), text, "fox"]):  # fmt: skip
        assert main(words) == 2
        assert said in capsys.readouterr().err
    # Beside a blank the signs of other programs are text: `x[mask] = 1` is Python.
    if "MASK" not in text:
        assert main(["fill", str(run), f"{text} [MASK]", "--max-new-tokens=1"]) == 0
