"""`blankfill explain`: one training example, part by part; or a whole store's; without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from blankfill.api.parameters import PathLike, Spans, as_path, as_picture
from blankfill.config.arguments import checks_arguments
from blankfill.config.objective import MIXTURES, ObjectiveConfig, PositionScheme
from blankfill.config.ranges import Range, RowLength, Seed, shown
from blankfill.errors import ConfigError, DataError, RequestError
from blankfill.results import short_repr
from blankfill.text.user_text import checked, read_stdin

if TYPE_CHECKING:
    from blankfill.data.statistics import EpochStatistics
    from blankfill.objective.batch import Example
    from blankfill.objective.render import TokenRow
    from blankfill.text.tokenizer import TextTokenizer

__all__ = ["Draw", "ExplainResult", "explain"]

_SPAN = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")
SHOWN_MASK = 48
"""Tokens up to which the mask is shown in the terminal, two characters for each."""
LONGEST = 2048
"""A longer text is cut to this many tokens: the longest row of the published models."""
SCHEMES: tuple[PositionScheme, ...] = ("corrupted", "linear", "original")


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How the example came about."""

    mixture: str
    """Name of the objective."""
    drawn_kind: str
    """The kind that was drawn; the example's is another where the text cannot take it."""
    lengths: list[int]
    """Tokens of each span, left to right."""
    placement: str
    """Law of the places of short spans."""
    end: str
    """What each span's targets end in."""
    seed: int
    """Seed of the draw."""
    epoch: int
    """Pass over the data."""
    index: int
    """Number of the document, part of the draw's address."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainResult:
    """One example and how it came about, or what an epoch of a store is like."""

    kind: str
    """short, sentence, document or causal."""
    positions: str
    """Position scheme."""
    spans: list[list[int]]
    """What was cut out, as half-open token ranges of the document."""
    order: list[int]
    """The order in which Part B generates the spans."""
    tokens: list[TokenRow]
    """Every input token, Part A first."""
    document: str
    """The text that the tokens spell."""
    mask: list[str]
    """Who sees whom, a line per query: # Part A, + Part B, . nothing; empty where it is long."""
    picture: str | None
    """The picture that was drawn."""
    draw: Draw | None
    """How it was drawn; None where --spans says what to cut out."""
    compare: dict[str, list[list[int]]] | None
    """With --compare: both positions of every token under each scheme."""
    statistics: EpochStatistics | None
    """With --stats: one epoch of the store."""
    language: str
    """Language of the explanation."""

    __repr__ = short_repr


@checks_arguments
def explain(
    text: str | None = None,
    /,
    *,
    spans: Spans = (),
    tokenizer: PathLike = "words",
    positions: PositionScheme | None = None,
    kind: Literal["drawn", "short", "sentence", "document", "causal"] = "drawn",
    mixture: str = "ours",
    data: PathLike | None = None,
    index: Annotated[int, Range(0, 10**12)] = 0,
    seed: Seed = 1,
    epoch: Annotated[int, Range(0, 10**12)] = 0,
    compare: bool = False,
    stats: bool = False,
    row_length: RowLength = 512,
    picture: PathLike | None = None,
    lang: Literal["en", "zh"] = "en",
) -> ExplainResult:
    """Show one training example: Part A, Part B, both positions, targets, and who sees whom.

    Example:
        blankfill explain "The quick brown fox jumps over the lazy dog." --spans 2:4
        blankfill explain --data store --index 17 --compare
        blankfill explain --data store --stats --mixture glm-130b --row-length 2048

    Args:
        text: a text of yours; - reads stdin. Or name a store with --data.
        spans: what to cut out, as token ranges such as 2:4 7:8, in Python also (2, 4); drawn where
            not given.
        tokenizer: words, which splits at blanks and Chinese by characters, or the folder of a
            trained tokenizer.
        positions: corrupted (the papers), linear (GLM-130B) or original (the article); the
            mixture's own where not given.
        kind: what to draw where no spans are given.
        mixture: objective to draw from: ours, glm-base, glm-doc, glm-2b, glm-10b-512,
            glm-10b-1024, glm-large-zh, glm-130b, ul2-r or ul2-x.
        data: token store to take the document from, with its own tokenizer.
        index: number of the document in the store.
        seed: seed of the draw.
        epoch: pass over the data, from 0.
        compare: show the positions under every scheme side by side.
        stats: count one epoch of the store instead: kinds, masked share, span lengths against their
            law, fill, targets per row, and what is lost.
        row_length: positions of a row, for --stats.
        picture: draw the attention mask into this .png, .svg or .pdf file.
        lang: language of the explanation, en or zh.

    Raises:
        RequestError: there is no text.
        DataError: a span does not fit the text, or the store has no such document.
    """
    data = None if data is None else as_path(data)
    if (text is None) == (data is None):
        raise RequestError("name a text or a token store with --data, one of the two")
    if stats and data is None:
        raise RequestError("--stats counts a token store; name one with --data")
    drawn = None if picture is None else as_picture("--picture", picture)
    cfg = _config(mixture, kind, positions)
    if stats:
        assert data is not None
        return _statistics(data, cfg, row_length=row_length, seed=seed, epoch=epoch, lang=lang)
    chosen, tokens, sentence_ends, prompt = _document(text, data, index, str(tokenizer))
    draw = None
    if spans:
        example = _given(tokens, _pairs(spans), kind, chosen, cfg.positions)
    else:
        example, draw = _drawn(
            tokens, sentence_ends, prompt, cfg, chosen, mixture, seed, epoch, index
        )
    from blankfill.objective.blank import restore

    return _result(
        example, draw, restore(example), chosen, cfg.positions, compare=compare, picture=drawn,
        lang=lang,
    )  # fmt: skip


def _result(
    example: Example, draw: Draw | None, tokens: Any, chosen: TextTokenizer,
    positions: PositionScheme, *, compare: bool, picture: Path | None, lang: str,
) -> ExplainResult:  # fmt: skip
    import numpy as np

    from blankfill.objective.blank import build_example
    from blankfill.objective.render import draw_mask, mask_text, token_rows

    if picture is not None:
        count = len(example.spans)
        blanks = "1 blank" if count == 1 else f"{count} blanks"
        title = f"{len(tokens)} tokens, {blanks}, {positions} positions"
        draw_mask(example, chosen.token, picture, title=title)
    schemes = {
        scheme: build_example(
            tokens, example.spans, kind=example.kind, order=example.order, ids=chosen.ids,
            scheme=scheme, end=example.end,
        ).positions.tolist()
        for scheme in SCHEMES
    } if compare else None  # fmt: skip
    segments = np.zeros(len(example.tokens), np.int32)
    short = len(example.tokens) <= SHOWN_MASK
    return ExplainResult(
        kind=example.kind.name.lower(),
        positions=positions,
        spans=example.spans.tolist(),
        order=example.order.tolist(),
        tokens=token_rows(example, chosen.token),
        document=chosen.decode(tokens),
        mask=mask_text(segments, example.is_part_b).split("\n") if short else [],
        picture=None if picture is None else str(picture),
        draw=draw,
        compare=schemes,
        statistics=None,
        language=lang,
    )


def _statistics(
    data: Path, cfg: ObjectiveConfig, *, row_length: int, seed: int, epoch: int, lang: str
) -> ExplainResult:
    from blankfill.data.statistics import epoch_statistics
    from blankfill.data.store import TokenStore
    from blankfill.text.vocabularies import load_tokenizer

    store = TokenStore.open(data)
    found = epoch_statistics(
        [store], cfg, load_tokenizer(store.path / "tokenizer").ids, row_length=row_length,
        seed=seed, epoch=epoch,
    )  # fmt: skip
    return ExplainResult(
        kind="statistics", positions=cfg.positions, spans=[], order=[], tokens=[], document="",
        mask=[], picture=None, draw=None, compare=None, statistics=found, language=lang,
    )  # fmt: skip


def _config(mixture: str, kind: str, positions: PositionScheme | None) -> ObjectiveConfig:
    if mixture not in MIXTURES:
        raise ConfigError(f"there is no mixture {mixture!r}; take one of: {', '.join(MIXTURES)}")
    cfg = MIXTURES[mixture]
    if positions is not None:
        cfg = replace(cfg, positions=positions)
    if kind == "drawn":
        return cfg
    rates = {f"{name}_rate": 0.0 for name in ("short", "sentence", "document", "causal")}
    return replace(cfg, **(rates | {f"{kind}_rate": 1.0}))


def _document(
    text: str | None, data: Path | None, index: int, tokenizer: str
) -> tuple[TextTokenizer, Any, Any, int | None]:
    """Give the tokenizer, the tokens, the ends of sentences, and of a pair its text's tokens."""
    import numpy as np

    from blankfill.text.sentences import sentence_tokens
    from blankfill.text.tokenizer import Tokenizer, WordTokenizer

    chosen: TextTokenizer
    prompt = None
    if data is not None:
        chosen, tokens, ends, prompt = _from_store(data, index)
    else:
        assert text is not None
        text = read_stdin() if text == "-" else checked(text)
        if not text.strip():
            raise RequestError("the text is empty; give at least one word")
        chosen = WordTokenizer(text) if tokenizer == "words" else Tokenizer.load(tokenizer)
        tokens = chosen.encode(text)
        ends = sentence_tokens(text, tokens, chosen)
    if not len(tokens):
        raise RequestError("the text holds no token; give at least one word")
    if prompt is None:
        tokens = tokens[:LONGEST]
    return chosen, tokens, np.unique(np.append(ends[ends < len(tokens)], len(tokens))), prompt


def _from_store(data: Path, index: int) -> tuple[TextTokenizer, Any, Any, int | None]:
    import numpy as np

    from blankfill.data.store import TokenStore
    from blankfill.text.vocabularies import load_tokenizer

    store = TokenStore.open(data)
    if not 0 <= index < len(store):
        raise DataError(f"{data} has documents 0 to {len(store) - 1}, not {index}")
    tokens = store.document(index).astype(np.int32)
    ends = np.zeros(0, np.int64)
    if store.has_sentences:
        ends = store.sentence_ends(index, 0, len(tokens))
    prompt = None
    if (before := int(store.prompts_of(np.array([index]))[0])) >= 0:
        prompt = before
    return load_tokenizer(store.path / "tokenizer"), tokens, ends, prompt


def _given(
    tokens: Any,
    spans: list[tuple[int, int]],
    kind: str,
    chosen: TextTokenizer,
    positions: PositionScheme,
) -> Example:
    """Build the example of the user's own spans, in the order of the text."""
    import numpy as np

    from blankfill.objective.batch import Kind
    from blankfill.objective.blank import build_example
    from blankfill.objective.frame import frame_blanks

    chosen_kind = Kind.SHORT if kind == "drawn" else Kind[kind.upper()]
    ranges = np.array(spans, np.int32)
    tokens, ranges = frame_blanks(tokens, ranges, chosen_kind, chosen.ids)
    return build_example(
        tokens, ranges, kind=chosen_kind,
        order=np.arange(len(ranges), dtype=np.int32), ids=chosen.ids, scheme=positions,
    )  # fmt: skip


def _drawn(
    tokens: Any, sentence_ends: Any, prompt: int | None, cfg: ObjectiveConfig,
    chosen: TextTokenizer, mixture: str, seed: int, epoch: int, index: int,
) -> tuple[Example, Draw]:  # fmt: skip
    """Draw an example, and say what was drawn."""
    from blankfill.objective.sample import draw_example, drawn_kind

    example = draw_example(
        tokens, cfg, chosen.ids, seed=seed, epoch=epoch, index=index, sentence_ends=sentence_ends,
        prompt=prompt,
    )  # fmt: skip
    kind = example.kind
    if prompt is None:
        kind = drawn_kind(cfg, seed=seed, epoch=epoch, index=index)
    return example, Draw(
        mixture=mixture, drawn_kind=kind.name.lower(),
        lengths=(example.spans[:, 1] - example.spans[:, 0]).tolist(), placement=cfg.placement,
        end=example.end.name.lower(), seed=seed, epoch=epoch, index=index,
    )  # fmt: skip


def _pairs(spans: Spans) -> list[tuple[int, int]]:
    """Take token ranges, one or several, as pairs.

    Raises:
        ConfigError: one of them is no range.
    """
    several = [spans] if isinstance(spans, str) else [*spans]
    if len(several) == 2 and not any(isinstance(each, str | tuple | list) for each in several):
        several = [several]  # one pair
    return [_pair(each) for each in several]


def _pair(span: Any) -> tuple[int, int]:
    found = _SPAN.fullmatch(span) if isinstance(span, str) else None
    if isinstance(span, str) and not found:
        raise ConfigError(f"--spans {shown(span)} must look like 2:4, first token and end")
    start, end = (int(number) for number in (found.groups() if found else span))
    if start < 0:
        raise ConfigError(f"--spans {start}:{end}: the first token is number 0")
    return min(start, 2**31 - 1), max(-1, min(end, 2**31 - 1))
