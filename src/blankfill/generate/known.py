"""Scores of what is known: rows whose every token is given, many in few passes.

Equal Parts A are encoded once and shared by their rows, and each row is read in one step. A bounded
number of positions is encoded and read at a time, so memory does not grow with what is asked.

Shapes: A tokens of a Part A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from blankfill.generate.engine import Engine, Inputs, Prefix
from blankfill.generate.scores import KnownRow, Scorer
from blankfill.generate.writing import Writing

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["known_logprobs", "known_rows"]

STEP_POSITIONS = 1_024
"""Most positions that one step reads, however many rows there are."""
PREFIX_POSITIONS = 4_096
"""Most positions that are encoded at a time, unless one Part A alone has more."""


def known_logprobs(
    lm: LanguageModel, writings: Sequence[Writing], advance: Callable[[int], None] | None = None
) -> list[list[float]]:
    """Give the log-probability of every token of some rows, ends included where they are given.

    Args:
        lm: the model.
        writings: rows whose every token is forced.
        advance: called with the number of rows that were just read.

    Raises:
        CheckpointError: the model's scores are not numbers.
    """
    return [row.logprobs for row in known_rows(lm, writings, advance)]


@torch.inference_mode()
def known_rows(
    lm: LanguageModel, writings: Sequence[Writing], advance: Callable[[int], None] | None = None,
    *, ranked: bool = False,
) -> list[KnownRow]:  # fmt: skip
    """Give the scores of every token of some rows, as `known_logprobs` does.

    Args:
        lm: the model.
        writings: rows whose every token is forced.
        advance: called with the number of rows that were just read.
        ranked: whether it is asked too which tokens are the most probable.

    Raises:
        CheckpointError: the model's scores are not numbers.
    """
    engine, scorer = Engine(lm.model), Scorer(lm)
    readings = [writing.reading() for writing in writings]
    known = [KnownRow() for _ in writings]
    with lm.computing():
        for group in _groups(writings):
            parts = [writings[members[0]].prompt for members in group]
            prefixes = engine.encode([(prompt.tokens, prompt.positions) for prompt in parts])
            rows = [(i, prefix) for prefix, each in zip(prefixes, group, strict=True) for i in each]
            for chunk in _chunks(rows, [len(readings[i].tokens) for i, _ in rows]):
                joined = [engine.join(prefix) for _, prefix in chunk]
                read = [readings[i] for i, _ in chunk]
                inputs = [
                    Inputs(row, reading.tokens, reading.positions)
                    for row, reading in zip(joined, read, strict=True)
                ]
                found = scorer.known_rows(engine.step(inputs), read, ranked=ranked)
                for (i, _), row in zip(chunk, found, strict=True):
                    known[i] = row
                for each in joined:
                    engine.leave(each)
                if advance is not None:
                    advance(len(chunk))
            for prefix in prefixes:
                engine.release(prefix)
    return known


def _groups(writings: Sequence[Writing]) -> Iterator[list[list[int]]]:
    """Part rows so that not too much of their Parts A is encoded at a time.

    Returns:
        Of each group the numbers of the rows, those with the same Part A together.
    """
    sharing: dict[int, list[int]] = {}
    for i, writing in enumerate(writings):
        sharing.setdefault(id(writing.prompt), []).append(i)
    group: list[list[int]] = []
    positions = 0
    for members in sharing.values():
        length = len(writings[members[0]].prompt.tokens)
        if group and positions + length > PREFIX_POSITIONS:
            yield group
            group, positions = [], 0
        group.append(members)
        positions += length
    if group:
        yield group


def _chunks(
    rows: Sequence[tuple[int, Prefix]], lengths: Sequence[int]
) -> Iterator[list[tuple[int, Prefix]]]:
    """Part rows so that those of similar length are read together, and not too many."""
    chunk: list[tuple[int, Prefix]] = []
    for k in sorted(range(len(rows)), key=lambda k: lengths[k]):
        if chunk and (len(chunk) + 1) * lengths[k] > STEP_POSITIONS:
            yield chunk
            chunk = []
        chunk.append(rows[k])
    if chunk:
        yield chunk
