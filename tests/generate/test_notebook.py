"""Results as HTML: what a user or a model wrote is text there, whatever it holds."""

import dataclasses
import html.parser
import math

import pytest

from blankfill.api import (
    Candidate,
    FilledItem,
    FillResult,
    ScoredCandidate,
    ScoredFill,
    ScoredText,
    ScoreResult,
    SurprisedText,
    SurpriseResult,
    TextBlank,
    TextScore,
    WordSurprise,
)

HOSTILE = "<script>alert('x')</script> & \"q\" <img src=x onerror=y> \x00\x1b[1m \u202eevil\ud800"


def blank(text, start, **fields):
    return TextBlank(
        text=text, probability=0.5, tokens=(text,), ended=True, start=start, candidates=(), **fields
    )


def candidate(text):
    return Candidate(text=text, probability=0.25, tokens=(), ended=True)


WORDS = (
    WordSurprise(text="<b>", start=1, surprise=3.5, logprob=-4.0, end_logprob=-0.5, tokens=()),
    WordSurprise(text="x", start=4, surprise=math.inf, logprob=-math.inf, end_logprob=-0.5,
                 tokens=()),
)  # fmt: skip
SCORED = ScoredCandidate(
    fills=(HOSTILE, "b"), probability=0.0, logprob=-math.inf, tokens_logprob=-1.0,
    mean_logprob=-math.inf,
    blanks=(ScoredFill(text="a", tokens=(), logprob=-1.0, end_logprob=-1.0),),
)  # fmt: skip
WHOLE = TextScore(
    text=HOSTILE, mode="one-way", stride=3, num_windows=1, logprob=-2.0, mean_logprob=-1.0,
    bits_per_byte=1.5, tokens=("a", "b"), token_logprobs=(-1.0, -1.0),
)  # fmt: skip
FILLED = FilledItem(prompt=HOSTILE, text=HOSTILE + HOSTILE, blanks=(blank(HOSTILE, len(HOSTILE)),))
LISTED = FilledItem(
    prompt="a", text="<i>", blanks=(
        TextBlank(text="<i>", probability=1.0, tokens=(), ended=True, start=0,
                  candidates=(candidate("<i>"), candidate(HOSTILE))),
    ),
)  # fmt: skip
RESULTS = {
    "filled": FILLED, "listed": LISTED,
    "failed": FilledItem(prompt="a", text="", blanks=(), error=HOSTILE),
    "several": FillResult(run=HOSTILE, step=1, items=(FILLED, LISTED) * 20),
    "scored": ScoredText(prompt=HOSTILE, candidates=(SCORED,) * 30),
    "score": ScoreResult(run="r", step=1, prompt=HOSTILE, candidates=(SCORED,)),
    "whole": WHOLE, "whole score": ScoreResult(run="r", step=1, prompt=HOSTILE, whole=WHOLE),
    "words": SurprisedText(text="a<b>x" + HOSTILE, words=WORDS, total=math.inf, mean=math.inf),
    "surprise": SurpriseResult(run="r", step=1, text="a<b>x", words=WORDS, total=1.0, mean=1.0),
    "long": FilledItem(prompt="", text="<" * 10**6, blanks=(blank("<", 0), blank("<", 10**6 - 1))),
}  # fmt: skip


class Tags(html.parser.HTMLParser):
    """What a browser would find."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = set(), set(), "", []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "hr":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", RESULTS)
def test_a_page_holds_our_tags_alone_and_what_was_written_as_text(name):
    shown = RESULTS[name]._repr_html_()
    page = Tags()
    page.feed(shown)
    assert page.open == []
    assert page.tags <= {"div", "span", "table", "tr", "td", "th", "hr"}
    assert page.attributes <= {"style", "title", "dir"}
    assert not set("\x00\x1b\u202e\ud800") & set(shown)
    assert len(shown) < 400_000
    shown.encode()
    if name in ("filled", "several", "scored", "score", "whole", "failed"):
        assert "<script>alert('x')</script> & \"q\"" in page.text


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_short_at_a_prompt_and_frozen(name):
    result = RESULTS[name]
    assert len(repr(result)) < 2_000
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, dataclasses.fields(result)[0].name, "another")
    assert result.to_dict()
