import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blankfill.text.language import LANGUAGES, language_code


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The quick brown fox jumps over the lazy dog.", "en"),
        ("敏捷的棕色狐狸跳过了懒狗。", "zh"),
        ("在配置完PXE菜单配置文件后，根据采用的方法清除源文件。", "zh"),
        ("Beijing (北京) is the capital of the country.", "en"),
        ("吾輩は猫である。名前はまだ無い。", "other"),
        ("Съешь ещё этих мягких французских булок.", "other"),
        ("12345 ... !?", "other"),
        ("", "other"),
        ("臺灣的經濟發展", "zh"),
    ],
)
def test_the_script_tells_the_language(text, language):
    assert LANGUAGES[language_code(text)] == language


def by_patterns(text):
    """The rule once more, as patterns that are counted one by one."""
    han, kana, latin, letters = (
        len(re.findall(pattern, text[:8192]))
        for pattern in ("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]",
                        "[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f]", "[A-Za-z\u00c0-\u024f]",
                        r"[^\W\d_]")
    )  # fmt: skip
    other = letters - han - kana - latin
    if kana > 0.3 * (han + kana):
        other, han = other + han + kana, 0
    if han and 3 * han >= max(latin, other):
        return 2
    return 1 if latin and latin >= other else 0


SCRIPTS = st.sampled_from(
    "aZ\u00e9\u4eba\uf900\U00020001\u304b\u30f6\uff71\u044f\u0e01\ud55c1_ \u3005\u00bd"
)


@given(st.text(SCRIPTS | st.characters(), max_size=60))
def test_characters_are_counted_as_the_patterns_say(text):
    assert language_code(text) == by_patterns(text)


def test_every_character_has_the_kind_that_the_patterns_give_it():
    everything = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(everything), 1009):
        text = "".join(everything[start : start + 1009])
        assert language_code(text) == by_patterns(text)
