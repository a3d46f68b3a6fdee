"""How token stores look in a terminal."""

from __future__ import annotations

import logging

from blankfill.api.data import BuildResult, ShowResult, StoreInfo
from blankfill.cli.console import Answer, new_table

__all__ = ["log_skipped", "print_build", "print_info", "print_show"]

log = logging.getLogger(__name__)

SHOWN_CASES = 5


def print_build(result: BuildResult, console: Answer) -> None:
    """Print what the store holds; what was skipped goes to the log."""
    log_skipped(result.num_skipped, result.skipped, result.first_skipped)
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


def print_info(store: StoreInfo, console: Answer) -> None:
    """Print the counts of a store."""
    console.print(f"{store.path}: token store, {store.dtype}, tokenizer of {store.vocab_size:,} "
                  f"ids, fingerprint {store.fingerprint[:12]}")  # fmt: skip
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


def log_skipped(total: int, counts: dict[str, int], first: list[str]) -> None:
    """Say on stderr what could not be used, and name the first cases."""
    if not total:
        return
    reasons = ", ".join(f"{count} x {reason}" for reason, count in counts.items())
    log.warning("skipped %d: %s", total, reasons)
    for case in first[:SHOWN_CASES]:
        log.warning("  %s", case)
    if total > SHOWN_CASES:
        log.warning("  ... (--json lists more; --strict makes the first an error)")
