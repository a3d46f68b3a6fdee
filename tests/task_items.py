"""One or two items of every known task, in the fields of its source."""

import gzip
import json

QA = [{"id": "q", "question": "who?", "answers": [{"text": "a fox", "answer_start": 0}]}]
PASSAGE = ["\u72d0\u72f8 \u5403 \u9c7c \u3002", "\u72d0\u72f8 \u8dd1 \u4e86 \u3002"]
EXAM = (
    "read and choose\nIt was a 36 day and the fox  37 home.\n"
    "36. A. red B. busy C. low D. odd\n37. A. ran B. ate\nC. saw D. was\n"
)
ITEMS = {
    "blimp": [
        {"UID": "island", "sentence_good": "Who should we hug after shocking Ann?",
         "sentence_bad": "Who should we hug Ann after shocking?"},
        {"UID": "island", "sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps."},
    ],
    "cloth": [{"id": "c", "article": "The _ ran to the _ .", "answers": ["B", "A"],
               "options": [["dog", "fox", "cow", "cat"], ["river", "town", "sea", "moon"]]}],
    "cola": [{"sentence": "The fox sleeps.", "label": 1}, {"sentence": "Fox the.", "label": 0}],
    "gaokao_english_fill_in_blanks": [{"question": EXAM, "answer": ["B", "A"]}],
    "lambada": [{"context": "the old fox saw the", "target": "river"}],
    "sst2": [{"sentence": "dull", "label": 0}, {"sentence": "fine", "label": 1}],
    "superglue_boolq": [
        {"split": "val", "passage": "Foxes sleep.", "question": "do foxes sleep", "label": True},
        {"split": "val", "passage": "Foxes sleep.", "question": "do foxes fly", "label": False},
        {"split": "train", "passage": "A", "question": "is it", "label": True},
    ],
    "superglue_copa": [{"split": "val", "premise": "The man opened the tap.", "label": 1,
                        "choice1": "The sky fell.", "choice2": "Water flowed.",
                        "question": "effect"}],
    "superglue_rte": [
        {"split": "val", "premise": "A fox.", "hypothesis": "A dog.", "label": "not_entailment"},
        {"split": "val", "premise": "A fox.", "hypothesis": "A fox.", "label": "entailment"},
    ],
    "superglue_wic": [
        {"split": "val", "word": "fox", "sentence1": "A fox.", "sentence2": "The fox.",
         "label": True},
        {"split": "val", "word": "bank", "sentence1": "A bank.", "sentence2": "The bank.",
         "label": False},
    ],
    "tinyshakespeare": [{"id": "s", "text": "the old fox reads the books of the town"}],
    "wikitext2": [{"id": "w", "title": "t", "text": "the river sees the young dog"}],
    "xquad_en": [{"id": "x", "title": "t", "context": "A fox ran.", "qas": QA}],
    "c3": [{"id": "c", "document": ["\u5973\uff1a\u597d", "\u7537\uff1a\u597d"],
            "questions": [{"question": "\u8c01?", "choice": ["\u5973", "\u7537"],
                           "answer": "\u7537"}]}],
    "cft": [{"id": "f", "sentences": PASSAGE, "query": "XXXXX \u6e38 \u4e86 \u3002",
             "query_index": "3", "answer": "\u9c7c"}],
    "cmrc2017_cloze": [{"id": "z", "query": "\u72d0\u72f8 XXXXX \u4e86 \u3002", "answer": "\u8dd1",
                        "sentences": [PASSAGE[0], "\u72d0\u72f8 XXXXX \u4e86 \u3002",
                                      "\u5b83 \u8dd1"]}],
    "cmrc2017_user": [{"id": "u", "sentences": PASSAGE, "query": "\u8c01 \u8dd1 \u4e86 \uff1f",
                       "answer": "\u72d0\u72f8"}],
    "cmrc2018": [{"id": "m", "context": "\u72d0\u72f8\u5403\u9c7c\u3002", "qas": QA}],
    "cmrc2019": [{"context": "\u72d0\u72f8[BLANK1]\uff0c[BLANK2]\u3002", "answers": [2, 0],
                  "choices": ["\u8dd1\u4e86", "\u98de\u4e86", "\u5403\u9c7c"]}],
    "fewclue_bustm": [
        {"split": "test_public", "sentence1": "\u4f60\u597d", "sentence2": "\u60a8\u597d",
         "label": "1"},
        {"split": "test_public", "sentence1": "\u597d", "sentence2": "\u574f", "label": "0"},
        {"split": "train_few_all", "sentence1": "\u5927", "sentence2": "\u5c0f", "label": "0"},
    ],
    "fewclue_chid": [{"split": "test_public", "content": "\u5927#idiom#\u5c0f",
                      "candidates": ["\u98ce\u548c\u65e5\u4e3d", "\u4e09\u5fc3\u4e8c\u610f"],
                      "answer": 1}],
    "fewclue_cluewsc": [
        {"split": "test_public", "text": "\u72d0\u72f8\u5403\u9c7c\uff0c\u5b83\u8dd1\u4e86\u3002",
         "target": {"span1_text": "\u72d0\u72f8", "span2_text": "\u5b83"}, "label": label}
        for label in ("true", "false")
    ],
    "fewclue_csl": [
        {"split": "test_public", "abst": "\u72d0\u72f8\u5403\u9c7c",
         "keyword": ["\u72d0\u72f8", word], "label": label}
        for word, label in (("\u9c7c", "1"), ("\u6708", "0"))
    ],
    "fewclue_eprstmt": [
        {"split": "test_public", "sentence": "\u597d\u7528", "label": "Positive"},
        {"split": "test_public", "sentence": "\u96be\u7528", "label": "Negative"},
    ],
    "fewclue_tnews": [
        {"split": "test_public", "label": 103, "label_desc": "news_sports",
         "sentence": "\u7403\u8d5b"},
        {"split": "test_public", "label": 113, "label_desc": "news_world", "sentence": "\u6d77"},
    ],
    "gaokao_chinese_lang_and_usage_mcqs": [
        {"question": "\u9009\u4e00\u9879 A\uff0e\u5927 B\uff0e\u5c0f", "answer": [letter]}
        for letter in "AB"
    ],
    "gaokao_geography_mcqs": [{"question": "1 A B 2 A B", "answer": ["A", "B"]}],
    "xiehouyu": [{"riddle": f"\u72d0\u72f8{k}", "answer": f"{word}\uff1b\u6c34"}
                 for k, word in enumerate("\u5c71\u6c34\u706b\u6728\u571f")],
    "xquad_zh": [{"id": "x", "title": "t", "context": "\u72d0\u72f8\u5403\u9c7c", "qas": QA}],
    "zhoblimp": [{"UID": "BA", "sentence_good": "\u6211\u5403\u9c7c\u3002",
                  "sentence_bad": "\u6211\u9c7c\u5403\u3002"}],
}  # fmt: skip


def write_items(folder, name, items=None, *, packed=False):
    """Write the items of a task, as its source has them."""
    lines = "".join(json.dumps(item) + "\n" for item in (ITEMS[name] if items is None else items))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl{'.gz' if packed else ''}"
    data = lines.encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path
