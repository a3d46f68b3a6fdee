"""Texts in other encodings than UTF-8: what comes is right, or nothing comes and it is said."""

import gzip
import io
import json
import random

import pytest

from blankfill.errors import ConfigError, DataError
from blankfill.text import encodings
from blankfill.text.corpus import read_documents
from blankfill.text.guess import guess_encoding
from blankfill.text.options import TextOptions
from blankfill.text.records import Skips

# The opening of a novel of the 14th century in both kinds of characters, and a line of our own.
SIMPLIFIED = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。"
    "汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝，遂分为三国。"
    "他们在这里住了一年，每天都看书、写字，有时候也到山上去走一走。我问他为什么不回家，他说家里已经没有人了。"
)
TRADITIONAL = (
    "話說天下大勢，分久必合，合久必分。周末七國分爭，並入於秦。及秦滅之後，楚、漢分爭，又並入於漢。"
    "漢朝自高祖斬白蛇而起義，一統天下，後來光武中興，傳至獻帝，遂分為三國。"
    "他們在這裡住了一年，每天都看書、寫字，有時候也到山上去走一走。我問他為什麼不回家，他說家裡已經沒有人了。"
)
ENGLISH = "It was a dark night, and nobody had come; so we went home and said nothing of it.\n"
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で"
    "泣いていた事だけは記憶している。吾輩はここで始めて人間というものを見た。"
)
KOREAN = (
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 "
    "양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다."
)
RUSSIAN = (
    "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом."
)
FRENCH = "Tous les êtres humains naissent libres et égaux en dignité et en droits, a-t-on écrit."
SURE = [
    (SIMPLIFIED, "gb18030"), (SIMPLIFIED, "gbk"), (SIMPLIFIED, "gb2312"), (TRADITIONAL, "big5"),
    (TRADITIONAL, "cp950"), (TRADITIONAL, "gbk"), (SIMPLIFIED, "utf-16"), (FRENCH, "utf-16"),
    (SIMPLIFIED, "utf-16-le"), (TRADITIONAL, "utf-16-be"), (ENGLISH, "utf-16-le"),
    (ENGLISH, "utf-16-be"), (SIMPLIFIED, "utf-32"), (KOREAN, "utf-8"), (KOREAN, "utf-8-sig"),
    (SIMPLIFIED + "\U00020000", "gb18030"), ("\ufeff" + SIMPLIFIED[:9], "gb18030"),
]  # fmt: skip
OTHERS = [
    (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp"), (KOREAN, "euc_kr"), (KOREAN, "johab"),
    (RUSSIAN, "koi8-r"), (RUSSIAN, "cp1251"), (RUSSIAN, "cp866"), (RUSSIAN, "utf-16-le"),
    (JAPANESE, "iso2022_jp"), (KOREAN, "iso2022_kr"),
    (FRENCH, "latin-1"), (FRENCH, "mac-roman"), (JAPANESE, "utf-16-be"), (KOREAN, "utf-16-le"),
]  # fmt: skip


def read(path, skips=None, **options):
    return [d.text for d in read_documents([path], TextOptions(**options), report=skips)]


@pytest.mark.parametrize(("text", "encoding"), SURE)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "txt.gz"])
def test_what_is_sure_comes_as_it_was_written(tmp_path, text, encoding, kind):
    plain = text.removeprefix("\ufeff")
    data = {"jsonl": json.dumps({"text": plain}, ensure_ascii=False) + "\n",
            "csv": f'id,text\n1,"{plain}"\n'}.get(kind, plain)  # fmt: skip
    mark = "\ufeff" if plain != text else ""
    data = (mark + data).encode(encoding)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    skips = Skips(strict=True)
    assert read(path, skips) == [plain]
    assert bool(skips.encodings) == (not encoding.startswith("utf-8"))


@pytest.mark.parametrize(("text", "encoding"), OTHERS)
def test_what_is_not_sure_is_refused_with_the_way_out_and_read_by_name(tmp_path, text, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes((text * 3).encode(encoding, "ignore"))
    skips = Skips()
    assert read(path, skips) == []
    assert "--encoding" in str(skips.first[0])
    expected = (text * 3).encode(encoding, "ignore").decode(encoding)
    assert read(path, encoding=encoding) == [expected]


@pytest.mark.parametrize("text", [SIMPLIFIED, TRADITIONAL])
def test_utf8_with_damage_is_never_taken_for_another_encoding(tmp_path, text):
    rng = random.Random(7)
    for count in range(40):
        data = bytearray(text.encode())
        for _ in range(1 + count % 4):
            del data[rng.randrange(len(data))]
        try:
            bytes(data).decode()
        except UnicodeDecodeError:
            assert guess_encoding([bytes(data)]) == "UTF-8"


@pytest.mark.parametrize(("ours", "theirs"), [("gb18030", "big5"), ("big5", "gb18030")])
def test_two_encodings_in_one_file_are_none(ours, theirs):
    text = SIMPLIFIED if ours == "gb18030" else TRADITIONAL
    other = TRADITIONAL if theirs == "big5" else SIMPLIFIED
    assert guess_encoding([text.encode(ours) + b"\n" + other.encode(theirs)]) == ""


def test_a_few_characters_are_not_enough(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("狐狸来了，我们走。".encode("gb18030"))
    skips = Skips()
    assert read(path, skips) == []
    assert "iconv -f NAME -t UTF-8" in str(skips.first[0])
    assert read(path, encoding="gbk") == ["狐狸来了，我们走。"]


def test_the_encoding_may_become_known_late(tmp_path, monkeypatch):
    """ASCII of many blocks before it; what is beyond it is decided by the whole file."""
    text = ENGLISH * 9_000 + SIMPLIFIED * 3
    for encoding in ("gb18030", "utf-8"):
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes(text.encode(encoding))
        assert read(path) == [text]
        path.with_suffix(".jsonl").write_text(
            "".join(json.dumps({"text": part}, ensure_ascii=False) + "\n"
                    for part in (*[ENGLISH] * 9_000, SIMPLIFIED)), encoding=encoding)  # fmt: skip
        assert read(path.with_suffix(".jsonl")) == [*[ENGLISH] * 9_000, SIMPLIFIED]
    # The first characters happen to be valid UTF-8: what follows tells.
    path.write_bytes("一".encode("gb18030") + ENGLISH.encode() + SIMPLIFIED.encode("gb18030"))
    assert path.read_bytes()[:2].decode() == "\u04bb"
    assert read(path) == ["一" + ENGLISH + SIMPLIFIED]
    # More than is held in memory: the file is read once more for it.
    monkeypatch.setattr(encodings, "HELD_BYTES", 1000)
    for data in (ENGLISH * 9_000 + SIMPLIFIED * 3, SIMPLIFIED * 3 + ENGLISH * 9_000):
        path.write_bytes(data.encode("gb18030"))
        assert read(path) == [data]


def test_a_pipe_is_held_in_memory_and_no_more_of_it(monkeypatch):
    def piped(text):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode("gb18030"))))
        skips = Skips()
        return [d.text for d in read_documents(["-"], report=skips)], skips

    assert piped(SIMPLIFIED)[0] == [SIMPLIFIED]
    assert piped(ENGLISH * 9_000 + SIMPLIFIED)[0] == [ENGLISH * 9_000 + SIMPLIFIED]
    monkeypatch.setattr(encodings, "HELD_BYTES", 1000)
    texts, skips = piped(SIMPLIFIED * 2000)
    assert texts == []
    assert "--encoding" in str(skips.first[0])


def test_a_long_pipe_of_utf8_with_a_damaged_line_loses_that_line(monkeypatch):
    monkeypatch.setattr(encodings, "HELD_BYTES", 2000)
    line = json.dumps({"text": SIMPLIFIED}, ensure_ascii=False).encode() + b"\n"
    data = b'{"text": "caf\xe9"}\n' + line * 3000
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    skips = Skips()
    assert [d.text for d in read_documents(["-"], report=skips)] == [SIMPLIFIED] * 3000
    assert [case.line for case in skips.first] == [1]


def test_bytes_that_a_named_encoding_has_not_lose_only_their_record(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"text": SIMPLIFIED}, ensure_ascii=False).encode("gb18030")
    path.write_bytes(good + b"\n" + b'{"text": "a \xff b"}\n' + good)
    skips = Skips()
    assert read(path, skips, encoding="gb18030") == [SIMPLIFIED, SIMPLIFIED]
    assert [str(case) for case in skips.first] == [f"{path}:2: not GB18030 (some of its bytes)"]
    with pytest.raises(DataError, match="not GB18030"):
        list(read_documents([path], TextOptions(encoding="gbk"), strict=True))


def test_stray_bytes_never_join_into_a_character(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xc3\xa9 " + SIMPLIFIED.encode("utf-16-be") + b"\xdc")
    assert read(path, encoding="utf-16-be") == []


def test_of_a_file_that_is_not_sure_only_ascii_is_kept(tmp_path):
    """One character of GB18030 in seven is valid UTF-8, as another character."""
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in ("a fox", "一", "狐狸")]
    path.write_bytes("\n".join(lines).encode("gb18030"))
    assert path.read_bytes().split(b"\n")[1].decode() != lines[1]
    skips = Skips()
    assert read(path, skips) == ["a fox"]
    assert [case.line for case in skips.first] == [2, 3]
    assert all("--encoding" in str(case) for case in skips.first)
    assert read(path, encoding="gbk") == ["a fox", "一", "狐狸"]
    # UTF-8 with a damaged line is UTF-8, and loses that line.
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}')
    assert read(path) == ["a fox", "一", "狐狸"]


@pytest.mark.parametrize("text", [SIMPLIFIED, ENGLISH])
@pytest.mark.parametrize(
    "name", ["gb18030", "big5", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_utf8_is_not_read_as_what_it_is_not(tmp_path, name, text):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    if text.isascii() and not name.startswith("utf"):
        assert read(path, encoding=name) == [text]  # ASCII is the same in all of these
        return
    skips = Skips()
    assert read(path, skips, encoding=name) == []
    assert "as --encoding says" in str(skips.first[0])


def test_utf16_by_name_asks_for_the_order_where_it_is_not_sure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(SIMPLIFIED.encode("utf-16-be"))
    assert read(path, encoding="utf-16") == [SIMPLIFIED]
    path.write_bytes(RUSSIAN.encode("utf-16-be"))
    skips = Skips()
    assert read(path, skips, encoding="utf-16") == []
    assert "utf-16-be" in str(skips.first[0])
    path.write_bytes(RUSSIAN.encode("utf-16"))
    assert read(path, encoding="utf-16") == [RUSSIAN]


@pytest.mark.parametrize(
    "name", ["", "nope", "base64", "rot13", "unicode_escape", "a\0b", "x" * 99]
)
def test_a_name_of_no_encoding_is_refused(name):
    with pytest.raises(ConfigError, match="encoding"):
        TextOptions(encoding=name)


def test_a_cut_archive_gives_what_came_before_the_cut(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    line = json.dumps({"text": SIMPLIFIED}, ensure_ascii=False).encode("gb18030") + b"\n"
    rng = random.Random(3)
    noise = b"".join(b'{"text": "%d"}\n' % rng.randrange(10**9) for _ in range(3000))
    path.write_bytes(gzip.compress(line * 3 + noise)[:-2000])
    skips = Skips()
    texts = read(path, skips, encoding="gb18030")
    assert texts[:3] == [SIMPLIFIED] * 3
    assert len(texts) > 1000
    assert any("cut off" in str(case) for case in skips.first)
