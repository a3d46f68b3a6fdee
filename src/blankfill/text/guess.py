"""Which encoding the bytes of a text are in, told by the characters that they decode to.

An answer is sure, or there is none. Of running Chinese about 40 % of the characters are among the
two hundred most frequent ones; of bytes that were decoded wrongly, a few in a hundred. So an
encoding is the answer where every byte of the text decodes, where there are enough characters to
count, where they are as frequent as in Chinese, and where no other encoding comes near. UTF-16
without a byte order mark is also told where nearly all of it is ASCII.
"""

from __future__ import annotations

import codecs
import functools
import unicodedata
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
import numpy.typing as npt

__all__ = ["CODECS", "guess_encoding"]

CODECS = {
    "UTF-16LE": "utf-16-le", "UTF-16BE": "utf-16-be", "GB18030": "gb18030", "Big5": "cp950",
    "Big5-HKSCS": "big5hkscs",
}  # fmt: skip
"""The encodings that can be told without a mark, and Python's decoder of each. GB18030 holds all of
GB2312 and GBK; code page 950 is Big5 as Windows writes it."""

LEAST_HAN = 30
"""Chinese characters below which none of this is sure."""
LEAST_FREQUENT = 0.15
"""Share of the most frequent ones among the Chinese characters."""
LEAST_COMMON = 0.9
"""Share of those that the common halves of GB2312 and Big5 hold."""
MOST_OTHER = 0.1
"""Share of letters that are neither Chinese nor ASCII."""
MOST_BAD = 1e-3
"""Share of control characters, private use and code points that nobody has assigned."""
LEAST_ASCII, LEAST_TOTAL = 0.9, 16
"""Of UTF-16: share of ASCII that tells it alone, and of how many characters."""
RIVAL = 0.5
"""Another encoding comes near with this part of the frequent characters."""
DAMAGED_UTF8 = 0.8
"""With so much of the bytes beyond ASCII in whole characters of UTF-8, it is UTF-8 with damage."""

# The most frequent characters of modern Chinese text, simplified and traditional.
_FREQUENT = (
    "\u7684\u4e00\u4e0d\u4eba\u662f\u6709\u4e86\u5728\u4ee5\u4e2a\u6765\u6211\u4e4b\u7528"
    "\u4e2d\u4e3a\u8fd9\u4ed6\u5927\u4e0a\u9053\u4f60\u884c\u548c\u53ef\u4e0b\u8bf4\u5b50"
    "\u4e5f\u5230\u8005\u65f6\u4e8e\u51fa\u56fd\u8981\u5e74\u5f97\u800c\u5176\u6cd5\u5341"
    "\u5982\u5b9a\u4f7f\u4e8b\u4eec\u5c06\u53bb\u5730\u5f53\u5c31\u4f1a\u540e\u81ea\u6587"
    "\u80fd\u90a3\u6240\u7b2c\u4e09\u516c\u5bb6\u4f5c\u91cc\u5e94\u751f\u4e8c\u65e5\u89c1"
    "\u7406\u65b9\u6210\u738b\u90fd\u5bf9\u5929\u672c\u6216\u8fc7\u4ef6\u6c11\u6b64\u6761"
    "\u53d1\u53ea\u519b\u9762\u4e3b\u524d\u591a\u4e0e\u5206\u53c8\u8fdb\u5173\u90e8\u5b89"
    "\u540c\u7740\u7b49\u5f00\u7136\u77e5\u5e76\u65e0\u56e0\u597d\u770b\u76f8\u8d77\u7ba1"
    "\u7ecf\u95e8\u5904\u5c0f\u4ee4\u56de\u4e9b\u52a1\u4f55\u6b63\u52a8\u660e\u4fbf\u4e48"
    "\u4ece\u5165\u592a\u5185\u56db\u5fc3\u4e24\u6708\u5916\u4e94\u4f46\u8fd8\u6ca1\u5408"
    "\u95ee\u91cd\u500b\u4f86\u70ba\u9019\u570b\u8aaa\u6642\u65bc\u5011\u5c07\u6703\u7576"
    "\u5f8c\u5c0d\u904e\u689d\u767c\u8ecd\u9032\u8207\u7121\u4e26\u9593\u9084\u6c92\u6a23"
    "\u9ede\u958b\u52d5\u95dc\u73fe\u7a2e\u5b78\u61c9\u8a72\u7d93\u8655\u554f\u982d\u88e1"
    "\u898b\u9580\u9577\u9ebc\u5169\u5f9e\u5be6\u96fb\u8a71\u7d66\u8b93\u8acb\u696d\u54e1"
    "\u9ad4\u6771\u8eca\u6a5f"
)


class _Kind(IntEnum):
    OTHER = 0
    ASCII = 1
    FREQUENT = 2
    COMMON = 3
    RARE = 4
    MARK = 5
    BAD = 6


def guess_encoding(blocks: Iterable[bytes]) -> str:
    """Tell the encoding of a text that is not valid UTF-8.

    Args:
        blocks: all of its bytes.

    Returns:
        A key of `CODECS`; "UTF-8" where it is that with damage; "" where none is sure.
    """
    decoders = {name: codecs.getincrementaldecoder(codec)() for name, codec in CODECS.items()}
    counts = {name: np.zeros(len(_Kind), np.int64) for name in CODECS}
    utf8 = codecs.getincrementaldecoder("utf-8")("ignore")
    num_high = num_whole = 0

    def take(block: bytes, *, last: bool = False) -> None:
        for name, decoder in list(decoders.items()):
            try:
                counts[name] += _count(decoder.decode(block, last))
            except UnicodeDecodeError:
                del decoders[name]

    for block in blocks:
        num_high += len(block) - len(block.decode("ascii", "ignore"))
        text = utf8.decode(block)
        num_whole += len(text.encode()) - len(text.encode("ascii", "ignore"))
        take(block)
    take(b"", last=True)
    if num_whole > DAMAGED_UTF8 * num_high:
        return "UTF-8"
    if "Big5" in decoders:  # which the other extends
        decoders.pop("Big5-HKSCS", None)
    sure = [name for name in decoders if _is_sure(name, counts[name])]
    if len(sure) != 1:
        return ""
    ours = counts[sure[0]][_Kind.FREQUENT]
    near = [n for n in decoders if n not in sure and counts[n][_Kind.FREQUENT] > RIVAL * ours]
    return "" if near and ours else sure[0]


def _is_sure(name: str, counts: npt.NDArray[np.int64]) -> bool:
    total = counts.sum()
    wide = total - counts[_Kind.ASCII]
    is_utf16 = name.startswith("UTF-16")
    if counts[_Kind.BAD] > MOST_BAD * (total if is_utf16 else wide):
        return False
    if is_utf16 and total >= LEAST_TOTAL and counts[_Kind.ASCII] >= LEAST_ASCII * total:
        return True
    han = counts[_Kind.FREQUENT] + counts[_Kind.COMMON] + counts[_Kind.RARE]
    return bool(
        han >= LEAST_HAN
        and counts[_Kind.FREQUENT] >= LEAST_FREQUENT * han
        and counts[_Kind.FREQUENT] + counts[_Kind.COMMON] >= LEAST_COMMON * han
        and counts[_Kind.OTHER] <= MOST_OTHER * wide
    )


def _count(text: str) -> npt.NDArray[np.int64]:
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.bincount(_kinds()[points], minlength=len(_Kind))


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Give the kind of every code point."""
    kinds = np.zeros(0x110000, np.uint8)
    for point in range(0x110000):
        category = unicodedata.category(chr(point))
        if category in ("Cc", "Cn", "Co", "Cs"):
            kinds[point] = _Kind.BAD
    kinds[0x20:0x7F] = kinds[[0x09, 0x0A, 0x0C, 0x0D]] = _Kind.ASCII
    kinds[0xFEFF] = _Kind.MARK
    for first, end in ((0x2010, 0x2028), (0x2030, 0x203F), (0x3000, 0x3018), (0xFF01, 0xFF5F)):
        kinds[first:end] = _Kind.MARK
    for first, end in ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x32000)):
        kinds[first:end][kinds[first:end] != _Kind.BAD] = _Kind.RARE
    # The first levels of both: GB2312 rows 16 to 55, Big5 A4 to C6 7E.
    for codec, leads, trails in (
        ("gb2312", range(0xB0, 0xD8), range(0xA1, 0xFF)),
        ("big5", range(0xA4, 0xC7), (*range(0x40, 0x7F), *range(0xA1, 0xFF))),
    ):
        pairs = (bytes((lead, trail)).decode(codec, "ignore") for lead in leads for trail in trails)
        kinds[[ord(character) for character in "".join(pairs)]] = _Kind.COMMON
    kinds[[ord(character) for character in _FREQUENT]] = _Kind.FREQUENT
    return kinds
