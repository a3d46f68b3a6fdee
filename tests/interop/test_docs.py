"""docs/checkpoints.md says what is there, in both languages."""

import inspect
import re
from pathlib import Path

import pytest

from blankfill.api import import_
from blankfill.interop.layouts import LAYOUTS

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ("checkpoints.md", "checkpoints.zh.md")


@pytest.mark.parametrize("name", NAMES)
def test_the_table_names_every_layout_and_every_option(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z][a-z0-9-]+)` \|", text, re.M)) == set(LAYOUTS)
    options = [p.replace("_", "-") for p in inspect.signature(import_).parameters if p != "path"]
    assert [option for option in options if f"--{option}" not in text] == []


def test_both_languages_show_the_same_commands_and_numbers():
    texts = [(DOCS / name).read_text(encoding="utf-8") for name in NAMES]
    commands = [re.findall(r"^(?:blankfill|pip) .*", text, re.M) for text in texts]
    assert commands[0] == commands[1]
    numbers = [sorted(re.findall(r"\d[\d,.]*\d", text)) for text in texts]
    assert numbers[0] == numbers[1]
