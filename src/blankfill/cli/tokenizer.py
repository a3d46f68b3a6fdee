"""How tokenizers look in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blankfill.cli.console import Answer, new_table
from blankfill.cli.data import log_skipped, print_reading

if TYPE_CHECKING:
    from blankfill.api.tokenizer import DecodeResult, EncodeResult, TokenizerInfo
    from blankfill.text.train_tokenizer import TokenizerReport

__all__ = ["print_decode", "print_encode", "print_info", "print_train"]


def print_train(result: TokenizerReport, console: Answer) -> None:
    """Print what the tokenizer was trained on."""
    log_skipped(result.num_skipped, result.first_skipped)
    print_reading(result.reading, console)
    console.print(
        f"{result.path}: {result.vocab_size:,} ids, {result.seconds:.0f} s, "
        f"fingerprint {result.fingerprint[:12]}",
    )
    table = new_table("language", right=("documents", "bytes read", "bytes trained on"))
    for language, documents in result.num_documents.items():
        table.add_row(
            language, f"{documents:,}", f"{result.num_bytes.get(language, 0):,}",
            f"{result.sampled_bytes.get(language, 0):,}",
        )  # fmt: skip
    console.print(table)


def print_encode(result: EncodeResult, console: Answer) -> None:
    """Print the pieces, then their ids."""
    console.print(" | ".join(result.tokens))
    console.print(" ".join(map(str, result.ids)))


def print_decode(result: DecodeResult, console: Answer) -> None:
    """Print the text."""
    console.print_text(result.text)


def print_info(result: TokenizerInfo, console: Answer) -> None:
    """Print sizes, special tokens, pieces by script, and rates where files were named."""
    console.print(f"{result.path}: {result.vocab_size:,} ids, "
                  f"fingerprint {result.fingerprint[:12]}")  # fmt: skip
    specials = ", ".join(f"{role} {index}" for role, index in result.special.items())
    console.print(f"special tokens: {specials}")
    pieces = ", ".join(f"{script} {count:,}" for script, count in result.pieces.items())
    console.print(f"pieces: {pieces}")
    if result.reading is None:
        return
    print_reading(result.reading, console)
    names = ("documents", "tokens", "chars / token", "bytes / token", "in bytes", "exact")
    table = new_table("language", right=names)
    for language, rate in result.languages.items():
        table.add_row(
            language, f"{rate.documents:,}", f"{rate.tokens:,}",
            f"{rate.characters_per_token:.3f}", f"{rate.bytes_per_token:.3f}",
            f"{rate.byte_tokens / max(1, rate.tokens):.2%}", f"{rate.exact / rate.documents:.2%}",
        )  # fmt: skip
    console.print(table)
