"""Which charts a report draws, for one run and for several.

With one run a chart holds the members of a group (kinds, languages, sources), one colour each.
With several, each run has its colour everywhere, and a group becomes one chart for each member.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from blankfill.objective.batch import Kind
from blankfill.report.chart import Chart, Line
from blankfill.report.evaluations import of_language, unlike
from blankfill.report.read import Point, RunHistory
from blankfill.report.words import Language, say
from blankfill.runs.evaluation import BlankScores
from blankfill.text.language import LANGUAGES

__all__ = ["learning_charts", "speed_charts"]

KINDS = [kind.name.lower() for kind in Kind]
LEVELS = {"trigram": 5, "unigram": 7}
"""Colours of the n-gram models."""


def learning_charts(
    records: Sequence[RunHistory], names: Sequence[str], lang: Language
) -> list[Chart]:
    """Choose the charts of what was learned."""
    draw = _Drawer(records, names, lang)
    charts: list[Chart] = []
    if len(records) == 1:
        charts += [
            draw.members("loss and validation", "nats", [
                (draw.word("training"), "loss_nats", 0),
                (draw.word("validation short"), "validation_loss_nats", 1),
            ])
        ]  # fmt: skip
    else:
        charts += [
            draw.runs("loss", "nats", "loss_nats"),
            draw.runs("validation", "nats", "validation_loss_nats"),
            draw.over_hours("loss by time", "loss_nats"),
            draw.over_hours("validation by time", "validation_loss_nats"),
        ]
    charts += draw.blanks()
    charts += draw.group("by kind", "loss_nats_", KINDS)
    charts += draw.group("by language", "loss_nats_", LANGUAGES)
    charts += draw.group("by source", "loss_nats_source_", draw.source_numbers())
    charts += draw.group("validation by kind", "validation_loss_nats_", KINDS)
    charts += draw.group("validation by language", "validation_loss_nats_", LANGUAGES)
    charts += [
        draw.runs("learning rate", "per step", "learning_rate", from_zero=True),
        draw.runs("gradient norm", "before clipping", "grad_norm", from_zero=True, log=True),
    ]
    return charts


def speed_charts(
    records: Sequence[RunHistory], names: Sequence[str], lang: Language
) -> list[Chart]:
    """Choose the charts of how fast it went."""
    draw = _Drawer(records, names, lang)
    charts = [
        draw.runs("positions per second", "per second", "positions_per_second", from_zero=True),
        draw.runs("targets per second", "per second", "targets_per_second", from_zero=True),
        draw.runs("mfu", "share of peak", "mfu", from_zero=True, percent=True),
    ]
    if len(records) == 1:
        rates = [
            (draw.word(f"flops {name}"), f"flops_per_second_{name}", colour)
            for colour, name in enumerate(("model", "dense"))
        ]
        charts.append(draw.members("flops", "per second", rates, from_zero=True))
    return charts


class _Drawer:
    """Makes charts of the same runs in the same language."""

    def __init__(self, records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> None:
        self.records, self.names = records, names
        self.lang: Language = lang
        self.present = set[str]().union(*(record.keys() for record in records))

    def word(self, key: str, *values: object) -> str:
        return say(key, self.lang, *values)

    def members(
        self, title: str, unit: str, members: Sequence[tuple[str, str, int]], *,
        from_zero: bool = False, percent: bool = False,
    ) -> Chart:  # fmt: skip
        """Draw several keys of the only run."""
        record = self.records[0]
        lines = [
            _line(name, record.points(key), colour, dots=key.startswith("validation_"))
            for name, key, colour in members
        ]
        return self._chart(self.word(title), unit, lines, from_zero=from_zero, percent=percent)

    def runs(
        self, title: str, unit: str, key: str, *, member: str = "", from_zero: bool = False,
        percent: bool = False, log: bool = False,
    ) -> Chart:  # fmt: skip
        """Draw one key of every run."""
        lines = self._each(lambda record: record.points(key), key)
        shown = self.word("member", self.word(title), member) if member else self.word(title)
        return self._chart(shown, unit, lines, from_zero=from_zero, percent=percent, log=log)

    def over_hours(self, title: str, key: str) -> Chart:
        """Draw one key of every run over the hours of training."""
        lines = self._each(lambda record: _over_hours(record, key), key)
        return self._chart(self.word(title), "nats", lines, x_name="hours")

    def group(self, title: str, prefix: str, members: Iterable[str]) -> list[Chart]:
        """Draw the members of a group that occur: one chart of one run, else one chart each."""
        found = [member for member in members if prefix + member in self.present]
        if len(found) < 2:
            return []
        named = [(self._member(prefix, member), prefix + member) for member in found]
        if len(self.records) == 1:
            lines = [(name, key, i) for i, (name, key) in enumerate(named)]
            return [self.members(title, "nats", lines)]
        return [self.runs(title, "nats", key, member=name) for name, key in named]

    def blanks(self) -> list[Chart]:
        """Draw held-out blanks, with the n-gram models where an evaluation is recorded."""
        charts: list[Chart] = []
        for language in LANGUAGES:
            key = f"validation_blank_loss_nats_{language}"
            found = [of_language(record, language) for record in self.records]
            if unlike(self.records, self.names, self.lang):
                found = [None] * len(found)
            if key not in self.present and not any(found):
                continue
            lines = self._each(lambda record, key=key: record.points(key), key)
            if len(lines) == 1:
                lines = [_line(self.word("validation short"), lines[0].points, 1, dots=True)]
            for number, (record, one) in enumerate(zip(self.records, found, strict=True)):
                scores = one.scores if one else ()
                step = record.evaluation.step if record.evaluation else 0
                points = [Point(step, _nats(s)) for s in scores if s.reads == "both sides"]
                name = self.word("evaluated")
                if len(self.records) == 1:
                    lines.append(_line(name, points, 4, dots=True))
                else:
                    lines.append(_line(f"{self.names[number]}, {name}", points, number, dots=True))
            first = next((one.scores for one in found if one), ())
            lines += [
                Line(name=self.word(score.system), points=[Point(0, _nats(score))],
                     colour=LEVELS[score.system], style="level")
                for score in first if score.system in LEVELS
            ]  # fmt: skip
            title = self.word("blank loss", self.word(language))
            charts.append(self._chart(title, "nats per token", lines))
        exact = [(lang, f"validation_exact_match_{lang}") for lang in LANGUAGES]
        exact = [(lang, key) for lang, key in exact if key in self.present]
        if len(self.records) == 1:
            lines = [(self.word(lang), key, i) for i, (lang, key) in enumerate(exact)]
            more = self.members(
                "exact match", "share of blanks", lines, from_zero=True, percent=True
            )
            return [*charts, more]
        return charts + [
            self.runs("exact match", "share of blanks", key, member=self.word(lang),
                      from_zero=True, percent=True)
            for lang, key in exact
        ]  # fmt: skip

    def source_numbers(self) -> list[str]:
        return [str(i) for i in range(max((len(r.sources) for r in self.records), default=0))]

    def _member(self, prefix: str, member: str) -> str:
        if not prefix.endswith("source_"):
            return self.word(member)
        names = {r.sources[int(member)] for r in self.records if int(member) < len(r.sources)}
        return " / ".join(sorted(names))

    def _each(self, points: Callable[[RunHistory], Sequence[Point]], key: str) -> list[Line]:
        dots = key.startswith("validation_")
        return [
            _line(name, points(record), number, dots=dots, noisy=key != "learning_rate")
            for number, (name, record) in enumerate(zip(self.names, self.records, strict=True))
        ]

    def _chart(
        self, title: str, unit: str, lines: Sequence[Line], *, x_name: str = "step",
        from_zero: bool = False, percent: bool = False, log: bool = False,
    ) -> Chart:  # fmt: skip
        return Chart(
            title=title, unit=self.word(unit), lines=lines, x_name=self.word(x_name),
            from_zero=from_zero, percent=percent, may_be_log=log,
            falls=unit.startswith("nats"),
            start_note=self.word("start", "{}", self.word(x_name), "{}"),
            log_note=self.word("logarithmic"), names_shown=len(self.records) > 1,
        )  # fmt: skip


def _line(
    name: str, points: Sequence[Point], colour: int, *, dots: bool, noisy: bool = True
) -> Line:
    return Line(
        name=name, points=points, colour=colour, style="dots" if dots else "line", noisy=noisy
    )


def _over_hours(record: RunHistory, key: str) -> list[Point]:
    """Replace steps by hours; steps between two known ones are interpolated."""
    clock = record.hours()
    if not clock or clock[-1].value <= 0:
        return []
    known = [Point(0.0, 0.0), *clock]
    return [Point(_interpolate(known, point.step), point.value) for point in record.points(key)]


def _interpolate(known: Sequence[Point], step: float) -> float:
    for before, after in itertools.pairwise(known):
        if step <= after.step:
            share = (step - before.step) / (after.step - before.step or 1.0)
            return before.value + share * (after.value - before.value)
    return known[-1].value


def _nats(score: BlankScores) -> float:
    return score.loss_nats_per_token.value
