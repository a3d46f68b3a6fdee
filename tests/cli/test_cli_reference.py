"""docs/cli.md and its twin are what the commands print."""

from pathlib import Path

import pytest

from blankfill.config.run import RunConfig, to_dict
from script_files import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages():
    return load_script("write-cli-reference").pages()


@pytest.mark.parametrize("page", ["cli.md", "cli.zh.md"])
def test_the_reference_is_what_the_commands_print(page, pages):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    found = {}
    for section in sections:
        title, _, rest = section.partition("\n")
        found[title] = rest.strip().removeprefix("```text\n").removesuffix("```")
    assert found == pages, "run scripts/write-cli-reference"


def test_every_field_of_a_run_is_told_on_the_page_of_pretrain(pages):
    parts = to_dict(RunConfig()).items()
    fields = [f"--{part}.{name}".replace("_", "-") for part, inner in parts for name in inner]
    assert len(fields) > 60
    assert [field for field in fields if field not in pages["blankfill pretrain"]] == []
