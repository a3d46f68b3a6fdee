"""The tasks that are known by name: published benchmarks of both languages, and how they are asked.

The wordings are ours. Items are not part of blankfill: they lie in files of the user's, one JSON
object a line, with the fields of their sources.
"""

from __future__ import annotations

from collections.abc import Mapping

from blankfill.evaluate import unfold
from blankfill.evaluate.task import Task, Wording

__all__ = ["GLM_130B", "GLM_130B_WRITTEN", "TASKS"]

_TRAIN = ("train", "dev32")
_FEW = ("train_few_all",)
_BETWEEN = "{before}[MASK]{after}"
_PAIR = ("sentence_good", "sentence_bad")


def _en(prompt: str, *candidates: str) -> dict[str, Wording]:
    return {"en": Wording(prompt=prompt, candidates=candidates)}


def _zh(zh: str, *candidates: str, en: str, en_candidates: tuple[str, ...] = ()) -> dict[
    str, Wording
]:  # fmt: skip
    return {
        "zh": Wording(prompt=zh, candidates=candidates),
        "en": Wording(prompt=en, candidates=en_candidates),
    }


_ENGLISH = (
    Task(
        name="blimp", language="en", fields=_PAIR, wordings=_en("[MASK]"), options=_PAIR, answer="",
        cluster="UID",
    ),
    Task(
        name="cloth", language="en", fields=("article", "options", "answers"),
        wordings=_en(_BETWEEN), options=("options",), answer="answer",
        unfold=unfold.blanks_of_article,
    ),
    Task(
        name="cola", language="en", fields=("sentence", "label"), labels=(0, 1),
        wordings=_en("{sentence} This sentence is [MASK].", "wrong", "correct"),
    ),
    Task(
        name="gaokao_english_fill_in_blanks", language="en", fields=("question", "answer"),
        wordings=_en(_BETWEEN), options=("options",), answer="answer", unfold=unfold.exam_blanks,
    ),
    Task(
        name="lambada", language="en", fields=("context", "target"), metric="first word",
        wordings=_en("{context} [MASK]."), answer="target", max_new_tokens=8,
    ),
    Task(
        name="sst2", language="en", fields=("sentence", "label"), labels=(0, 1),
        wordings=_en("{sentence} It was [MASK].", "terrible", "great"),
    ),
    Task(
        name="superglue_boolq", language="en", fields=("passage", "question", "label"),
        labels=(False, True), examples=_TRAIN,
        wordings=_en("{passage} Question: {question}? Answer: [MASK].", "no", "yes"),
    ),
    Task(
        name="superglue_copa", language="en", fields=("premise", "choice1", "choice2", "question"),
        wordings=_en("{premise} {joint} [MASK]."), options=("choice1", "choice2"), examples=_TRAIN,
        unfold=unfold.cause_or_effect,
    ),
    Task(
        name="superglue_rte", language="en", fields=("premise", "hypothesis", "label"),
        labels=("not_entailment", "entailment"), examples=_TRAIN,
        wordings=_en("{premise} Does it follow that {hypothesis} Answer: [MASK].", "no", "yes"),
    ),
    Task(
        name="superglue_wic", language="en", fields=("word", "sentence1", "sentence2", "label"),
        labels=(False, True), examples=_TRAIN,
        wordings=_en(
            "{sentence1} {sentence2} Does {word} mean the same in both sentences? Answer: [MASK].",
            "no", "yes",
        ),
    ),
    Task(
        name="tinyshakespeare", language="en", fields=("text",), metric="bits per byte",
        wordings=_en("{text}"), answer="",
    ),
    Task(
        name="wikitext2", language="en", fields=("text",), metric="bits per byte",
        wordings=_en("{text}"), answer="",
    ),
    Task(
        name="xquad_en", language="en", fields=("context", "qas"), metric="exact",
        wordings=_en("{context} Question: {question} Answer: [MASK]."), answer="answers",
        unfold=unfold.qa_of_passage,
    ),
)  # fmt: skip
_TOPICS = {
    "news_story": ("\u6545\u4e8b", "story"), "news_culture": ("\u6587\u5316", "culture"),
    "news_entertainment": ("\u5a31\u4e50", "entertainment"),
    "news_sports": ("\u4f53\u80b2", "sports"), "news_finance": ("\u8d22\u7ecf", "finance"),
    "news_house": ("\u623f\u4ea7", "real estate"), "news_car": ("\u6c7d\u8f66", "cars"),
    "news_edu": ("\u6559\u80b2", "education"), "news_tech": ("\u79d1\u6280", "technology"),
    "news_military": ("\u519b\u4e8b", "military"), "news_travel": ("\u65c5\u6e38", "travel"),
    "news_world": ("\u56fd\u9645", "world"), "news_stock": ("\u80a1\u7968", "stocks"),
    "news_agriculture": ("\u519c\u4e1a", "agriculture"), "news_game": ("\u6e38\u620f", "games"),
}  # fmt: skip
"""Topics of TNEWS by their labels, in both languages."""
_LETTERS = tuple(unfold.LETTERS)
_NO, _YES = "\u9519\u8bef", "\u6b63\u786e"
_ASKED = "\n\u95ee\u9898\uff1a{question}\n\u7b54\u6848\uff1a[MASK]\u3002"
_ASKED_EN = "\nQuestion: {question}\nAnswer: [MASK]."
_CHINESE = (
    Task(
        name="c3", language="zh", fields=("document", "questions"), options=("choice",),
        wordings=_zh("{document}" + _ASKED, en="{document}" + _ASKED_EN), answer="answer",
        unfold=unfold.choice_questions,
    ),
    Task(
        name="cft", language="zh", fields=("sentences", "query", "answer"), options=("words",),
        wordings=_zh(_BETWEEN, en=_BETWEEN), answer="answer", unfold=unfold.words_of_passage,
    ),
    Task(
        name="cmrc2017_cloze", language="zh", fields=("sentences", "query", "answer"),
        options=("words",), wordings=_zh(_BETWEEN, en=_BETWEEN), answer="answer",
        unfold=unfold.words_of_passage,
    ),
    Task(
        name="cmrc2017_user", language="zh", fields=("sentences", "query", "answer"),
        options=("words",), answer="answer", unfold=unfold.words_of_passage,
        wordings=_zh(
            "{passage}\n\u95ee\u9898\uff1a{query}\n\u7b54\u6848\uff1a[MASK]\u3002",
            en="{passage}\nQuestion: {query}\nAnswer: [MASK].",
        ),
    ),
    Task(
        name="cmrc2018", language="zh", fields=("context", "qas"), metric="exact", answer="answers",
        wordings=_zh("{context}" + _ASKED, en="{context}" + _ASKED_EN),
        unfold=unfold.qa_of_passage,
    ),
    Task(
        name="cmrc2019", language="zh", fields=("context", "choices", "answers"),
        wordings=_zh(_BETWEEN, en=_BETWEEN), options=("options",), answer="answer",
        unfold=unfold.numbered_blanks,
    ),
    Task(
        name="fewclue_bustm", language="zh", fields=("sentence1", "sentence2", "label"),
        labels=(0, 1), examples=_FEW,
        wordings=_zh(
            "{sentence1}\u3002{sentence2}\u3002\u8fd9\u4e24\u53e5\u8bdd\u7684\u610f\u601d[MASK]\u3002",
            "\u4e0d\u540c", "\u76f8\u540c",
            en="{sentence1} {sentence2} Do the two sentences mean the same? Answer: [MASK].",
            en_candidates=("no", "yes"),
        ),
    ),
    Task(
        name="fewclue_chid", language="zh", fields=("content", "candidates", "answer"),
        wordings=_zh(_BETWEEN, en=_BETWEEN), options=("candidates",), answer="answer",
        examples=_FEW, unfold=unfold.split_at_idiom,
    ),
    Task(
        name="fewclue_cluewsc", language="zh", fields=("text", "target", "label"),
        labels=("false", "true"), examples=_FEW, unfold=unfold.pronoun,
        wordings=_zh(
            "{text}\u5176\u4e2d\u201c{pronoun}\u201d\u6307\u7684\u662f\u201c{noun}\u201d\uff0c"
            "\u8fd9\u4e2a\u8bf4\u6cd5[MASK]\u3002",
            _NO, _YES,
            en="{text} Does {pronoun} stand for {noun} in this text? Answer: [MASK].",
            en_candidates=("no", "yes"),
        ),
    ),
    Task(
        name="fewclue_csl", language="zh", fields=("abst", "keyword", "label"), labels=(0, 1),
        examples=_FEW, unfold=unfold.abstract_and_keywords,
        wordings=_zh(
            "{abst}\n\u5173\u952e\u8bcd\uff1a{keywords}\u3002\u8fd9\u4e9b\u5173\u952e\u8bcd[MASK]\u3002",
            _NO, _YES,
            en="{abst}\nKeywords: {keywords_en}. Are all of the keywords right? Answer: [MASK].",
            en_candidates=("no", "yes"),
        ),
    ),
    Task(
        name="fewclue_eprstmt", language="zh", fields=("sentence", "label"),
        labels=("Negative", "Positive"), examples=_FEW,
        wordings=_zh(
            "{sentence}\u3002\u603b\u7684\u6765\u8bf4\u5f88[MASK]\u3002", "\u5dee", "\u597d",
            en="{sentence} Is this review positive or negative? Answer: [MASK].",
            en_candidates=("negative", "positive"),
        ),
    ),
    Task(
        name="fewclue_tnews", language="zh", fields=("sentence", "label_desc"), answer="label_desc",
        labels=tuple(_TOPICS), examples=_FEW,
        wordings=_zh(
            "{sentence}\u3002\u8fd9\u662f\u4e00\u6761[MASK]\u65b0\u95fb\u3002",
            *(zh for zh, _ in _TOPICS.values()),
            en="{sentence} What is this news about? Answer: [MASK].",
            en_candidates=tuple(en for _, en in _TOPICS.values()),
        ),
    ),
    Task(
        name="gaokao_chinese_lang_and_usage_mcqs", language="zh", fields=("question", "answer"),
        labels=_LETTERS, answer="answer", unfold=unfold.exam_letters,
        wordings=_zh(
            "{question}\n{part}\u7b54\u6848\uff1a[MASK]", *_LETTERS,
            en="{question}\n{part}Answer: [MASK]", en_candidates=_LETTERS,
        ),
    ),
    Task(
        name="gaokao_geography_mcqs", language="zh", fields=("question", "answer"),
        labels=_LETTERS, answer="answer", unfold=unfold.exam_letters,
        wordings=_zh(
            "{question}\n{part}\u7b54\u6848\uff1a[MASK]", *_LETTERS,
            en="{question}\n{part}Answer: [MASK]", en_candidates=_LETTERS,
        ),
    ),
    Task(
        name="xiehouyu", language="zh", fields=("riddle", "answer"), options=("options",),
        wordings=_zh("{riddle}\u2014\u2014[MASK]", en="{riddle}\u2014\u2014[MASK]"),
        answer="answer", unfold=unfold.saying,
    ),
    Task(
        name="xquad_zh", language="zh", fields=("context", "qas"), metric="exact", answer="answers",
        wordings=_zh("{context}" + _ASKED, en="{context}" + _ASKED_EN),
        unfold=unfold.qa_of_passage,
    ),
    Task(
        name="zhoblimp", language="zh", fields=_PAIR, wordings=_zh("[MASK]", en="[MASK]"),
        options=_PAIR, answer="", cluster="UID",
    ),
)  # fmt: skip
TASKS: Mapping[str, Task] = {task.name: task for task in (*_ENGLISH, *_CHINESE)}
"""All tasks by name."""
GLM_130B = Task(
    name="", language="en", fields=("inputs_pretokenized", "choices_pretokenized", "label"),
    wordings=_en(_BETWEEN), options=("choices_pretokenized",), unfold=unfold.pretokenized,
)  # fmt: skip
"""GLM-130B's own format of choices (`evaluation/dataset.py: MultiChoiceTaskDataset`)."""
GLM_130B_WRITTEN = Task(
    name="", language="en", fields=("inputs_pretokenized", "targets_pretokenized"), metric="exact",
    wordings=_en(_BETWEEN), answer="targets_pretokenized", unfold=unfold.pretokenized,
)  # fmt: skip
"""The same of answers that are written (`GenerationTaskDataset`)."""
