"""The tables of a report: final figures, what differs, configuration, data, machine."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

from blankfill.config.run import to_dict
from blankfill.disk.typed_json import to_json
from blankfill.metrics.flops import count_parameters
from blankfill.report.chart import NUM_COLOURS
from blankfill.report.read import RunHistory
from blankfill.report.words import Language, say
from blankfill.text.language import LANGUAGES

__all__ = [
    "changes_table",
    "configuration",
    "data_table",
    "differences",
    "final_figures",
    "machine_table",
    "num_parameters",
]


_TAG = re.compile(r"<[^>]*>")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """Write a table of cells that are HTML already; the first of a row is its heading.

    Each cell knows what stands above it: a table of the kind `scores` shows its rows as lists where
    it would be wider than the page.
    """
    above = [f' data-above="{escape(_TAG.sub("", cell))}"' for cell in head] or [""] * len(
        rows[0] if rows else ()
    )
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{name}>{cell}</td>" for name, cell in zip(above[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll"><table class="{kind}">{thead}<tbody>{body}</tbody></table></div>'


def run_mark(name: str, number: int) -> str:
    """Write a run's name after its colour."""
    return f'<i class="swatch" style="--c:var(--c{number % NUM_COLOURS})"></i>{escape(name)}'


def final_figures(
    records: Sequence[RunHistory], names: Sequence[str], lang: Language
) -> list[tuple[str, list[str]]]:
    """Give each figure's name and its value in every run; figures that no run has are left out."""
    columns = [_figures(record, lang) for record in records]
    keys = dict.fromkeys(key for column in columns for key in column)
    order = sorted(
        keys, key=lambda key: max(list(c).index(key) if key in c else 0 for c in columns)
    )
    return [(key, [column.get(key, "") for column in columns]) for key in order]


def _figures(record: RunHistory, lang: Language) -> dict[str, str]:
    found: dict[str, str] = {}
    if record.rows:
        planned = record.info.config.train.steps
        found[say("steps done", lang)] = f"{record.step:,} / {planned:,}"
    for word, key in (("final loss", "loss_nats"), ("final validation", "validation_loss_nats")):
        value = record.last(key)
        if value is not None:
            found[say(word, lang)] = f"{value:.4f}"
    held_out = record.points("validation_loss_nats")
    if held_out:
        best = min(held_out, key=lambda point: point.value)
        shown = say("best at", lang, f"{best.value:.4f}", f"{best.step:,}")
        found[say("best validation", lang)] = shown
    for language in LANGUAGES:
        word = say(language, lang)
        exact = record.last(f"validation_exact_match_{language}")
        loss = record.last(f"validation_blank_loss_nats_{language}")
        if loss is not None:
            found[say("final blank loss", lang, word)] = f"{loss:.4f}"
        if exact is not None:
            found[say("final exact", lang, word)] = f"{exact:.1%}"
    epoch = record.last("epoch")
    if epoch is not None:
        found[say("epochs", lang)] = f"{epoch:.3g}"
    if record.rows and record.positions_per_step:
        found[say("positions seen", lang)] = f"{record.step * record.positions_per_step:,}"
    clock = record.hours()
    if clock:
        found[say("training time", lang)] = _duration(clock[-1].value * 3600, lang)
    for word, key, shape in (
        ("median positions", "positions_per_second", "{:,.0f}"),
        ("median targets", "targets_per_second", "{:,.0f}"),
        ("median mfu", "mfu", "{:.1%}"),
    ):
        values = [point.value for point in record.points(key)]
        if values:
            found[say(word, lang)] = shape.format(statistics.median(values))
    found[say("num parameters", lang)] = f"{num_parameters(record):,}"
    return found


def num_parameters(record: RunHistory) -> int:
    """Count the model's weights."""
    return sum(count_parameters(record.info.config.model).values())


def differences(records: Sequence[RunHistory], names: Sequence[str], lang: Language) -> str:
    """Write the table of all settings in which the runs differ."""
    flat = [_settings(record) for record in records]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    absent = f'<span class="absent">{say("absent", lang)}</span>'
    rows = [
        [
            f"<code>{escape(key)}</code>",
            *(_value(settings[key]) if key in settings else absent for settings in flat),
        ]
        for key in keys
        if len({json.dumps(settings.get(key), default=str) for settings in flat}) > 1
    ]
    if not rows:
        return f"<p>{say('no differences', lang)}</p>"
    head = [say("field", lang), *(run_mark(name, i) for i, name in enumerate(names))]
    return table(head, rows, kind="settings")


def _settings(record: RunHistory) -> dict[str, object]:
    """Flatten what decides a run: configuration, data, software and hardware."""
    found: dict[str, object] = {}
    info = record.info
    for section, fields in to_dict(info.config).items():
        found |= {f"{section}.{name}": value for name, value in fields.items()}
    for role, stores in (("data", info.data), ("validation", info.validation)):
        found[role] = ", ".join(store.path for store in stores)
        found[f"{role}.tokens"] = sum(store.tokens for store in stores)
    for part, entry in (("software", info.software), ("hardware", info.hardware)):
        found |= {f"{part}.{name}": value for name, value in to_json(entry).items()}
    return found


def configuration(record: RunHistory, lang: Language) -> str:
    """Write every field of the configuration, part by part."""
    parts: list[str] = []
    for name, fields in to_dict(record.info.config).items():
        rows = [[f"<code>{escape(key)}</code>", _value(value)] for key, value in fields.items()]
        parts.append(f"<div><h4>{escape(name)}</h4>{table([], rows, kind='settings')}</div>")
    return f'<div class="parts">{"".join(parts)}</div>'


def data_table(record: RunHistory, lang: Language) -> str:
    """Write which stores were read, and how large they are."""
    rows = [
        [
            escape(store.path),
            say(role, lang),
            _value(store.documents),
            _value(store.tokens),
            f"<code>{escape(store.fingerprint[:12])}</code>",
        ]
        for stores, role in (
            (record.info.data, "for training"), (record.info.validation, "for validation"),
        )
        for store in stores
    ]  # fmt: skip
    head = [say(key, lang) for key in ("store", "role", "documents", "num tokens", "fingerprint")]
    return table(head, rows, kind="data")


def changes_table(record: RunHistory, lang: Language) -> str:
    """Write what a resumed run changed, and from which step on; nothing where it never did."""
    rows = [
        [f"{change.step:,}", f"<code>{escape(name)}</code>", _value(value)]
        for change in record.info.changes
        for name, value in change.values.items()
    ]
    head = [say(key, lang) for key in ("from step", "field", "new value")]
    return table(head, rows, kind="data") if rows else ""


def machine_table(record: RunHistory, lang: Language) -> str:
    """Write the machine and the versions that the run was made with."""
    rows = [
        [f"<code>{escape(key)}</code>", _value(value)]
        for entry in (record.info.hardware, record.info.software)
        for key, value in to_json(entry).items()
    ]
    return table([], rows, kind="settings")


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return escape(str(value).lower() if isinstance(value, bool) else "none")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) and abs(value) >= 1e5 else f"{value:g}"
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _duration(seconds: float, lang: Language) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return say("hours minutes", lang, whole // 3600, whole % 3600 // 60)
    return say("minutes seconds", lang, whole // 60, whole % 60)
