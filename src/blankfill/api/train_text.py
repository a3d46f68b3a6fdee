"""What `blankfill train` reads: how much text, in which languages, and what is held out of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blankfill.api.train_folder import Asked, TextEntry, TrainRecord
from blankfill.config.choice import LEAST_BYTES, size_of
from blankfill.errors import DataError

if TYPE_CHECKING:
    from blankfill.data.survey import TextSurvey

__all__ = ["read_text"]

log = logging.getLogger(__name__)

SHOWN_CASES: Final = 5
"""Things that could not be used, of which file and line are shown."""
MOST_RAISED: Final = 0.1
"""Most of the text that one document may be, to be held out where the share asked for holds out
none."""
TOLD_OF: Final = 0.1
"""Share of the text from which on a language without a held-out document is told of."""
_NAMES: Final = {"en": "English", "zh": "Chinese", "other": "other languages"}


def read_text(files: Sequence[str | Path], asked: Asked, known: TrainRecord | None) -> TextEntry:
    """Read a text and say what it is.

    Args:
        files: files and folders.
        asked: by the user.
        known: what an earlier call has found; where the files are as they were, it is taken.

    Raises:
        DataError: there is no text, too little, or none of it can be held out.
    """
    from blankfill.data.survey import stamp_of_files

    log.info("== text")
    same = known is not None and _how(known.asked) == _how(asked)
    if known is not None and same and stamp_of_files(files) == known.text.stamp:
        text = known.text
        log.info("   as it was read before")
    else:
        text = _survey(files, asked)
    for language, count in text.documents.items():
        log.info("   %s: %s documents, %s", _NAMES.get(language, language), f"{count:,}",
                 size_of(text.bytes[language]))  # fmt: skip
    log.info("   held out, by the hash of each: %s documents, %s", f"{text.held_out:,}",
             size_of(text.held_out_bytes))  # fmt: skip
    for reason, count in text.skipped.items():
        log.warning("   left out: %s x %s", f"{count:,}", reason)
    for case in text.first_skipped[:SHOWN_CASES]:
        log.warning("     %s", case)
    if text.duplicates and not asked.drop_duplicates:
        log.info("   exact duplicates: %s documents were there before, word for word, and are "
                 "kept; --drop-duplicates leaves them out", f"{text.duplicates:,}")  # fmt: skip
    return text


def _survey(files: Sequence[str | Path], asked: Asked) -> TextEntry:
    from blankfill.data.hold_out import one_sided
    from blankfill.data.survey import survey_text
    from blankfill.text.options import TextOptions
    from blankfill.text.trainer import usual_coverage

    options = TextOptions(
        text_field=asked.text_field, encoding=asked.encoding, documents=asked.documents,
        squeeze_whitespace=asked.squeeze_whitespace,
    )  # fmt: skip
    found = survey_text(
        files, options, hold_out=asked.hold_out, drop_duplicates=asked.drop_duplicates
    )
    if found.num_bytes < LEAST_BYTES:
        raise DataError(
            f"{size_of(found.num_bytes)} of text is too little to train on: it takes "
            f"{size_of(LEAST_BYTES)} for the smallest vocabulary, and some megabytes for a model "
            "of use"
        )
    share, held_out, held_out_bytes = (
        asked.hold_out, sum(found.held_out.values()), found.held_out_bytes
    )  # fmt: skip
    if not held_out and found.lowest_bytes <= MOST_RAISED * found.num_bytes:
        share = math.nextafter(found.lowest_fraction, 1.0)
        held_out, held_out_bytes = 1, found.lowest_bytes
        log.info("   --hold-out %.4g%% of the documents would be none: it is %.2g%%",
                 100 * asked.hold_out, 100 * share)  # fmt: skip
    problem, cure = one_sided(
        found.num_documents, share, found.lowest_fraction, found.highest_fraction
    )
    if problem:
        more = "make more documents of it, such as --documents paragraph makes of a text file"
        raise DataError(f"{problem}; {cure or more}")
    _warn_of_one_language(found, share)
    return TextEntry(
        documents=found.documents, bytes=found.bytes, share=share, held_out=held_out,
        held_out_bytes=held_out_bytes, alphabet=found.alphabet(usual_coverage(0)),
        skipped=found.skipped, first_skipped=found.first_skipped, stamp=found.stamp,
        fingerprint=found.fingerprint, duplicates=found.duplicates,
    )  # fmt: skip


def _warn_of_one_language(found: TextSurvey, share: float) -> None:
    """Say which language has no held-out document, so that nothing will be known of it."""
    missing = [name for name in found.documents if name not in found.held_out
               and found.bytes[name] >= TOLD_OF * found.num_bytes]  # fmt: skip
    languages = " and ".join(_NAMES[name] for name in missing)
    if languages and found.held_out:
        log.warning("   nothing of %s is among the %.2g%% held out, so the evaluation says nothing "
                    "of it: a larger --hold-out, or more and shorter documents, such as "
                    "--documents paragraph makes, change that", languages, 100 * share)  # fmt: skip


def _how(asked: Asked) -> tuple[object, ...]:
    """Give what decides how files are read and what is held out of them."""
    return (asked.text_field, asked.encoding, asked.documents, asked.hold_out,
            asked.squeeze_whitespace, asked.drop_duplicates)  # fmt: skip
