"""Sentences of both languages, cut by hand at `|`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blankfill.text.sentences import sentence_ends, sentence_tokens
from blankfill.text.tokenizer import WordTokenizer

CASES = [
    "It rained.| We went home.",
    "He said: “It rains.”| Then he left.",
    "“Stop!” he said.| She did not.",
    "(It rained.)| We went.",
    "It costs 3.14 coins.| That is cheap.",
    "See example.org for more.| Or do not.",
    "Mr. Smith met Dr. Brown.| They talked.",
    "J. K. Rowling wrote it.| I read it.",
    "Use tools, e.g. a hammer.| Be careful.",
    "Apples, pears, etc. are fruit.| So are plums.",
    "What?!| Really...| Yes.",
    "Wait... no.| Go.",
    "At 5 p.m. we ate.| At 6 we slept.",
    "今天下雨。|我们回家了。",
    "他说：“下雨了。”|然后走了。",
    "真的吗？！|当然！|好……|走吧。",
    "（他来了。）|我们走。",
    "第一，要快；|第二，要好。",
    "圆周率是3.14。|记住它。",
    "他用Python 3.11写程序。|It works.|很好。",
    "标题\n|正文第一句。|第二句。",
    "一行\n\n|又一行",
    "“你好。”，他说。|她笑了。",
    "Title\n|1. First item.\n|2. Second item.",
    "no stop at all",
    "没有句号",
    "。",
    " leading blanks.| Trailing ones.  ",
    "the U.S. Army came.| It left.",
    "I am I.| You are you.",
]


@pytest.mark.parametrize("case", CASES)
def test_sentences_are_cut_where_a_reader_would(case):
    text = case.replace("|", "")
    ends = sentence_ends(text)
    parts = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert "|".join(parts) == case


def test_an_empty_text_has_no_sentence():
    assert sentence_ends("") == []


@given(st.text(alphabet="ab.!?。！？…；”)\n 1A，", max_size=60))
def test_any_text_is_cut_into_its_whole(text):
    ends = sentence_ends(text)
    assert ends == sorted(set(ends))
    assert (ends[-1:] == [len(text)]) == bool(text)
    assert all(0 < e <= len(text) for e in ends)


def test_sentences_of_words_end_where_no_blank_follows():
    text = "\u5c0f\u732b\u770b\u96e8\u3002\u96e8\u505c\u4e86\uff01 It is dry."
    words = WordTokenizer(text)
    assert sentence_tokens(text, words.encode(text), words).tolist() == [5, 9, 12]
