"""Pictures bear the characters of tokens, or say which they cannot show."""

import logging
import warnings

import pytest

from blankfill.api.explain import explain
from blankfill.objective import fonts

CHINESE = "\u5c0f\u732b\u5750\u5728\u7a97\u8fb9\u770b\u96e8\u3002 costs $5 or $6"


def test_a_picture_of_chinese_warns_of_no_glyph(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(CHINESE, picture=tmp_path / "zh.png")
    assert (tmp_path / "zh.png").stat().st_size > 5000


def test_without_a_font_one_sentence_says_what_to_install(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_candidates", lambda: iter(()))
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        explain(CHINESE, picture=tmp_path / "zh.png")
    (record,) = caplog.records
    assert "fonts-noto-cjk" in record.getMessage()
    assert (tmp_path / "zh.png").stat().st_size > 5000


def test_a_font_of_the_disk_is_taken_where_it_has_the_characters():
    found = [path for _, path in fonts._candidates()]
    if not any(not fonts._lacking(path, {"\u5c0f"}) for path in found):
        pytest.skip("no font with Chinese is installed")
    families = fonts.fonts_for([CHINESE])["font.family"]
    assert len(families) > 1


def test_latin_text_needs_no_other_font():
    assert fonts.fonts_for(["The quick", "brown fox"]) == {}
