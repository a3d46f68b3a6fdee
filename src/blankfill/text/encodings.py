"""The bytes of a text file as UTF-8, whatever encoding it is in.

`auto`, the default, is sure or leaves the bytes as they are, so that what is not UTF-8 is skipped
and named. A byte order mark tells. Without one, valid UTF-8 is UTF-8, and ASCII is. Bytes that are
not valid before there are `SURE_CHARACTERS` characters beyond ASCII send the whole file to
`guess.py`, which is read once more for it; a pipe is held in memory, up to `HELD_BYTES`.

With an encoding that was named, bytes that it does not have make the document unusable in which
they stand, as with UTF-8: 0xff, which is in no UTF-8, takes their place.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from blankfill.errors import ConfigError
from blankfill.text.compressed import DamagedFileError
from blankfill.text.guess import CODECS, guess_encoding

__all__ = ["AUTO", "ContradictionError", "TextBytes", "check_encoding"]

AUTO = "auto"
"""The encoding that is found, or UTF-8."""
SURE_CHARACTERS = 64
"""So many characters of valid UTF-8 beyond ASCII are UTF-8: of other encodings about one in seven
is valid by chance, of so many none are."""
SURE_ASCII = 32
"""So many bytes of ASCII, none of them NUL, are no UTF-16: half of that is something else."""
HELD_BYTES = 16 << 20
"""Most bytes that wait in memory until the encoding is known."""

_MARKS = (
    (codecs.BOM_UTF8, "UTF-8", "utf-8"),
    (codecs.BOM_UTF32_LE, "UTF-32", "utf-32"),  # begins as the mark of UTF-16 does
    (codecs.BOM_UTF32_BE, "UTF-32", "utf-32"),
    (codecs.BOM_UTF16_LE, "UTF-16", "utf-16"),
    (codecs.BOM_UTF16_BE, "UTF-16", "utf-16"),
    (b"\x84\x31\x95\x33", "GB18030", "gb18030"),
)
_USUAL = {
    "gb2312": "GB18030", "gbk": "GB18030", "gb18030": "GB18030", "cp936": "GB18030",
    "big5": "Big5", "cp950": "Big5", "big5hkscs": "Big5-HKSCS",
}  # fmt: skip
_NO_TEXT = ("unicode_escape", "raw_unicode_escape", "undefined", "idna", "punycode", "mbcs", "oem")
_NO_BYTE = "\udcff"
"""What stands for bytes that an encoding does not have; written as 0xff."""


class ContradictionError(Exception):
    """A file is not in the encoding that was named for it."""


def check_encoding(name: str) -> None:
    """Check the name of an encoding.

    Raises:
        ConfigError: there is none of this name.
    """
    if name != AUTO:
        _codec_of(name)


class TextBytes:
    """The bytes of a text file, to be read once, as UTF-8.

    Args:
        blocks: the bytes as they are.
        encoding: its name, or `AUTO`.
        again: reads all blocks from the start once more; None where that cannot be done.
    """

    def __init__(
        self, blocks: Iterable[bytes], encoding: str, again: Callable[[], Iterable[bytes]] | None
    ) -> None:
        self.name = ""
        """The encoding; "" while it is not known, or where none is sure."""
        self._blocks, self._again = iter(blocks), again
        self._named = encoding

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks.

        Raises:
            ContradictionError: the file is UTF-8 and another encoding was named, or it is UTF-16
                without a mark and nothing says which of the two.
            DamagedFileError: after all that could be read.
        """
        first = next(self._blocks, b"")
        for mark, name, codec in _MARKS:
            if first.startswith(mark):
                yield from self._as(name, codec, [first], None)
                return
        if self._named == AUTO:
            yield from self._found(first)
        else:
            yield from self._as_named(first)

    def _as(
        self, name: str, codec: str, held: list[bytes], damage: DamagedFileError | None
    ) -> Iterator[bytes]:
        """Yield what is held and the rest, from one encoding."""
        self.name = name
        if codec == "utf-8":
            yield from held
            yield from self._blocks
        else:
            yield from _transcoded(codec, held, self._blocks)
        if damage is not None:
            raise damage

    def _as_named(self, first: bytes) -> Iterator[bytes]:
        name, codec = _codec_of(self._named)
        if codec == "utf-8":
            yield from self._as(name, codec, [first], None)
            return
        checked = _Checked()
        checked.add(first)
        is_ascii = codec.startswith(("utf-16", "utf-32")) and first.isascii() and b"\0" not in first
        if (checked.is_known and checked.is_utf8) or (is_ascii and len(first) >= SURE_ASCII):
            raise ContradictionError(f"UTF-8 (not {name}, as --encoding says)")
        if codec == "utf-16" and first:
            held, ended, damage = self._hold([first])
            name = guess_encoding(self._all(held, complete=ended))
            if not name.startswith("UTF-16"):
                raise ContradictionError(
                    "UTF-16 without a byte order mark, in which order is not sure "
                    "(name it: --encoding utf-16-le, or utf-16-be)"
                )
            yield from self._as(name, CODECS[name], held, damage)
            return
        yield from self._as(name, codec, [first], None)

    def _found(self, first: bytes) -> Iterator[bytes]:
        """Yield ASCII as it comes, and the rest once it is known what it is."""
        held: list[bytes] = []
        ended, damage = False, None
        if b"\0" not in first:
            checked = _Checked()
            block = first
            while not checked.is_known:
                if not block:
                    ended = True
                    checked.finish()
                    break
                if block.isascii() and not held:
                    yield block
                else:
                    held.append(block)
                    checked.add(block)
                try:
                    block = b"" if checked.is_known else next(self._blocks, b"")
                except DamagedFileError as error:
                    block, damage = b"", error
            if checked.is_utf8:
                yield from self._as("UTF-8", "utf-8", held, damage)
                return
        else:
            held.append(first)
        if not ended:
            held, ended, damage = self._hold(held)
        is_all = held[0] is first
        name = guess_encoding(self._all(held, complete=ended and is_all))
        seen = ended or self._again is not None
        if (not seen and name != "UTF-8") or (not is_all and name.startswith("UTF-16")):
            name = ""
        yield from self._as(name, CODECS.get(name, "utf-8"), held, damage)

    def _hold(self, held: list[bytes]) -> tuple[list[bytes], bool, DamagedFileError | None]:
        """Hold more of the file: all of it, if it is not too large.

        Returns:
            The blocks; whether there are no more; the damage after them.
        """
        size = sum(map(len, held))
        try:
            while size <= HELD_BYTES:
                block = next(self._blocks, b"")
                if not block:
                    return held, True, None
                held.append(block)
                size += len(block)
        except DamagedFileError as error:
            return held, True, error
        return held, False, None

    def _all(self, held: list[bytes], *, complete: bool) -> Iterator[bytes]:
        """Yield all of the file from its start, for a look at it; of a pipe what is held.

        Args:
            held: blocks that are held.
            complete: whether they are all of it.
        """
        if complete or self._again is None:
            yield from held
        else:
            with suppress(DamagedFileError):
                yield from self._again()


class _Checked:
    """How much of some blocks is valid UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._num_bytes = self._num_characters = 0
        self._is_valid = True

    @property
    def is_utf8(self) -> bool:
        """Whether it is UTF-8, as far as it was seen; or was, with damage after it."""
        return self._is_valid or self._num_characters >= SURE_CHARACTERS

    @property
    def is_known(self) -> bool:
        """Whether nothing that may follow would change that."""
        sure = self._num_characters >= SURE_CHARACTERS or self._num_bytes > HELD_BYTES
        return sure or not self._is_valid

    def add(self, block: bytes) -> None:
        """Check another block."""
        self._num_bytes += len(block)
        self._check(block, last=False)

    def finish(self) -> None:
        """Check that the end does not cut through a character."""
        self._check(b"", last=True)

    def _check(self, block: bytes, *, last: bool) -> None:
        try:
            text = self._decoder.decode(block, last)
        except UnicodeDecodeError as error:
            text, self._is_valid = error.object[: error.start].decode(), False
        self._num_characters += len(text) - len(text.encode("ascii", "ignore"))


def _transcoded(codec: str, held: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(codec)(_HANDLER)
    damage: DamagedFileError | None = None
    while held:
        yield from _utf8(decoder.decode(held.pop(0)))
    try:
        for block in rest:
            yield from _utf8(decoder.decode(block))
    except DamagedFileError as error:
        damage = error
    else:
        yield from _utf8(decoder.decode(b"", final=True))
    if damage is not None:
        raise damage


def _utf8(text: str) -> Iterator[bytes]:
    if text:
        yield text.encode("utf-8", "surrogateescape")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _NO_BYTE, error.end


_HANDLER = "blankfill-no-character"
codecs.register_error(_HANDLER, _replaced)


def _codec_of(name: str) -> tuple[str, str]:
    """Give the name of an encoding as messages have it, and Python's decoder of it."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"encoding={name!r} is none that is known; take auto, utf-8, utf-16, utf-16-le, "
            "utf-16-be, gb18030, big5, or another name that iconv has"
        ) from error
    plain = found.name.replace("-", "_")
    if not found._is_text_encoding or plain in _NO_TEXT:  # pyright: ignore[reportAttributeAccessIssue]  # as `bytes.decode` asks
        raise ConfigError(f"encoding={name!r} is no encoding of text files; take auto, or utf-8")
    if plain in _USUAL:
        usual = _USUAL[plain]
        return usual, CODECS[usual]
    if plain in ("utf_8_sig", "utf_8"):
        return "UTF-8", "utf-8"
    return found.name.upper(), found.name
