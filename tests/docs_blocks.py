"""What the blocks of a page hold: commands and Python, as a reader would type them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(path: Path, kind: str = "") -> list[str]:
    """Give the blocks of a kind, such as `python`; those without a kind are of a shell."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == kind]


def commands(path: Path) -> list[str]:
    """Give the lines of shell blocks that call blankfill, in order."""
    lines = (line for block in blocks(path) for line in block.splitlines())
    return [line for line in lines if line.startswith("blankfill ")]
