"""What the pages point to is there, and both languages say the same."""

import re
import subprocess
from pathlib import Path

import pytest

from blankfill.objective.render import is_picture
from script_files import load_script

ROOT = Path(__file__).parents[1]
OF_THE_CODE = {"CONTRIBUTING.md", "docs/design.md"}
"""Pages for those who change the code, which is English."""


def in_git():
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("this is no checkout of git", allow_module_level=True)
    return set(done.stdout.strip("\0").split("\0"))


FILES = in_git()
PAGES = sorted(name for name in FILES if name.endswith(".md"))
TRANSLATED = [page for page in PAGES if not page.endswith(".zh.md") and page not in OF_THE_CODE]


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_blocks(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(page):
    return re.findall(r"^(#+) ", without_blocks(read(page)), re.MULTILINE)


def commands(page):
    blocks = re.findall(r"^```\w*\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)
    lines = (line.split(" #")[0].strip() for block in blocks for line in block.splitlines())
    known = r"(?:\w+=\S+ )*(?:\.venv/bin/)?(?:blankfill|make|pip|python\S*|scripts/\S+|git|cd) "
    return [line for line in lines if re.match(known, line + " ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_of_a_page_is_in_git(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", without_blocks(read(page)))
    targets += re.findall(r"(?:src|href)=\"([^\"]+)\"", read(page))
    here = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
    paths = {(ROOT / page).parent.joinpath(target.split("#")[0]).resolve() for target in here}
    names = {path.relative_to(ROOT.resolve()).as_posix() for path in paths}
    folders = {parent.as_posix() for name in FILES for parent in Path(name).parents}
    assert sorted(names - FILES - folders) == []


@pytest.mark.parametrize("page", TRANSLATED)
def test_a_page_and_its_chinese_twin_have_the_same_headings_and_commands(page):
    twin = page.removesuffix(".md") + ".zh.md"
    assert twin in FILES
    assert headings(page) == headings(twin)
    assert commands(page) == commands(twin)


def test_commands_and_headings_are_found_at_all():
    assert all(headings(page) for page in TRANSLATED)
    assert len(commands("README.md")) >= 5


def test_no_chinese_page_stands_alone():
    alone = [p for p in PAGES if p.endswith(".zh.md") and p.replace(".zh.md", ".md") not in FILES]
    assert alone == []


ANOTHER_WORD = {
    "您": "你", "评估": "评测", "数据库": "词元库", "词汇表": "词表", "令牌": "词元",
    "奈特": "nats", "快照": "检查点", "纪元": "遍", "回合": "遍", "掩盖词": "空白",
}  # fmt: skip
"""What a Chinese page may not say, and the one word that all of them have for it."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith(".zh.md")])
def test_the_chinese_pages_have_one_word_for_one_thing(page):
    said = {f"{word}: {ours}" for word, ours in ANOTHER_WORD.items() if word in read(page)}
    assert not said


def test_the_script_draws_the_pictures_that_the_page_shows(tmp_path, monkeypatch):
    script = load_script("draw-docs")
    monkeypatch.setattr(script, "PICTURES", tmp_path)
    script.main()
    drawn = {f"pictures/{path.name}" for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"pictures/[\w-]+\.png", read("docs/objective.md")))
    # What is in git is as this draws it, mark included, so it may be drawn again.
    assert all(is_picture(path) for path in tmp_path.iterdir())
    assert all(is_picture(ROOT / "docs" / name) for name in drawn)
