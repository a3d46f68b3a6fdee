"""Protocols: what a model reads of an item, and how candidates are compared.

Three ways to read an item:

- `both sides`: the text on both sides of the blank is Part A; a candidate is scored in the blank.
- `prefix`: the text before the blank is Part A, read in both directions, behind it `[gMASK]`; a
  candidate is scored together with the text after the blank, which is not seen.
- `one-way`: Part A is `[gMASK]` alone; text and candidate are read from left to right, as a causal
  model reads them.

An item of nothing but a blank (minimal pairs) is a whole text behind `[gMASK]`. Where both sides
are read, and all candidates begin or end alike, the blank is where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["PROTOCOLS", "HarnessMode", "Protocol", "ProtocolName", "Sees"]

Sees = Literal["both sides", "prefix", "one-way"]
"""What is read of an item before a candidate."""
Compared = Literal["sum", "byte", "whole"]
"""By what candidates are compared: the log-probability of their tokens, that per byte of their
text, or that of exactly this fill, its end included."""
HarnessMode = Literal["bidirectional", "unidirectional", "mask"]
"""What the lm-evaluation-harness has read of a context, and how (`harness.py`)."""
ProtocolName = Literal[
    "cloze", "glm-130b", "length-normalised", "bidirectional", "unidirectional", "few-shot"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How the items of a task are put to a model."""

    name: ProtocolName
    """As users call it."""
    sees: Sees
    """What is read before a candidate."""
    compared: Compared
    """By what candidates are compared."""
    is_english: bool = False
    """Whether Chinese items are asked for in English words."""
    shots: int = 0
    """Solved examples before each item, where the user says nothing."""


_ALL = (
    Protocol(name="cloze", sees="both sides", compared="whole"),
    # Zeng et al. 2022, appendix C; released `evaluation/dataset.py: MultiChoiceTaskDataset`.
    Protocol(name="glm-130b", sees="both sides", compared="sum", is_english=True),
    Protocol(name="length-normalised", sees="both sides", compared="byte"),
    Protocol(name="bidirectional", sees="prefix", compared="sum"),
    Protocol(name="unidirectional", sees="one-way", compared="sum"),
    Protocol(name="few-shot", sees="both sides", compared="sum", shots=4),
)
PROTOCOLS: Mapping[str, Protocol] = {each.name: each for each in _ALL}
"""All protocols by name; the first is the one that is used where none is named."""
