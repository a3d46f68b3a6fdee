"""Asking a model the questions of a task, and what its answers come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blankfill import progress
from blankfill.errors import DataError
from blankfill.evaluate.asking import (
    EncodedTask,
    measure_texts,
    score_candidates,
    write_answers,
)
from blankfill.evaluate.intervals import estimate
from blankfill.evaluate.judging import f1_score, first_word, is_exact
from blankfill.evaluate.task import Question
from blankfill.generate import LanguageModel
from blankfill.runs.tasks import SeenItems, TaskAnswers, TaskScore

__all__ = ["answer_task"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answers:
    """The answers to the questions of a task, by one metric."""

    metric: str
    values: Values
    sizes: Values | None = None
    kept: Sequence[int]
    """Numbers of the questions that were answered."""


def answer_task(
    lm: LanguageModel, task: EncodedTask, *, weights: str = "last",
    seen: Sequence[bool | None] | None = None,
) -> list[TaskAnswers]:  # fmt: skip
    """Ask a model the questions of a task.

    Args:
        lm: the model.
        task: the questions in its tokens.
        weights: which weights it has; this is only noted down.
        seen: of each question whether training text holds it; None where that cannot be told.

    Returns:
        The answers by each metric that the task has.

    Raises:
        DataError: none of its texts can be measured.
        CheckpointError: the model's scores are not numbers.
    """
    bad = list(task.bad)
    answers = _answers(lm, task, bad)
    return [_report(lm, task, each, bad, weights, seen) for each in answers]


def _answers(lm: LanguageModel, task: EncodedTask, bad: list[str]) -> list[_Answers]:
    asked, name = task.asked, task.asked.task.name
    questions = [asked.questions[k] for k in task.kept]
    metric = asked.task.metric
    with lm.lock:
        if metric == "accuracy":
            total = sum(len(question.rows) for question in task.questions)
            with progress.bar(name, total, "candidates") as meter:
                scores = score_candidates(lm, task, meter.advance)
            right = [
                _is_best(each, question.answer)
                for each, question in zip(scores, questions, strict=True)
            ]
            return [_Answers(metric=metric, values=np.array(right, float), kept=task.kept)]
        if metric == "bits per byte":
            return [_bits(lm, task, bad)]
        with progress.bar(name, len(questions), "answers") as meter:
            written = write_answers(lm, task, meter.advance)
    language = asked.task.language
    pairs = list(zip(written, (question.answers for question in questions), strict=True))
    if metric == "first word":
        right = [first_word(text) in {first_word(each) for each in of} for text, of in pairs]
        return [_Answers(metric=metric, values=np.array(right, float), kept=task.kept)]
    exact = np.array([is_exact(text, of, language) for text, of in pairs], float)
    f1 = np.array([f1_score(text, of, language) for text, of in pairs], float)
    return [
        _Answers(metric="exact", values=exact, kept=task.kept),
        _Answers(metric="f1", values=f1, kept=task.kept),
    ]


def _is_best(scores: Sequence[float], answer: int) -> float:
    """Tell whether the right candidate is the best; of several that are level, its share."""
    best = max(scores)
    return (scores[answer] == best) / sum(score == best for score in scores)


def _bits(lm: LanguageModel, task: EncodedTask, bad: list[str]) -> _Answers:
    asked = task.asked
    with progress.bar(asked.task.name, len(asked.questions), "texts") as meter:
        found = measure_texts(lm, task, meter.advance)
    kept: list[int] = []
    nats, sizes = [], []
    for k, (question, score) in enumerate(zip(asked.questions, found, strict=True)):
        if isinstance(score, str):
            bad.append(f"item {asked.numbers[k] + 1}: {score}")
            continue
        kept.append(k)
        nats.append(-score.logprob)
        sizes.append(len(question.before.encode()))
    if not kept:
        raise DataError(f"{asked.path}: no text of it can be measured; {bad[-1]}")
    return _Answers(
        metric="bits per byte", values=np.array(nats) / math.log(2), sizes=np.array(sizes, float),
        kept=kept,
    )  # fmt: skip


def _report(
    lm: LanguageModel, task: EncodedTask, answers: _Answers, bad: Sequence[str], weights: str,
    seen: Sequence[bool | None] | None,
) -> TaskAnswers:  # fmt: skip
    asked = task.asked
    questions = [asked.questions[k] for k in answers.kept]
    names: dict[str, int] = {}
    clusters = np.array([names.setdefault(q.cluster, len(names)) for q in questions], np.int64)
    is_share = answers.metric != "bits per byte"

    def over(chosen: npt.NDArray[np.bool_]):
        sizes = None if answers.sizes is None else answers.sizes[chosen]
        return estimate(answers.values[chosen], clusters[chosen], sizes, is_share=is_share)

    everything = np.ones(len(questions), np.bool_)
    found: SeenItems | None = None
    if seen is not None:
        own = [seen[k] for k in answers.kept]
        clean = np.array([each is not True for each in own], np.bool_)
        found = SeenItems(
            num_seen=int((~clean).sum()), num_short=sum(each is None for each in own),
            without=over(clean) if clean.any() else None,
        )  # fmt: skip
    score = TaskScore(
        task=asked.task.name, language=asked.task.language, protocol=asked.protocol.name,
        shots=asked.shots, metric=answers.metric, score=over(everything), seen=found,
        num_items=len(questions), num_clusters=len(names), num_bad=len(bad),
        num_shortened=sum(question.shortened for question in task.questions),
        **_baselines(questions),
    )  # fmt: skip
    return TaskAnswers(
        score=score, fingerprint=asked.fingerprint, step=lm.step, weights=weights,
        numbers=tuple(asked.numbers[k] for k in answers.kept),
        values=tuple(answers.values.tolist()), clusters=tuple(clusters.tolist()),
        sizes=None if answers.sizes is None else tuple(answers.sizes.tolist()), bad=tuple(bad),
    )  # fmt: skip


def _baselines(questions: Sequence[Question]) -> dict[str, float]:
    """Give what guessing gives, and always the most frequent answer; nothing without candidates."""
    choices = [question for question in questions if question.candidates]
    if not choices:
        return {}
    found = {"random": sum(1 / len(question.candidates) for question in choices) / len(choices)}
    labels = Counter(question.label for question in choices)
    if "" not in labels and len({len(question.candidates) for question in choices}) == 1:
        found["majority"] = max(labels.values()) / len(choices)
    return found
