"""The report as one HTML page: no network, no fonts or scripts from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path

from blankfill import __version__
from blankfill.report.chart import Chart, draw_chart, format_value
from blankfill.report.evaluations import evaluation_tables
from blankfill.report.figures import learning_charts, speed_charts
from blankfill.report.fills import sample_fills
from blankfill.report.read import RunHistory
from blankfill.report.tables import (
    changes_table,
    configuration,
    data_table,
    differences,
    final_figures,
    machine_table,
    num_parameters,
    run_mark,
    table,
)
from blankfill.report.words import Language, say
from blankfill.text.language import LANGUAGES

__all__ = ["build_page", "foot", "frame_page", "is_report"]

_Writer = Callable[[RunHistory, Language], str]

MARK = "<!doctype html><!-- blankfill report -->"
"""How every report begins, so that a later one knows what it may replace."""
TILES = ("final loss", "training time", "median positions", "median mfu")
"""Final figures that the head of a single run's report shows large."""


def is_report(path: Path) -> bool:
    """Tell whether a file is a report, by how it begins."""
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def build_page(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    """Build the page of one run, or of several side by side.

    Args:
        records: the runs.
        names: a name for each.
        lang: language of the page.
    """
    several = len(records) > 1
    sections = [
        _section("figures", _figures(records, names, lang), lang) if several else "",
        _section("differences", differences(records, names, lang), lang) if several else "",
        _section("learning", _grid(learning_charts(records, names, lang)), lang),
        _section("fills", sample_fills(records, names, lang), lang),
        _section("baselines", evaluation_tables(records, names, lang), lang),
        _section("speed", _speed(records, names, lang), lang),
        "" if several else _section("figures", _figures(records, names, lang), lang),
        _section("changes", _per_run(records, names, changes_table, lang), lang),
        _section("data", _per_run(records, names, data_table, lang), lang),
        _section("hardware", _per_run(records, names, machine_table, lang), lang),
        _section(
            "configuration", _folded(_per_run(records, names, configuration, lang), lang), lang
        ),
    ]
    body = (
        f"{_head(records, names, lang)}"
        f"<main>{_notes(records, names, lang)}{''.join(sections)}</main>{foot(lang)}"
    )
    return frame_page(MARK, f"{', '.join(names)} - {say('title', lang)}", body, lang)


def frame_page(mark: str, title: str, body: str, lang: Language) -> str:
    """Put a page together that needs no other file.

    Args:
        mark: how it begins, by which a later one knows what it may replace.
        title: of the window.
        body: HTML.
        lang: language of the page.
    """
    return "".join(
        [
            mark,
            f'\n<html lang="{lang}"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title><style>{_asset('page.css')}</style></head><body>",
            body,
            f'<div id="tip" role="status"></div><script>{_asset("page.js")}</script>',
            "</body></html>\n",
        ]
    )


def _head(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    if len(records) > 1:
        shown = "".join(
            f"<li>{run_mark(name, i)} <small>{_summary(record, lang)}</small></li>"
            for i, (name, record) in enumerate(zip(names, records, strict=True))
        )
        body = f"<h1>{say('runs', lang, len(records))}</h1><ul class='runs'>{shown}</ul>"
    else:
        body = (
            f"<h1>{escape(names[0])}</h1><p>{_summary(records[0], lang)}</p>"
            f"{_progress(records[0], lang)}{_tiles(records, names, lang)}"
        )
    return (
        f'<header><p class="brand">blank<b>fill</b> <span>{say("title", lang)}</span></p>'
        f"{body}</header>"
    )


def _summary(record: RunHistory, lang: Language) -> str:
    model, count = record.info.config.model, num_parameters(record)
    tokens = sum(store.tokens for store in record.info.data)
    facts = [
        say("parameters", lang, format_value(float(f"{count:.3g}"))),
        say("layers", lang, model.num_layers, model.hidden_size),
    ]
    if tokens:  # an import has none
        facts.append(say("tokens", lang, format_value(float(f"{tokens:.3g}"))))
    facts.append(say("started", lang, record.info.started[:16].replace("T", " ")))
    return " \u00b7 ".join(map(escape, facts))


def _progress(record: RunHistory, lang: Language) -> str:
    planned = record.info.config.train.steps
    done = record.step >= planned
    words = say("progress", lang, f"{record.step:,}", f"{planned:,}")
    state = say("finished" if done else "not finished", lang)
    share = min(100.0, 100 * record.step / planned)
    return (
        f'<p class="progress"><span class="bar"><i style="width:{share:.1f}%"></i></span>'
        f"{words}, {state}</p>"
    )


def _tiles(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    """Show a few figures large, each with where it comes from."""
    record = records[0]
    figures = dict(final_figures(records, names, lang))
    shown = [
        (say(key, lang), figures[say(key, lang)][0], "")
        for key in TILES
        if say(key, lang) in figures
    ]
    tiles = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
        + (f"<dd class='source'>{escape(source)}</dd>" if source else "")
        + "</div>"
        for key, value, source in [*_held_out(record, lang), *shown]
    )
    return f'<dl class="tiles">{tiles}</dl>' if tiles else ""


def _held_out(record: RunHistory, lang: Language) -> list[tuple[str, str, str]]:
    """Give how well held-out blanks are filled: as evaluated last, else as seen in training."""
    found: list[tuple[str, str, str]] = []
    if record.evaluation:
        source = say("of evaluation", lang, f"{record.evaluation.step:,}")
        for report in record.evaluation.blanks.languages:
            exact = report.scores[0].exact_match
            if exact and report.language in LANGUAGES:
                word = say("final exact", lang, say(report.language, lang))
                found.append((word, f"{exact.value:.1%}", source))
    else:
        for language in LANGUAGES:
            points = record.points(f"validation_exact_match_{language}")
            if points:
                source = say("of validation", lang, f"{points[-1].step:,}")
                word = say("final exact", lang, say(language, lang))
                found.append((word, f"{points[-1].value:.1%}", source))
    losses = record.points("validation_loss_nats")
    if losses:
        source = say("of validation", lang, f"{losses[-1].step:,}")
        found.append((say("final validation", lang), f"{losses[-1].value:.4f}", source))
    return found


def _notes(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    notes: list[str] = []
    for name, record in zip(names, records, strict=True):
        if not record.rows:
            notes.append(say("no metrics", lang, name))
        if record.num_not_finite():
            notes.append(say("not finite", lang, name, record.num_not_finite()))
    return "".join(f'<p class="warning">{escape(note)}</p>' for note in notes)


def _figures(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    rows = [
        [escape(key), *map(escape, values)] for key, values in final_figures(records, names, lang)
    ]
    if not rows:
        return ""
    head = [say("figure", lang), *(run_mark(name, i) for i, name in enumerate(names))]
    return table(head, rows, kind="numbers")


def _grid(charts: Sequence[Chart]) -> str:
    drawn = "".join(map(draw_chart, charts))
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _speed(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    charts = _grid(speed_charts(records, names, lang))
    if not charts or not any(record.points("mfu") for record in records):
        return charts
    peaks = [
        say("peak", lang, format_value(float(f"{rate:.3g}")),
            record.info.hardware.peak_source or "?")
        for record in records
        if (rate := record.last("peak_flops_per_second"))
    ]  # fmt: skip
    note = escape("".join(dict.fromkeys(peaks)) + say("mfu note", lang))
    return f'<p class="note">{note}</p>{charts}'


def _per_run(
    records: Sequence[RunHistory], names: Sequence[str], write: _Writer, lang: Language
) -> str:
    shown: list[str] = []
    for number, (name, record) in enumerate(zip(names, records, strict=True)):
        body = write(record, lang)
        if body:
            title = f"<h3>{run_mark(name, number)}</h3>" if len(records) > 1 else ""
            shown.append(title + body)
    return "".join(shown)


def _folded(body: str, lang: Language) -> str:
    return f"<details><summary>{say('every field', lang)}</summary>{body}</details>"


def _section(key: str, body: str, lang: Language) -> str:
    return f'<section id="{key}"><h2>{say(key, lang)}</h2>{body}</section>' if body else ""


def foot(lang: Language) -> str:
    """Say when and by what a page was written."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"<footer class='page'><p>{say('made', lang, now, __version__)}</p>"
        f"<p>{say('self', lang)}</p></footer>"
    )


def _asset(name: str) -> str:
    return resources.files("blankfill.report").joinpath(name).read_text(encoding="utf-8")
