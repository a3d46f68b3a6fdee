"""How an import looks in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blankfill.api.interop import ImportResult

__all__ = ["print_import"]

_SHOWN = ("num_layers", "hidden_size", "num_heads", "ffn_size", "vocab_size", "max_position",
          "block", "activation", "positions", "tie_head")  # fmt: skip


def print_import(result: ImportResult, console: Console) -> None:
    """Print what was taken, what was ignored, and what is missing."""
    table = Table(title=f"{result.out}: {result.layout}", title_justify="left", show_header=False)
    for name, value in _facts(result).items():
        table.add_row(Text(name), Text(value))
    console.print(table)
    for name, reason in result.ignored.items():
        console.print(f"ignored: {name} ({reason})", markup=False)
    for sentence in result.missing:
        console.print(f"missing: {sentence}", markup=False)
    for sentence in result.notes:
        console.print(f"note: {sentence}", markup=False)


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
