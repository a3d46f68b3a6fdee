"""How token stores look in a terminal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from blankfill.api.data import BuildResult, ShowResult, StoreInfo
from blankfill.api.data_export import DataExportResult
from blankfill.cli.console import Answer, new_table

if TYPE_CHECKING:
    from blankfill.text.records import ReadingReport

__all__ = [
    "log_skipped",
    "print_build",
    "print_export",
    "print_info",
    "print_reading",
    "print_show",
]

log = logging.getLogger(__name__)

SHOWN_CASES = 5


def print_build(result: BuildResult, console: Answer) -> None:
    """Print what the store holds; what was skipped goes to the log."""
    log_skipped(result.num_skipped, result.first_skipped)
    print_reading(result.reading, console)
    print_info(result.store, console)
    if held := result.held_out:
        print_info(held, console)
        documents = held.documents + result.store.documents
        tokens = held.tokens + result.store.tokens
        console.print(
            f"held out: {held.documents:,} of {documents:,} documents "
            f"({100 * held.documents / documents:.2f} %), {100 * held.tokens / tokens:.2f} % of "
            f"the tokens; train on {result.store.path}, evaluate on {held.path}"
        )


def print_export(result: DataExportResult, console: Answer) -> None:
    """Print what to name in Megatron."""
    held = f"{result.documents:,} documents, {result.tokens:,} tokens"
    if len(result.prefixes) == 1:
        console.print(f"{result.prefix}.idx: {held}; in Megatron: --data-path {result.prefix}")
    else:
        console.print(f"{result.prefix}.idx to {result.prefixes[-1]}.idx: {held} in "
                      f"{len(result.prefixes):,} datasets; in Megatron, name each of them in "
                      "--data-path")  # fmt: skip
    if result.end_token is not None:
        console.print("documents there end with their last token; the tokenizer's end of a "
                      f"document is the id {result.end_token}")  # fmt: skip


def print_info(store: StoreInfo, console: Answer) -> None:
    """Print the counts of a store."""
    shards = f"{store.shards:,} shards, " if store.shards else ""
    console.print(f"{store.path}: token store, {shards}{store.dtype}, tokenizer of "
                  f"{store.vocab_size:,} ids, fingerprint {store.fingerprint[:12]}")  # fmt: skip
    table = new_table(
        "language", right=("documents", "tokens", "characters", "bytes", "chars / token")
    )
    for name, counts in store.languages.items():
        table.add_row(
            name, f"{counts.documents:,}", f"{counts.tokens:,}", f"{counts.characters:,}",
            f"{counts.bytes:,}", f"{counts.characters / max(1, counts.tokens):.3f}",
        )  # fmt: skip
    table.add_row("all", f"{store.documents:,}", f"{store.tokens:,}", "", "", "")
    console.print(table)
    if store.pairs:
        console.print(f"{store.pairs:,} of the documents are a text and its answer")


def print_show(result: ShowResult, console: Answer) -> None:
    """Print documents as text."""
    for document in result.documents:
        console.print_rule(
            f"document {document.index}, {document.language}, {document.num_tokens:,} tokens"
        )
        console.print_text(document.text)
        if document.answer is not None:
            console.print_rule("its answer", "-")
            console.print_text(document.answer)


def print_reading(reading: ReadingReport, console: Answer) -> None:
    """Print what was read, what was kept, and what was dropped and why, for each kind of file."""
    numbers = ("files", "read", "kept", "dropped")
    table = new_table("kind of file", *numbers, "why", right=numbers)
    for kind, count in reading.kinds.items():
        dropped = sum(count.dropped.values())
        table.add_row(
            kind, f"{count.files:,}", f"{count.kept + dropped:,}", f"{count.kept:,}",
            f"{dropped:,}", _reasons(count.dropped),
        )  # fmt: skip
    if reading.unread:
        files = f"{sum(reading.unread.values()):,}"
        table.add_row("not read, or not to the end", files, "", "", "", _reasons(reading.unread))
    console.print(table)
    if reading.encodings:
        others = ", ".join(f"{count:,} in {name}" for name, count in reading.encodings.items())
        console.print(f"files in another encoding than UTF-8: {others}")
    left_out = sum(count.dropped.get("an exact duplicate", 0) for count in reading.kinds.values())
    if reading.duplicates and not left_out:
        console.print(f"exact duplicates: {reading.duplicates:,} documents were there before, word "
                      "for word, and are kept; --drop-duplicates leaves them out")  # fmt: skip


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} x {reason}" for reason, count in counts.items())


def log_skipped(total: int, first: list[str]) -> None:
    """Name on stderr the first cases of what could not be used."""
    if not total:
        return
    log.warning("skipped %d, the first of them:", total)
    for case in first[:SHOWN_CASES]:
        log.warning("  %s", case)
    if total > SHOWN_CASES:
        log.warning("  ... (--json lists more; --strict makes the first an error)")
