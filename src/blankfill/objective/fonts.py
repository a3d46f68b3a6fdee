"""Fonts for pictures with tokens: find one that has their characters, or warn that none has.

matplotlib draws an empty box, and warns, for each character that its font lacks; its own font has
no Chinese. It caches its list of fonts at first use, so a font that was installed later is looked
for on the disk.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path

__all__ = ["fonts_for", "without_glyph_warnings"]

log = logging.getLogger(__name__)

_DEFAULT = "DejaVu Sans"
_WIDE = re.compile(
    r"cjk|sourcehan|wenquanyi|wqy|pingfang|heiti|simhei|simsun|msyh|yahei|droidsansfallback|uming|"
    r"ukai|arialunicode|ipa|takao|unifont",
    re.IGNORECASE,
)
"""Names of fonts that are known to have Chinese characters."""


def fonts_for(texts: Iterable[str]) -> dict[str, list[str]]:
    """Choose fonts that have the characters of some texts, as far as there are any.

    Args:
        texts: the texts in a picture.

    Returns:
        Settings for `pyplot.rc_context`. Where characters remain that no font has, one warning in
        the log names them and what helps.
    """
    missing = {character for text in texts for character in text if character.isprintable()}
    missing = _lacking(_path_of(_DEFAULT), missing)
    if not missing:
        return {}
    chosen: list[str] = []
    for name, path in _candidates():
        left = _lacking(path, missing)
        if len(left) < len(missing):
            chosen.append(name)
            missing = left
        if not missing:
            break
    if missing:
        shown = "".join(sorted(missing)[:10])
        log.warning("the picture has boxes in place of %s: no font that was found has them; for "
                    "Chinese install one, such as Debian's fonts-noto-cjk", shown)  # fmt: skip
    return {"font.family": [_DEFAULT, *chosen]}


@contextlib.contextmanager
def without_glyph_warnings() -> Generator[None]:
    """Silence matplotlib's warning for each missing character: ours was logged already."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _candidates() -> Generator[tuple[str, str]]:
    """Give names and files of fonts that may have Chinese: those known, then those on the disk."""
    from matplotlib import font_manager

    known = font_manager.fontManager.ttflist
    regular = [f for f in known if _is_wide(f.name) and f.style == "normal"]
    # A regular sans serif is easiest to read as a label.
    regular.sort(key=lambda f: ("serif" in f.name.lower(), abs(_weight(f.weight) - 400), f.name))
    for font in regular:
        yield font.name, font.fname
    seen = {font.fname for font in known}
    for path in sorted(set(font_manager.findSystemFonts()) - seen):
        if _is_wide(Path(path).name):
            with contextlib.suppress(OSError, RuntimeError):
                font_manager.fontManager.addfont(path)
                yield font_manager.fontManager.ttflist[-1].name, path


def _is_wide(name: str) -> bool:
    return bool(_WIDE.search(name.replace(" ", "")))


def _weight(weight: str | int) -> int:
    return weight if isinstance(weight, int) else {"normal": 400, "regular": 400}.get(weight, 700)


def _path_of(name: str) -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(name))


def _lacking(path: str, characters: set[str]) -> set[str]:
    """Give those of some characters that a font does not have."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):
        return characters
    return {c for c in characters if not font.get_char_index(ord(c))}
