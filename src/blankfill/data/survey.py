"""What a text is, found by reading it once: how much there is, and what tells it from any other.

A command that reads a text in several steps, and goes on later where it was stopped, has to know
that it is still the same text. Its fingerprint is the SHA-256 of its documents' own, in their
order, so a text that was compressed or moved stays the same. Reading all of it takes a while; where
names, sizes and times of the files are as they were, so is the text.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blankfill.data.duplicates import DUPLICATE, SeenDocuments, identity_of
from blankfill.data.hold_out import fraction_of
from blankfill.errors import DataError
from blankfill.progress import bar
from blankfill.text.corpus import no_documents, read_documents
from blankfill.text.files import find_files
from blankfill.text.language import LANGUAGES
from blankfill.text.options import TextOptions
from blankfill.text.records import Skipped, Skips, shown

__all__ = ["TextSurvey", "stamp_of_files", "survey_text"]

COUNTED_CHARACTERS = 10_000_000
"""Characters that are counted one by one; more of them would tell the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSurvey:
    """A text, as it was read."""

    documents: dict[str, int]
    """Documents of each language."""
    bytes: dict[str, int]
    """Their bytes in UTF-8."""
    held_out: dict[str, int]
    """Documents of each language that the share holds out."""
    held_out_bytes: int
    """Bytes of those."""
    lowest_fraction: float
    """The least fraction of a document (`hold_out.py`)."""
    lowest_bytes: int
    """Bytes of that document."""
    highest_fraction: float
    """The largest."""
    characters: dict[str, int]
    """How often each character was seen, the most frequent first; without white space."""
    skipped: dict[str, int]
    """What could not be used, by reason."""
    first_skipped: tuple[str, ...]
    """The first cases."""
    stamp: str
    """Digest of the names, sizes and times of the files."""
    fingerprint: str
    """Digest of the documents."""
    duplicates: int
    """Documents that were there before, word for word."""

    @property
    def num_documents(self) -> int:
        """All documents."""
        return sum(self.documents.values())

    @property
    def num_bytes(self) -> int:
        """All bytes."""
        return sum(self.bytes.values())

    def alphabet(self, coverage: float) -> int:
        """Count the characters that make up this share of the text."""
        total, seen = sum(self.characters.values()), 0
        for number, count in enumerate(self.characters.values()):
            if seen >= coverage * total:
                return number
            seen += count
        return len(self.characters)


def survey_text(
    files: Sequence[str | Path],
    options: TextOptions,
    *,
    hold_out: float,
    drop_duplicates: bool = False,
) -> TextSurvey:
    """Read a text once.

    Args:
        files: files and folders; not stdin, which can be read one time only.
        options: how the files are read.
        hold_out: share of the documents that is to be held out.
        drop_duplicates: leave out documents that were there before, word for word; else they are
            only counted.

    Raises:
        DataError: there is no text, or it can be read one time only.
    """
    stamp = stamp_of_files(files)
    skips, digest, characters = Skips(), hashlib.sha256(), Counter[str]()
    documents, sizes, held_out = ([0] * len(LANGUAGES) for _ in range(3))
    held_out_bytes = lowest_bytes = counted = duplicates = 0
    seen = SeenDocuments()
    lowest, highest = 1.0, 0.0
    with bar("reading text", unit="documents") as meter:
        for document in read_documents(files, options, report=skips):
            (is_repeated,) = seen.add([identity_of(document.text, None)])
            duplicates += is_repeated
            if is_repeated and drop_duplicates:
                skips.leave_out(Skipped(document.where, 0, DUPLICATE, document.kind))
                continue
            documents[document.language] += 1
            sizes[document.language] += document.num_bytes
            digest.update(hashlib.sha256(document.text.encode()).digest())
            fraction = fraction_of(document.text)
            if fraction < lowest:
                lowest, lowest_bytes = fraction, document.num_bytes
            highest = max(highest, fraction)
            if fraction < hold_out:
                held_out[document.language] += 1
                held_out_bytes += document.num_bytes
            if counted < COUNTED_CHARACTERS:
                characters.update(document.text)
                counted += len(document.text)
            meter.advance()
    if not sum(documents):
        raise no_documents(files, skips)
    return TextSurvey(
        documents=_named(documents), bytes=_named(sizes), held_out=_named(held_out),
        held_out_bytes=held_out_bytes, lowest_fraction=lowest,
        lowest_bytes=lowest_bytes,
        highest_fraction=highest,
        characters={c: n for c, n in characters.most_common() if not c.isspace()},
        skipped=dict(skips.counts), first_skipped=tuple(map(str, skips.first)), stamp=stamp,
        fingerprint=digest.hexdigest(), duplicates=duplicates,
    )  # fmt: skip


def stamp_of_files(files: Sequence[str | Path]) -> str:
    """Digest the names, sizes and times of the files of a text, without reading them.

    Raises:
        DataError: one of them is missing, is stdin, or is a pipe, which can be read one time only.
    """
    digest = hashlib.sha256()
    for source in find_files(files, Skips()):
        if source.path == "-":
            raise DataError("stdin can be read one time only, and this reads the text several "
                            "times; write it into a file and name that")  # fmt: skip
        try:
            found = os.stat(source.path)
        except OSError as error:
            raise DataError(f"{shown(source.path)}: cannot be read ({error.strerror})") from error
        if not os.path.isfile(source.path):
            raise DataError(f"{shown(source.path)} is a pipe or a device, which can be read one "
                            "time only; write what it gives into a file")  # fmt: skip
        entry = (os.path.realpath(source.path), found.st_size, found.st_mtime_ns)
        digest.update(repr(entry).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _named(numbers: Sequence[int]) -> dict[str, int]:
    return {name: numbers[code] for code, name in enumerate(LANGUAGES) if numbers[code]}
