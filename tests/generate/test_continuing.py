"""Continuations: piece by piece, up to a stop string, without repetitions, of any length."""

import io
import json
import logging
import sys
import threading

import numpy as np
import pytest
import torch

import blankfill
from blankfill.cli.main import main
from blankfill.errors import BlankfillError
from blankfill.generate import fill_tokens
from blankfill.generate.endings import ContinuationRule, Stops
from blankfill.generate.pieces import Pieces
from blankfill.generate.sampling import discouraged
from blankfill.text.characters import joins
from blankfill.text.tokenizer import Tokenizer
from interop.runs import make_run

TEXT = "the old fox reads"
LONG = " ".join(f"the old fox {n} reads books in the town of 人山水火 and sells" for n in range(12))
CHARACTERS = [
    "plain words, and more.",
    "\u4eba\u5c71\u6c34\u706b\u6728\u571f",
    "e\u0301\u0323 cafe\u0301 a\u030a",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd\U0001f44d",
    "\U0001f1e8\U0001f1f3\U0001f1e9\U0001f1ea",
    "\u1100\u1161\u11a8\uac00\u11a8",
    "\r\n\r\n\t ",
    "\u0e01\u0e34\u0e49\u0915\u093f",
    "\u2581 \ufffd a\ufffd",
    "a" + "\u0301" * 20 + "b",
    "\u845b\U000e0100\u4eba",
]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return Tokenizer.load(tokenizer_folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return make_run(tmp_path_factory.mktemp("continuing") / "run", tokenizer_folder)


@pytest.fixture(
    scope="module", params=[("ours", "corrupted"), ("glm-130b", "linear")]
)  # fmt: skip
def lm(request, tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("scheme") / "run"
    lm = blankfill.load(make_run(folder, tokenizer_folder, *request.param))
    with torch.no_grad():  # it seldom ends, so that continuations are long
        lm.model.head_weight[lm.ids.eop] *= 0.01
        lm.model.head_weight[lm.ids.eos] *= 0.01
    return lm


@pytest.mark.parametrize("text", CHARACTERS)
def test_a_piece_never_cuts_a_character(text, tokenizer):
    tokens = tokenizer.encode(text).tolist()
    pieces = Pieces(tokenizer, tokenizer.encode("the old").tolist(), Stops((), tokenizer))
    found = [pieces.more(tokens[: k + 1]) for k in range(len(tokens))]
    found.append(pieces.rest(text))
    assert "".join(found) == text
    so_far = ""
    for piece in found:
        assert not (piece and joins(so_far, piece[0])), (so_far, piece)
        so_far += piece
    for piece in found[:-1]:  # what is no character yet is not shown as one
        assert "\ufffd" not in piece or "\ufffd" in text


def test_pieces_come_as_soon_as_they_are_certain(tokenizer):
    text = "the old fox reads books in the town " * 8
    tokens = tokenizer.encode(text).tolist()
    pieces = Pieces(tokenizer, [], Stops((), tokenizer))
    late = 0
    for k in range(len(tokens)):
        pieces.more(tokens[: k + 1])
        late = max(late, len(tokenizer.decode(tokens[: k + 1])) - pieces._given)
    assert late == 1


@pytest.mark.parametrize("stop", ["fox", "x re", " r", "ads", "s b", "山水", "\U0001f44d", "the"])
def test_a_stop_string_is_found_across_tokens_and_no_part_of_it_is_shown(stop, tokenizer):
    text = "the old fox reads books 人山水 \U0001f44d \U0001f44d end of the town"
    tokens = tokenizer.encode(text).tolist()
    stops = Stops((stop, "never there"), tokenizer)
    pieces, rule = Pieces(tokenizer, [], stops), ContinuationRule(stops, (), 500, 0)
    shown, ended = "", False
    for k in range(len(tokens)):
        ended = rule.cut(tokens[: k + 1]) is not None
        shown += pieces.more(tokens[: k + 1])
        assert text[: text.index(stop)].startswith(shown)
        if ended:
            break
    assert ended
    # It ended with the token in which the stop string does.
    assert stop in tokenizer.decode(tokens[: k + 1])
    assert stop not in tokenizer.decode(tokens[:k])
    shown += pieces.rest(text[: text.index(stop)])
    assert shown == text[: text.index(stop)]


def test_what_may_become_a_stop_string_is_held_back_and_given_where_it_does_not(tokenizer):
    tokens = [
        token for part in ("a\n", "\n", "b", "\n\n", "\n") for token in tokenizer.encode(part)
    ]
    pieces = Pieces(tokenizer, [], Stops(("\n\n\n",), tokenizer))
    found = [pieces.more(tokens[: k + 1]) for k in range(len(tokens))]
    assert "".join(found) == "a\n\nb"


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}])
@pytest.mark.parametrize("text", [TEXT, "", "the old [gMASK]", LONG])
def test_a_stream_says_what_generate_says(lm, text, options):
    whole = lm.generate(text, max_new_tokens=40, **options)
    stream = lm.stream(text, max_new_tokens=40, **options)
    pieces = list(stream)
    assert len(pieces) > 3
    assert stream.beginning + "".join(pieces) == whole.text
    assert stream.result.blanks[0].tokens == whole.blanks[0].tokens
    assert stream.result.prompt == text
    assert stream.result.blanks[0].start == len(stream.beginning)


def test_a_continuation_ends_before_its_stop_string(lm):
    free = lm.generate(TEXT, max_new_tokens=60)
    written = free.blanks[0].text
    for at, size in ((5, 1), (9, 4), (20, 7)):
        stop = written[at : at + size]
        ended = lm.generate(TEXT, max_new_tokens=60, stop=["not there", stop])
        blank = ended.blanks[0]
        assert blank.text == written[: written.index(stop)]
        assert (blank.stop, blank.ended) == (stop, True)
        assert ended.text == free.text[: blank.start] + blank.text
        assert free.blanks[0].tokens[: len(blank.tokens)] == blank.tokens
        stream = lm.stream(TEXT, max_new_tokens=60, stop=stop)
        assert "".join(stream) == blank.text
        assert stream.result.text == ended.text
    assert free.blanks[0].stop is None


@pytest.mark.parametrize("ngram", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.3, "seed": 1}])
def test_no_run_of_tokens_is_written_twice(lm, ngram, options):
    def runs(item):
        tokens = item.blanks[0].tokens
        return [tokens[k : k + ngram] for k in range(len(tokens) - ngram + 1)]

    found = runs(lm.generate(TEXT, max_new_tokens=80, no_repeat_ngram=ngram, **options))
    assert len(set(found)) == len(found)
    free = runs(lm.generate(TEXT, max_new_tokens=80, **options))
    assert len(set(free)) < len(free)  # else nothing was tried


def test_the_rule_of_runs_is_the_published_one():
    """GLM `NoRepeatNGramLogitsProcessor`, by hand: what followed the last tokens before may not
    follow them again; an end always may."""
    rule = ContinuationRule(Stops((), None), (9,), 10, 3)
    assert rule.allowed((1, 2), 2).all()
    banned = np.flatnonzero(~rule.allowed((1, 2, 3, 1, 2, 9, 1, 2), 8)).tolist()
    assert banned == [3]
    single = ContinuationRule(Stops((), None), (9,), 10, 1)
    assert np.flatnonzero(~single.allowed((4, 9, 4, 7), 4)).tolist() == [4, 7]


def test_the_penalty_is_the_published_one():
    logits = torch.tensor([[2.0, -1.0, 0.5, -torch.inf], [2.0, -1.0, 0.5, 4.0]])
    found = discouraged(logits, [[0, 1, 1, 3], []], 2.0)
    assert found.tolist() == [[1.0, -2.0, 0.5, -torch.inf], [2.0, -1.0, 0.5, 4.0]]
    assert logits[0, 0] == 2.0


def test_a_penalty_acts_on_the_model_s_own_scores_and_leaves_probabilities_alone(lm):
    free = lm.generate(TEXT, max_new_tokens=80).blanks[0]
    held = lm.generate(TEXT, max_new_tokens=80, repetition_penalty=1.5).blanks[0]
    assert len(set(held.tokens)) / len(held.tokens) > len(set(free.tokens)) / len(free.tokens)
    # The probability is that of the tokens by the model, not by the penalty.
    tokens = fill_tokens(
        lm, [np.append(lm.tokenizer.encode(TEXT), lm.ids.gmask)], max_new_tokens=1
    )  # fmt: skip
    first = lm.generate(TEXT, max_new_tokens=1, repetition_penalty=1.0001).blanks[0]
    assert first.probability == pytest.approx(np.exp(tokens[0].blanks[0].logprob), rel=1e-4)


@pytest.mark.parametrize("text", ["", TEXT, LONG])
def test_a_text_longer_than_a_row_goes_on_behind_a_sliding_prefix(lm, text, caplog):
    """By hand: three quarters of a row are encoded anew for each quarter that is written."""
    caplog.set_level(logging.INFO)
    row, wanted = 128, 140
    assert lm.row_length == row
    tokens = lm.tokenizer.encode(text).tolist()
    unseen, written = None, []
    while len(written) < wanted:
        left = wanted - len(written)
        kept = [*tokens, *written][-(row - 2 - min(left, row // 4)) :]
        unseen = len(tokens) - len(kept) if unseen is None else unseen
        room = min(left, row - 2 - len(kept))
        prompt = np.array([*kept, lm.ids.gmask], np.int32)
        (filled,) = fill_tokens(lm, [prompt], max_new_tokens=room)
        written += filled.blanks[0].tokens.tolist()
        if filled.blanks[0].ended:
            break
    item = lm.generate(text, max_new_tokens=wanted)
    assert item.blanks[0].tokens == tuple(map(lm.tokenizer.token, written))
    assert item.text == text + lm.tokenizer.decode(written)
    assert item.trimmed == max(0, unseen)
    told = [record.message for record in caplog.records if "goes on behind" in record.message]
    assert bool(told) == (text == LONG)


def test_company_changes_no_continuation(lm):
    texts = [TEXT, LONG, "", "the [MASK] fox", "the [gMASK]", "a \ud800", LONG + " [MASK]", TEXT]
    options = {"max_new_tokens": 60, "temperature": 1.0, "seed": 5, "no_repeat_ngram": 4}
    together = lm.generate(texts, **options)
    for text, item in zip(texts, together, strict=True):
        if item.error is not None:
            assert text in (texts[5], texts[6])
            with pytest.raises(BlankfillError):
                lm.generate(text, **options)
            continue
        assert item.text == lm.generate(text, **options).text
        assert item.prompt == text


def test_streams_and_calls_of_several_threads_do_not_disturb_each_other(lm):
    texts = [TEXT, "the town", "books and water", "人山"]
    alone = [lm.generate(text, max_new_tokens=30).text for text in texts]
    filled = lm.fill("the [MASK] reads", max_new_tokens=4).text
    found = {}

    def work(number):
        pieces = []
        stream = lm.stream(texts[number], max_new_tokens=30)
        for piece in stream:
            pieces.append(piece)
            assert lm.fill("the [MASK] reads", max_new_tokens=4).text == filled
        found[number] = stream.beginning + "".join(pieces)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == alone


def test_a_stream_that_is_left_holds_nobody_up(lm):
    stream = iter(lm.stream(TEXT, max_new_tokens=100))
    next(stream)
    other = threading.Thread(target=lambda: lm.fill("the [MASK]", max_new_tokens=2))
    other.start()
    other.join(timeout=60)
    assert not other.is_alive()


def test_places_where_another_token_is_as_good_are_listed(run):
    lm = blankfill.load(run)
    assert lm.fill("the [MASK] fox", max_new_tokens=8).blanks[0].near_ties == ()
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.zero_()
    even = lm.fill("the [MASK] fox [MASK]", max_new_tokens=5)
    for blank in even.blanks:
        assert blank.near_ties == tuple(range(len(blank.tokens) + 1))
    assert lm.generate("the", max_new_tokens=150).blanks[0].near_ties[:3] == (0, 1, 2)
    assert lm.fill("the [MASK]", temperature=1.0, max_new_tokens=3).blanks[0].near_ties == ()
    assert even.to_dict()["blanks"][0]["near_ties"] == list(even.blanks[0].near_ties)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda lm: lm.generate("a", stop=""), "stop holds an empty text"),
        (lambda lm: lm.generate("a", stop=["b", "\ud800"]), "not valid Unicode"),
        (lambda lm: lm.stream("a [MASK] b"), "has blanks in it"),
        (lambda lm: lm.stream("\ud800"), "not valid Unicode"),
        (lambda lm: lm.generate("a", repetition_penalty=0), "repetition_penalty=0 must be"),
        (lambda lm: lm.stream("a", no_repeat_ngram=-1), "no_repeat_ngram=-1 must be"),
    ],
)
def test_what_cannot_be_continued_is_told(ask, said, run):
    with pytest.raises(BlankfillError, match=said):
        ask(blankfill.load(run))


class Pipe(io.StringIO):
    """Keeps what was written at each flush."""

    encoding = "utf-8"

    def __init__(self):
        super().__init__()
        self.seen = []

    def flush(self):
        self.seen.append(self.getvalue())


class Terminal(Pipe):
    def isatty(self):
        return True


@pytest.mark.parametrize("option", [{"stop": ["fox"]}, {"no_repeat_ngram": 2}])
def test_a_text_with_blanks_that_is_filled_without_what_is_of_an_end_is_told(option, run, caplog):
    lm = blankfill.load(run)
    texts = ["the [MASK] fox", TEXT]
    plain = lm.generate(texts[:1], max_new_tokens=3)[0]
    lm.generate(TEXT, max_new_tokens=3, **option)
    assert "with blanks" not in caplog.text
    filled, continued = lm.generate(texts, max_new_tokens=3, **option)
    assert "1 with blanks in them are filled without" in caplog.text
    assert filled.text == plain.text
    assert continued.error is None


def test_the_verb_prints_pieces_as_they_come(run, monkeypatch):
    text = blankfill.load(run).generate(TEXT, max_new_tokens=20).text
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", pipe)
    assert main(["generate", str(run), TEXT, "--max-new-tokens=20"]) == 0
    assert pipe.getvalue() == text + "\n"
    assert len({*pipe.seen}) > 3
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["generate", str(run), TEXT, "--max-new-tokens=20", "--json"]) == 0
    assert json.loads(sys.stdout.getvalue())["items"][0]["text"] == text


@pytest.mark.parametrize(("environment", "signs"), [({}, "\x1b[1;32m"), ({"NO_COLOR": "1"}, "[")])
def test_on_a_terminal_what_is_written_stands_out(environment, signs, run, monkeypatch):
    text = blankfill.load(run).generate(TEXT, max_new_tokens=20).text
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["generate", str(run), TEXT, "--max-new-tokens=20"]) == 0
    shown = terminal.getvalue()
    assert shown.startswith(TEXT)
    assert signs in shown
    assert shown.endswith("\n")
    if not environment:
        bare = shown.replace("\x1b[1;32m", "").replace("\x1b[0m", "").rstrip("\n")
        assert bare.encode("unicode_escape")[:20] == text.encode("unicode_escape")[:20]


def test_interactive_answers_the_texts_given_and_then_those_typed(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the town\n\nno [MASK] here\n"))
    words = ["generate", str(run), "--interactive", TEXT, "--max-new-tokens=6"]
    assert main(words) == 0
    lines = capsys.readouterr().out
    lm = blankfill.load(run)
    town = lm.generate("the town", max_new_tokens=6, seed=1).text
    for text in (lm.generate(TEXT, max_new_tokens=6).text, town,
                 lm.generate(town, max_new_tokens=6, seed=2).text):  # fmt: skip
        assert text in lines
    monkeypatch.setattr(sys, "stdin", io.StringIO("the [MASK]\nno blank\n"))
    assert main(["fill", str(run), "--interactive", "--max-new-tokens=2"]) == 0
    said = capsys.readouterr()
    assert "blank 1" in said.out
    assert "has no blank" in said.err
    assert main(["fill", str(run), "--interactive", "--out", "x"]) == 2
    assert main(["score", str(run), "--interactive", "x"]) == 2
    assert "score has no option '--interactive'" in capsys.readouterr().err
