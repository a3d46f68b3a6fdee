"""How `blankfill export` and `blankfill resize` look in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from blankfill.api.export import ExportResult

__all__ = ["print_export"]


def print_export(result: ExportResult, console: Console) -> None:
    """Print what was written, then the proof."""
    parity = result.parity
    console.print(
        Text(f"{result.out}: step {result.step} of {result.run} for {result.to}, "
             f"{len(result.files)} files, {result.num_bytes:,} bytes")
    )  # fmt: skip
    console.print(Text(f"read back through {parity.through}:"))
    console.print(
        Text(f"  largest |difference of logits| on {parity.num_prompts} prompts  "
             f"{parity.max_logit_difference:.2e}  (tolerance {parity.tolerance:.1e}; "
             f"{parity.num_logits:,} logits)")
    )  # fmt: skip
    console.print(
        Text(f"  greedy tokens equal  {parity.num_greedy_tokens - parity.num_different_tokens:,} "
             f"of {parity.num_greedy_tokens:,}")
    )  # fmt: skip
