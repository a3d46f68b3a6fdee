"""Which vocabulary and which preset suit a text and a time: one rule for each, with its source.

Both rules hold to what we measured (`docs/training.md` has the figures); between and beyond that
they are a guess, so a user may name either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["LEAST_BYTES", "ROOM_FOR_PIECES", "Choice", "choose", "size_of"]


class _Preset(NamedTuple):
    """A preset, and what it needs."""

    name: str
    least_bytes: int
    least_minutes: float
    """On a CPU."""
    least_gpu_minutes: float


BYTES_PER_ID: Final = 3_000
"""Text that an id of the vocabulary needs to be met often enough to be learned. Our demo has 3,150
bytes for each of 2,048 ids, our run on a real corpus 4,800 for each of 16,384."""

VOCABULARIES: Final = (16_384, 8_192, 4_096, 2_048)
"""From the largest to the smallest; the first that the text is enough for is taken. Minutes do not
matter: a step of `tiny` takes 12 % longer with 16,384 ids than with 2,048 (0.395 s and 0.354 s of
one thread of an AMD EPYC in bfloat16), and its tokens hold more text."""

SMALLEST_VOCABULARY: Final = 1_024
"""For text that is too little for any of them."""
LEAST_BYTES: Final = 100 * SMALLEST_VOCABULARY
"""Text below which there is no vocabulary to train: the unigram trainer needs up to 72 bytes an id
of English, 31 of Chinese (`text/sample.py`)."""

PRESETS: Final = (
    _Preset("small", 50_000_000, 300.0, 5.0),
    _Preset("tiny", 0, 0.0, 0.0),
)
"""From the largest to the smallest. On 78 MB and two cores `tiny` stood at 5.83 nats after three
minutes and `small` at 5.99 after fifteen (`benchmarks/results/time-to-loss-*.json`); a model of
five times the weights needs some passes over the text to be worth them, which are hours on a CPU
and minutes on a GPU."""

ROOM_FOR_PIECES: Final = 1.25
"""A vocabulary is this many times its single characters and special ids, or it has no words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What was chosen, and why."""

    vocab_size: int
    """Ids of the tokenizer."""
    preset: str
    """Name of the preset."""
    why_vocabulary: str
    """The reason, in one line."""
    why_preset: str
    """The reason, in one line."""


def choose(
    num_bytes: int, minutes: float, *, least_ids: int, on_gpu: bool,
    vocab_size: int | None = None, preset: str | None = None,
) -> Choice:  # fmt: skip
    """Choose a vocabulary and a preset.

    Args:
        num_bytes: text, in UTF-8.
        minutes: of training.
        least_ids: special tokens, bytes and the single characters of the text.
        on_gpu: whether a GPU computes.
        vocab_size: the user's own choice.
        preset: the user's own choice.
    """
    ids, why_ids = _vocabulary(num_bytes, least_ids)
    name, why_name = _preset(num_bytes, minutes, on_gpu=on_gpu)
    if vocab_size is not None:
        ids, why_ids = vocab_size, "as you said"
    if preset is not None:
        name, why_name = preset, "as you said"
    return Choice(vocab_size=ids, preset=name, why_vocabulary=why_ids, why_preset=why_name)


def _vocabulary(num_bytes: int, least_ids: int) -> tuple[int, str]:
    enough = [ids for ids in VOCABULARIES if num_bytes >= BYTES_PER_ID * ids]
    chosen = enough[0] if enough else SMALLEST_VOCABULARY
    why = f"{size_of(num_bytes)} of text, {size_of(BYTES_PER_ID)} or more for each"
    if not enough:
        why = f"{VOCABULARIES[-1]:,} take {size_of(BYTES_PER_ID * VOCABULARIES[-1])} of text"
    least = int(ROOM_FOR_PIECES * least_ids)
    if chosen < least:
        chosen = next((ids for ids in sorted(VOCABULARIES) if ids >= least), least)
        why = f"{least_ids:,} are single characters and bytes"
    return chosen, why


def _preset(num_bytes: int, minutes: float, *, on_gpu: bool) -> tuple[str, str]:
    largest, *_, smallest = PRESETS
    needed = largest.least_gpu_minutes if on_gpu else largest.least_minutes
    where = "a GPU" if on_gpu else "a CPU"
    if minutes < needed:
        return smallest.name, f"{largest.name} is for {needed:g} minutes or more on {where}"
    if num_bytes < largest.least_bytes:
        return (
            smallest.name,
            f"{largest.name} is for {size_of(largest.least_bytes)} of text or more",
        )
    return largest.name, f"{minutes:g} minutes on {where} and {size_of(num_bytes)} of text"


def size_of(num_bytes: int) -> str:
    """Write a number of bytes in words."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.3g} {unit}"
    return f"{num_bytes} bytes"
