import pytest

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
