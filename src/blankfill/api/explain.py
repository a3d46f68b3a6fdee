"""`blankfill explain`: one training example, part by part, without torch."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blankfill.config.objective import ObjectiveConfig, PositionScheme
from blankfill.errors import ConfigError, DataError, RequestError

if TYPE_CHECKING:
    from blankfill.objective.render import TokenRow
    from blankfill.text.tokenizer import TextTokenizer

__all__ = ["ExplainResult", "explain"]

_SPAN = re.compile(r"(\d+):(\d+)")
SHOWN_MASK = 48
"""Tokens up to which the mask is shown in the terminal, two characters for each."""
LONGEST = 2048
"""A longer text is cut to this many tokens: the longest row of the published models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainResult:
    """One example and how it came about."""

    kind: str
    """short or document."""
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


def explain(
    text: str | None = None,
    /,
    *,
    spans: tuple[str, ...] = (),
    tokenizer: str = "words",
    positions: PositionScheme = "corrupted",
    kind: Literal["drawn", "short", "document"] = "drawn",
    data: Path | None = None,
    index: int = 0,
    seed: int = 1,
    picture: Path | None = None,
) -> ExplainResult:
    """Show one training example: Part A, Part B, both positions, targets, and who sees whom.

    Example:
        blankfill explain "The quick brown fox jumps over the lazy dog." --spans 2:4

    Args:
        text: a text of yours; - reads stdin. Or name a store with --data.
        spans: what to cut out, as token ranges such as 2:4 7:8; drawn where not given.
        tokenizer: words, which splits at blanks, or the folder of a trained tokenizer.
        positions: corrupted (the papers), linear (GLM-130B) or original (the article).
        kind: what to draw where no spans are given.
        data: token store to take the document from, with its own tokenizer.
        index: number of the document in the store.
        seed: seed of the draw.
        picture: draw the attention mask into this .png, .svg or .pdf file.

    Raises:
        RequestError: there is no text.
        DataError: a span does not fit the text, or the store has no such document.
    """
    import numpy as np

    from blankfill.objective.blank import build_example
    from blankfill.objective.render import draw_mask, mask_text, token_rows
    from blankfill.objective.sample import draw_example
    from blankfill.text.tokenizer import Tokenizer, WordTokenizer

    chosen: TextTokenizer
    if (text is None) == (data is None):
        raise RequestError("name a text or a token store with --data, one of the two")
    if text is not None:
        text = _stdin() if text == "-" else _checked(text)
        if not text.strip():
            raise RequestError("the text is empty; give at least one word")
        chosen = WordTokenizer(text) if tokenizer == "words" else Tokenizer.load(tokenizer)
        tokens = chosen.encode(text)
    else:
        assert data is not None
        chosen, tokens = _from_store(data, index)
    if not len(tokens):
        raise RequestError("the text holds no token; give at least one word")
    tokens = tokens[:LONGEST]
    if picture is not None and picture.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--picture {picture} must end in .png, .svg or .pdf")
    cfg = _config(kind, positions)
    if spans:
        ranges = np.array([_range(span) for span in spans], np.int32)
        order = np.arange(len(ranges), dtype=np.int32)
        example = build_example(
            tokens, ranges, kind=_kind(kind), order=order, ids=chosen.ids, scheme=positions
        )
    else:
        example = draw_example(tokens, cfg, chosen.ids, seed=seed, epoch=0, index=index)
        ranges, order = example.spans, example.order
    segments = np.zeros(len(example.tokens), np.int32)
    short = len(example.tokens) <= SHOWN_MASK
    if picture is not None:
        blanks = "1 blank" if len(ranges) == 1 else f"{len(ranges)} blanks"
        title = f"{len(tokens)} tokens, {blanks}, {positions} positions"
        draw_mask(example, chosen.token, picture, title=title)
    return ExplainResult(
        kind=example.kind.name.lower(),
        positions=positions,
        spans=ranges.tolist(),
        order=order.tolist(),
        tokens=token_rows(example, chosen.token),
        document=chosen.decode(tokens),
        mask=mask_text(segments, example.is_part_b).split("\n") if short else [],
        picture=None if picture is None else str(picture),
    )


def _config(kind: str, positions: PositionScheme) -> ObjectiveConfig:
    cfg = replace(ObjectiveConfig(), positions=positions)
    if kind == "drawn":
        return cfg
    share = 1.0 if kind == "short" else 0.0
    return replace(cfg, short_rate=share, document_rate=1.0 - share)


def _kind(kind: str) -> Any:
    from blankfill.objective.batch import Kind

    return Kind.DOCUMENT if kind == "document" else Kind.SHORT


def _from_store(data: Path, index: int) -> tuple[TextTokenizer, Any]:
    import numpy as np

    from blankfill.data.store import TokenStore
    from blankfill.text.tokenizer import Tokenizer

    store = TokenStore.open(data)
    if not 0 <= index < len(store):
        raise DataError(f"{data} has documents 0 to {len(store) - 1}, not {index}")
    return Tokenizer.load(Path(data) / "tokenizer"), store.document(index).astype(np.int32)


def _range(span: str) -> tuple[int, int]:
    found = _SPAN.fullmatch(span)
    if not found:
        raise ConfigError(f"--spans {span} must look like 2:4, first token and end")
    start, end = (min(int(number), 2**31 - 1) for number in found.groups())
    return start, end


def _checked(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the text is not valid Unicode at character {error.start}; pass it as UTF-8"
        ) from error
    return text


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"stdin is not UTF-8 at byte {error.start}; convert it to UTF-8 first"
        ) from error
