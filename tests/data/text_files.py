"""Texts as files, and the texts of a store."""

import json
from pathlib import Path

from blankfill.data.store import TokenStore
from blankfill.text.tokenizer import Tokenizer


def write_lines(path: Path, texts: list[str]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def texts_of(folder: Path) -> list[str]:
    """Give the documents of a store, by its own tokenizer."""
    store = TokenStore.open(folder, verify=True)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    return [tokenizer.decode(store.document(i)) for i in range(len(store))]
