"""Fills in their places: for a person marked, for a script the text as it is."""

import io
import sys

import pytest

from blankfill.api.answers import FillResult
from blankfill.api.demo import DemoFill
from blankfill.cli.console import Answer
from blankfill.cli.in_place import marked, print_answered, print_in_place, signs
from blankfill.cli.infill import print_fill
from blankfill.generate.infill import FilledItem, TextBlank

EN = ("On Monday Anna", " bought", " three bowls from", " Emil", ".")
ZH = ("\u661f\u671f\u4e00\uff0c\u5b89\u5a1c", "\u4e70\u4e86", "\u4e09\u53ea\u7897", "", "\u3002")
SPACE = ("The end.", "\n\n", "A new", " \t", "page.")


def item(parts):
    """A filled text, of its parts, every second one a fill."""
    text, blanks = "", []
    for i, part in enumerate(parts):
        if i % 2:
            blanks.append(
                TextBlank(
                    text=part,
                    probability=0.5,
                    tokens=(),
                    ended=True,
                    start=len(text),
                    candidates=(),
                )
            )
        text += part
    return FilledItem(prompt="", text=text, blanks=tuple(blanks))


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def printed(monkeypatch, parts, *, terminal, **environment):
    stream = Terminal() if terminal else io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "80")
        for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        print_in_place(item(parts), Answer())
    return stream.getvalue()


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (EN, "On Monday Anna [bought] three bowls from [Emil].\n"),
        (ZH, "\u661f\u671f\u4e00\uff0c\u5b89\u5a1c\u300c\u4e70\u4e86\u300d\u4e09\u53ea\u7897"
             "\u300c\u300d\u3002\n"),
        (SPACE, "The end.[\u23ce\u23ce]A new[\u2420\u2409]page.\n"),
        (("", "All of it", ""), "[All of it]\n"),
        (("[b]", " [/b] ", "\x1b[31m"), "[b] [[/b]] \\x1b[31m\n"),
    ],
)  # fmt: skip
def test_without_colour_fills_stand_in_brackets(parts, shown, environment, monkeypatch):
    assert printed(monkeypatch, parts, terminal=True, **environment) == shown


def test_with_colour_they_are_coloured(monkeypatch):
    shown = printed(monkeypatch, EN, terminal=True)
    assert shown == (
        "On Monday Anna \x1b[1;32mbought\x1b[0m three bowls from \x1b[1;32mEmil\x1b[0m.\n"
    )
    # What would not be seen is shown in any case.
    assert "\x1b[1;32m\u23ce\u23ce\x1b[0m" in printed(monkeypatch, SPACE, terminal=True)
    assert "\x1b[1;32m\u300c\u300d\x1b[0m" in printed(monkeypatch, ZH, terminal=True)


@pytest.mark.parametrize("parts", [EN, ZH, SPACE])
def test_into_a_pipe_the_text_goes_as_it_is(parts, monkeypatch):
    assert printed(monkeypatch, parts, terminal=False) == "".join(parts) + "\n"


def test_without_its_marks_it_is_the_text():
    for parts in (EN, ZH):
        made = item(parts)
        spans = [(blank.start, blank.start + len(blank.text)) for blank in made.blanks]
        plain = marked(made.text, spans, colours=False).plain
        for bracket in "[]\u300c\u300d":
            plain = plain.replace(bracket, "")
        assert plain == made.text


@pytest.mark.parametrize(
    ("fill", "shown"),
    [(" ", "\u2420"), ("\n", "\u23ce"), (" \n\t\u3000", "\u2420\u23ce\u2409\u2420"),
     (" a b ", "a b"), ("", "")],
)  # fmt: skip
def test_white_space_alone_has_signs(fill, shown):
    assert signs(fill) == shown


def test_the_list_of_fills_shows_white_space_and_nothing(capsys):
    print_fill(FillResult(run="r", step=1, items=(item(SPACE), item(ZH))), Answer())
    out = capsys.readouterr().out
    assert "  blank 1   \u23ce\u23ce  0.500\n" in out
    assert "  blank 2   (nothing)  0.500\n" in out


def test_the_demo_shows_its_fills_in_place(capsys):
    for text, answer, truth in ((" [MASK] the end", " It is", " It was"), ("a[MASK]", "\n", "\n")):
        fill = DemoFill(language="en", text=text, truth=truth, answer=answer, probability=0.25,
                        correct=answer == truth)  # fmt: skip
        print_answered(fill, Answer())
    assert capsys.readouterr().out == (
        " [It is] the end\n  0.25  wrong, the text had: It was\na[\u23ce]\n  0.25  right\n"
    )


@pytest.mark.parametrize(
    ("probability", "style"),
    [(1.0, "1;32"), (0.9, "1;32"), (0.89, "32"), (0.5, "32"), (0.1, "33"), (0.09, "31"), (0, "31")],
)
def test_a_fill_is_shaded_by_its_probability(probability, style, monkeypatch):
    blank = TextBlank(
        text=" fox", probability=probability, tokens=(), ended=True, start=3, candidates=()
    )
    shown = FilledItem(prompt="", text="the fox.", blanks=(blank,))
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_fill(FillResult(run="r", step=1, items=(shown,)), Answer())
    assert f"the \x1b[{style}mfox\x1b[0m." in stream.getvalue()
    assert f"{probability:.3f}" in stream.getvalue()
