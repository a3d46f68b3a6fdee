"""How `blankfill export` and `blankfill resize` look in a terminal."""

from __future__ import annotations

from blankfill.api.export import ExportResult, ResizeResult
from blankfill.cli.console import Answer, new_table

__all__ = ["print_export", "print_resize"]


def print_export(result: ExportResult, console: Answer) -> None:
    """Print what was written, then the proof."""
    parity = result.parity
    console.print(
        f"{result.out}: step {result.step} of {result.run} for {result.to}, "
             f"{len(result.files)} files, {result.num_bytes:,} bytes"
    )  # fmt: skip
    if not result.has_tokenizer:
        console.print("weights only: the vocabulary is not among them")
    console.print(f"read back through {parity.through}:")
    console.print(
        f"  largest |difference of logits| on {parity.num_prompts} prompts  "
             f"{parity.max_logit_difference:.2e}  (tolerance {parity.tolerance:.1e}; "
             f"{parity.num_logits:,} logits)"
    )  # fmt: skip
    console.print(
        f"  greedy tokens equal  {parity.num_greedy_tokens - parity.num_different_tokens:,} "
             f"of {parity.num_greedy_tokens:,}"
    )  # fmt: skip
    if parity.num_ties:
        console.print(
            f"  compared up to a tie of the two best tokens, which rounding decides, in "
            f"{parity.num_ties} rows"
        )
    for note in result.notes:
        console.print(f"note: {note}")
    if result.notes:
        apart = result.released_logit_difference
        console.print(f"      so its logits are up to {apart:.2g} from the run's")


def print_resize(result: ResizeResult, console: Answer) -> None:
    """Print where the rows of the new vocabulary come from."""
    table = new_table("", "", show_header=False)
    for name, value in (
        ("ids", "{:,} -> {:,}".format(*result.num_tokens)),
        ("rows of the embedding", "{:,} -> {:,}".format(*result.num_rows)),
        ("parameters", "{:,} -> {:,}".format(*result.num_parameters)),
        ("pieces kept", f"{result.num_kept:,}"),
        ("new, from the mean of their pieces", f"{result.num_mean:,}"),
        ("new, from --embeddings", f"{result.num_from_file:,}"),
        ("dropped", f"{result.num_dropped:,}"),
    ):
        table.add_row(name, value)
    console.print_table(table, f"{result.run} -> {result.out}")
    console.print(
        f"Train it on with: blankfill pretrain PRESET --data STORE --init {result.out} "
             f"--out RUN, on a store built with --tokenizer {result.out}/tokenizer"
    )  # fmt: skip
