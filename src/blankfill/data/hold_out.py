"""Which documents are held out of training: the hash of each document's text decides.

A document's fraction is the first 53 bits of the SHA-256 of its text in UTF-8, as a number from 0
to 1; it is held out where that lies below the share asked for. So a document stands on the same
side whatever its place, file or neighbours are; equal documents are never on both sides; and a
larger share holds out all that a smaller one does. Of a pair the text alone counts, so that a
question is not trained on with one answer and evaluated with another.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

from blankfill.data.manifest import Origin, StoreManifest
from blankfill.data.store_writer import StoreWriter
from blankfill.errors import DataError

__all__ = ["SplitWriter", "fraction_of", "held_out_path", "one_sided"]

_BITS = 53
"""Bits of the hash: as many as a Python float holds exactly."""
MOST_TRIED = 0.5
"""The largest share that a message proposes."""


def fraction_of(text: str) -> float:
    """Give the number in [0, 1) that a text's hash stands for; below the share it is held out."""
    digest = hashlib.sha256(text.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / (1 << _BITS)


def one_sided(count: int, share: float, lowest: float, highest: float) -> tuple[str, str]:
    """Say why a share leaves one side without a document.

    Args:
        count: documents.
        share: what is held out.
        lowest: the least fraction of a document.
        highest: the largest.

    Returns:
        The problem, and what would help; "" where both sides have a document, or nothing helps.
    """
    if lowest < share <= highest:
        return "", ""
    if count == 1:
        return (
            "there is one document, and it cannot be both trained on and held out",
            "make more of a plain text with --documents paragraph",
        )
    held = "all" if lowest < share else "none"
    problem = (
        f"--hold-out {100 * share:.4g}% holds out {held} of the {count:,} documents, by the hash "
        "of their texts"
    )
    if held == "all":
        return problem, "take a smaller share"
    if lowest >= MOST_TRIED:
        return f"{problem}: they are too few", ""
    more = f"{100 * lowest + 0.1:.1f}%"
    return f"{problem}, and {more} would hold out one", f"try --hold-out {more}"


def held_out_path(out: Path) -> Path:
    """Name the held-out store that belongs to a training store."""
    return out.with_name(f"{out.name}-held-out")


class SplitWriter:
    """Writes a training store and, where a share is held out, a second store for that.

    Both names are taken and checked before the first document, and both stores are complete before
    the first of them appears; the training store appears last.

    Args:
        out: the training store's folder; the other's is `held_out_path(out)`.
        share: the share of documents that is held out, from 0 (none) to below 1.
        vocab_size: ids of the tokenizer.
        tokenizer_fingerprint: of the tokenizer.
        tokenizer: its folder.
        overwrite: replace stores that stand in these places.
        shard_tokens: of both; see `StoreWriter`.

    Raises:
        OutputError: one of the two is taken, another process writes it, or it cannot be written.
    """

    def __init__(
        self, out: Path, share: float, *, vocab_size: int, tokenizer_fingerprint: str,
        tokenizer: Path, overwrite: bool, shard_tokens: int = 0,
    ) -> None:  # fmt: skip
        self._share = share
        self._lowest, self._highest = 1.0, 0.0

        def new(path: Path) -> StoreWriter:
            return StoreWriter(
                path, vocab_size=vocab_size, tokenizer_fingerprint=tokenizer_fingerprint,
                tokenizer=tokenizer, overwrite=overwrite, shard_tokens=shard_tokens,
            )  # fmt: skip

        with ExitStack() as stack:
            self.training = stack.enter_context(new(out))
            """Takes what is trained on."""
            self.held_out: StoreWriter | None = None
            """Takes what is held out; None where nothing is."""
            if share:
                self.held_out = stack.enter_context(new(held_out_path(out)))
            self._stack = stack.pop_all()

    def side(self, fraction: float) -> StoreWriter:
        """Choose the store of a document by its fraction."""
        self._lowest = min(self._lowest, fraction)
        self._highest = max(self._highest, fraction)
        if self.held_out is not None and fraction < self._share:
            return self.held_out
        return self.training

    @property
    def num_documents(self) -> int:
        """Documents of both stores."""
        return sum(int(writer.counts[:, 0].sum()) for writer in self._writers())

    @property
    def num_tokens(self) -> int:
        """Tokens of both stores."""
        return sum(int(writer.counts[:, 1].sum()) for writer in self._writers())

    def finish(self, origin: Origin) -> tuple[StoreManifest, StoreManifest | None]:
        """Complete both stores and put them in their places.

        Args:
            origin: what both manifests say about the text.

        Returns:
            The manifests of the training store and of the held-out one.

        Raises:
            DataError: all documents fell on one side; nothing is written.
            OutputError: the disk is full, or a place was taken meanwhile.
        """
        if self.held_out is None:
            return self.training.finish(origin), None
        self._require_both()
        training, held_out = StoreWriter.finish_together(
            (self.training, {**origin, "hold_out": {"share": self._share, "side": "training"}}),
            (self.held_out, {**origin, "hold_out": {"share": self._share, "side": "held-out"}}),
        )
        return training, held_out

    def _require_both(self) -> None:
        problem, cure = one_sided(self.num_documents, self._share, self._lowest, self._highest)
        if problem:
            raise DataError(f"{problem}; {cure + ', or ' if cure else ''}leave out --hold-out")

    def _writers(self) -> list[StoreWriter]:
        return [self.training] + ([self.held_out] if self.held_out is not None else [])

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
