"""What a model says of questions: by brute force, in any company, under every protocol."""

import math

import numpy as np
import pytest

import blankfill
from blankfill.evaluate.asking import encode_task, measure_texts, score_candidates, write_answers
from blankfill.evaluate.judging import f1_score, first_word, is_exact
from blankfill.evaluate.protocol import PROTOCOLS
from blankfill.evaluate.task import BadItemError, Question, Task, Wording
from blankfill.evaluate.task_files import AskedTask
from generate.brute_force import known_by_one_pass
from interop.runs import make_run

QUESTIONS = (
    Question(before="the old", candidates=(" fox", " young dog", " a"), after=" reads books.",
             cluster="1"),
    Question(before="\u4eba\u5c71", candidates=("\u6c34\u706b", "\u6728"), after="", cluster="2"),
    Question(before="", candidates=(" river sees",  "bread"), after="", cluster="3"),
    Question(before="", cluster="4",
             candidates=("the old fox reads.", "the old dog sells water.")),
)  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[("ours", "corrupted"), ("glm-130b", "linear"), ("glm-10b", "corrupted"),
            ("chatglm-6b", "original")],
)  # fmt: skip
def lm(request, tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("asking") / "run"
    return blankfill.load(make_run(folder, tokenizer_folder, *request.param))


def task_of(questions, protocol, metric="accuracy", **options):
    task = Task(
        name="t", language="en", fields=(), wordings={"en": Wording(prompt="[MASK]")},
        metric=metric, **options,
    )  # fmt: skip
    return AskedTask(
        task=task, path="t.jsonl", protocol=PROTOCOLS[protocol], shots=0, fingerprint="",
        questions=tuple(questions), numbers=tuple(range(len(questions))),
        texts=(("",),) * len(questions),
    )  # fmt: skip


def expected(lm, question, protocol):
    """Scores of a question's candidates by one uncached pass each."""
    encode, ids = lm.tokenizer.encode, lm.ids
    before, after, candidates = question.before, question.after, question.candidates
    both = PROTOCOLS[protocol].sees == "both sides"
    if both and candidates[0] == "the old fox reads.":
        before, after, candidates = "the old", ".", (" fox reads", " dog sells water")
    in_blank = both and bool(before or after)
    found = []
    for candidate in candidates:
        text = candidate if in_blank else candidate + after
        span = encode(text).tolist()
        if in_blank:
            part_a = [*encode(before), ids.mask, *encode(after)]
            ends = protocol == "cloze"
            values = known_by_one_pass(lm, np.array(part_a), [span], ends=ends)
        elif protocol == "unidirectional":
            context = encode(before).tolist()
            values = known_by_one_pass(lm, np.array([ids.gmask]), [context + span], ends=False)
            values = values[len(context) :]
        else:
            part_a = [*encode(before), ids.gmask]
            values = known_by_one_pass(lm, np.array(part_a), [span], ends=False)
        total = math.fsum(values)
        found.append(total / len(text.encode()) if protocol == "length-normalised" else total)
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_candidates_are_scored_as_one_pass_over_everything_scores_them(lm, protocol):
    encoded = encode_task(task_of(QUESTIONS, protocol), lm.tokenizer, lm.row_length)
    found = score_candidates(lm, encoded)
    for question, scores in zip(QUESTIONS, found, strict=True):
        assert scores == pytest.approx(expected(lm, question, protocol), abs=1e-5)


def test_company_and_order_change_no_score(lm):
    alone = [
        score_candidates(lm, encode_task(task_of([q], "cloze"), lm.tokenizer, lm.row_length))[0]
        for q in QUESTIONS
    ]
    encoded = encode_task(task_of(QUESTIONS[::-1], "cloze"), lm.tokenizer, lm.row_length)
    for one, other in zip(alone[::-1], score_candidates(lm, encoded), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_cloze_is_what_score_says(lm):
    encoded = encode_task(task_of(QUESTIONS[:1], "cloze"), lm.tokenizer, lm.row_length)
    scored = lm.score("the old [MASK] reads books.", ["fox", "young dog", "a"])
    assert score_candidates(lm, encoded)[0] == pytest.approx(
        [each.logprob for each in scored.candidates], abs=1e-9
    )


@pytest.mark.parametrize(("protocol", "mode"), [("cloze", "bidirectional"),
                                                ("unidirectional", "one-way")])  # fmt: skip
def test_texts_are_measured_as_score_measures_them(lm, protocol, mode):
    texts = ["the old fox reads the books. " * 12, "\u4eba\u5c71\u6c34"]
    asked = task_of([Question(before=text, cluster="") for text in texts], protocol,
                    "bits per byte")  # fmt: skip
    found = measure_texts(lm, encode_task(asked, lm.tokenizer, lm.row_length))
    assert [each.logprob for each in found] == [lm.score(text, mode=mode).logprob for text in texts]
    assert [len(each.token_logprobs) for each in found] == [
        len(lm.tokenizer.encode(text)) for text in texts
    ]


def written_by(lm, protocol, befores, max_new_tokens):
    questions = [Question(before=each, answers=("x",), cluster="") for each in befores]
    asked = task_of(questions, protocol, "exact", max_new_tokens=max_new_tokens)
    return write_answers(lm, encode_task(asked, lm.tokenizer, lm.row_length))


def test_answers_are_what_fill_and_generate_write(lm):
    befores = ["the old", "\u4eba\u5c71", "a young fox reads"]
    filled = [lm.fill(f"{each}[MASK]", max_new_tokens=5).blanks[0].text for each in befores]
    assert written_by(lm, "cloze", befores, 5) == filled
    written = [lm.generate(each, max_new_tokens=5).blanks[0].text for each in befores]
    assert written_by(lm, "bidirectional", befores, 5) == written


def test_what_is_read_one_way_is_followed_by_the_most_probable_token(lm):
    if lm.cfg.model.block != "deepnorm":
        pytest.skip("one of each kind of positions is enough: a pass for each token")
    (text,) = written_by(lm, "unidirectional", ["the old"], 1)
    read = lm.tokenizer.encode("the old").tolist()
    may = [*range(20, lm.tokenizer.vocab_size, 7), *lm.tokenizer.encode(text).tolist()[:1]]
    scores = [
        known_by_one_pass(lm, np.array([lm.ids.gmask]), [[*read, token]], ends=False)[-1]
        for token in may
    ]
    if text:
        assert lm.tokenizer.decode([may[int(np.argmax(scores))]]) == text


def test_what_is_furthest_from_the_blank_is_left_away_and_counted(lm):
    long = Question(before="the fox " * 200 + "the old", candidates=(" fox", " dog"),
                    after=" reads" + " the books" * 200, cluster="1")  # fmt: skip
    for protocol in PROTOCOLS:
        if PROTOCOLS[protocol].sees != "both sides":
            continue
        encoded = encode_task(task_of([long], protocol), lm.tokenizer, lm.row_length)
        (question,) = encoded.questions
        assert question.shortened
        part_a = question.part_a.tolist()
        place = part_a.index(lm.ids.mask)
        read = lm.tokenizer.encode("the fox the old").tolist()[-2:]
        assert part_a[place - len(read) : place] == read
        assert len(part_a) + len(question.rows[0].tokens) + 1 <= lm.row_length
    short = encode_task(task_of(QUESTIONS, "cloze"), lm.tokenizer, lm.row_length)
    assert not any(question.shortened for question in short.questions)


def test_a_candidate_that_has_no_room_makes_a_bad_item_and_the_others_are_asked(lm):
    huge = Question(before="a", candidates=(" fox" * 500, " dog"), cluster="1")
    encoded = encode_task(task_of([huge, QUESTIONS[0]], "cloze"), lm.tokenizer, lm.row_length)
    assert encoded.kept == (1,)
    (reason,) = encoded.bad
    assert reason.startswith("item 1: ")
    assert "too many for rows of 128 positions" in reason
    with pytest.raises(blankfill.errors.DataError, match="no item of it can be asked of this run"):
        encode_task(task_of([huge], "cloze"), lm.tokenizer, lm.row_length)
    assert issubclass(BadItemError, ValueError)


@pytest.mark.parametrize(
    ("answer", "right", "language", "exact", "f1"),
    [
        ("The fox!", ["fox"], "en", True, 1.0),
        ("an old fox", ["fox"], "en", False, 2 / 3),
        ("", ["fox"], "en", False, 0.0),
        ("\u72d0\u72f8\u3002", ["\u72d0\u72f8"], "zh", True, 1.0),
        ("\u72d0", ["\u72d0\u72f8", "\u72d0"], "zh", True, 1.0),
        ("\u72d0\u5c71", ["\u72d0\u72f8"], "zh", False, 0.5),
        ("308 \u5206", ["308\u5206"], "zh", True, 1.0),
    ],
)
def test_answers_are_judged_as_squad_judges_them(answer, right, language, exact, f1):
    assert is_exact(answer, right, language) is exact
    assert f1_score(answer, right, language) == pytest.approx(f1)


def test_the_first_word_is_what_counts():
    assert first_word(" Gabriel. He") == first_word("gabriel") == "gabriel"
    assert first_word(" don\u2019t go") == "don\u2019t"
    assert first_word("...") == ""
