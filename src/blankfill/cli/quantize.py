"""How `blankfill quantize` looks in a terminal."""

from __future__ import annotations

from blankfill.api.quantize import QuantizeResult
from blankfill.cli.console import Answer, new_table

__all__ = ["print_quantize"]


def print_quantize(result: QuantizeResult, console: Answer) -> None:
    """Print size, loss and speed, before and after."""
    table = new_table("", "before", "after", right=("before", "after"))
    before, after = result.num_bytes
    share = 100 * after / result.float_bytes
    table.add_row("file (bytes)", f"{before:,}", f"{after:,}")
    table.add_row("  of float32", f"{100 * before / result.float_bytes:.1f} %", f"{share:.1f} %")
    first, second = result.loss_nats
    table.add_row("loss (nats a token)", f"{first:.4f}", f"{second:.4f}")
    for speed in result.speeds:
        texts = "text" if speed.batch == 1 else "texts"
        table.add_row(
            f"tokens a second, {speed.batch} {texts}", f"{speed.before:.0f}", f"{speed.after:.0f}"
        )
    console.print_table(table, f"{result.run} -> {result.out}, {result.bits} bits a weight")
    console.print(
        f"loss {100 * result.loss_increase:+.2f} % (standard error "
        f"{100 * result.loss_increase_error:.2f} %) on {result.num_blanks:,} held-out blanks"
    )
