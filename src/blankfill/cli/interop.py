"""How an import looks in a terminal."""

from __future__ import annotations

from blankfill.api.interop import ImportResult
from blankfill.cli.console import Answer, new_table

__all__ = ["print_import"]

_SHOWN = ("num_layers", "hidden_size", "num_heads", "ffn_size", "vocab_size", "max_position",
          "block", "activation", "positions", "tie_head")  # fmt: skip


def print_import(result: ImportResult, console: Answer) -> None:
    """Print what was taken, what was ignored, and what is missing."""
    table = new_table("", "", show_header=False)
    for name, value in _facts(result).items():
        table.add_row(name, value)
    console.print_table(table, f"{result.out}: {result.layout}")
    for name, reason in result.ignored.items():
        console.print(f"ignored: {name} ({reason})")
    for sentence in result.missing:
        console.print(f"missing: {sentence}")
    for sentence in result.notes:
        console.print(f"note: {sentence}")


def _facts(result: ImportResult) -> dict[str, str]:
    dtypes = ", ".join(f"{count} {name}" for name, count in result.dtypes.items())
    facts = {
        "preset": result.preset or "none of these shapes",
        "model": ", ".join(f"{name} {result.model[name]}" for name in _SHOWN),
        "taken": f"{result.tensors} tensors ({dtypes}) of {result.ranks} rank"
        f"{'s' * (result.ranks != 1)} in {result.files} file{'s' * (result.files != 1)}",
        "parameters": f"{result.parameters:,}",
        "written": f"{result.num_bytes:,} bytes",
        "tokenizer": result.tokenizer or "none; name one with --tokenizer",
        "checksum": result.checksum,
    }
    if result.dequantised:
        facts["dequantised"] = f"{result.dequantised} matrices"
    if result.dropped_rows:
        facts["dropped"] = f"{result.dropped_rows:,} rows of image codes"
    if result.shared_ids:
        facts["shared ids"] = ", ".join(result.shared_ids)
    return facts
