"""The blanks are those that the law states, and depend on the text and the seed alone."""

import hashlib
import itertools
import json
import random
from collections import Counter

import pytest

from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.data.ingest import build_store
from blankfill.data.store import TokenStore
from blankfill.errors import DataError
from blankfill.evaluate import held_out, law
from blankfill.evaluate.held_out import draw_held_out, read_texts
from blankfill.evaluate.law import draw_blanks
from blankfill.text.train_tokenizer import train_tokenizer
from conftest import small_corpus

LATIN = "the old fox's well-known dog, isn't (sold) for 3.50: \u201cno\u201d!"
MANY_HAN = [chr(0x4E00 + 7 * i) for i in range(400)]
HAN = "\u4eba\u5c71\u6c34\u706b\uff0c\u6728\u571f\u3002"


def texts(count=60, seed=0):
    """English and Chinese texts of many lines and lengths, some with both scripts in them."""
    rng = random.Random(seed)
    found = []
    for i in range(count):
        if i % 3:
            words = rng.choices([*LATIN.split(), "caf\u00e9", "\u0434\u043e\u043c"], k=i * 4)
            text = "".join(word + rng.choice([" ", " ", " ", "  ", "\n", "\n\n"]) for word in words)
            found.append(("en", text))
        else:
            some = rng.sample(MANY_HAN, 120)
            text = "".join(rng.choice([*HAN, *some, "GLM 2", "\n"]) for _ in range(i * 9))
            found.append(("zh", text))
    return [*found, ("en", ""), ("en", "alone"), ("en", "two words"), ("zh", "\u4eba\u5c71")]


def is_han(c):
    return "\u4e00" <= c <= "\u9fff"


def is_plain(c):
    """Whether a character of these texts is one that words are made of."""
    return c.isalnum() and not is_han(c)


def words_of(stretch):
    """Cut a stretch into words, character by character."""
    found, i = [], 0
    while i < len(stretch):
        j = i
        if is_han(stretch[i]):
            j = i + 1
        elif is_plain(stretch[i]):
            while j < len(stretch) and is_plain(stretch[j]):
                j += 1
                joined = stretch[j : j + 1] in ("'", "-", "\u2019")
                if joined and j + 1 < len(stretch) and is_plain(stretch[j + 1]):
                    j += 1
        if j > i:
            found.append((i, j))
        i = max(j, i + 1)
    return found


def cuts_by_hand(documents, language):
    """Tell where the characters of a language may be cut apart, by counting in plain loops."""
    singles, pairs = Counter(), Counter()
    for _, text in {one for one in documents if one[0] == language}:
        singles.update(text)
        pairs.update(itertools.pairwise(text))

    def between(a, b):
        rare = 20 * pairs[a, b] < min(singles[a], singles[b])
        return rare or not (is_han(a) and is_han(b))

    return between


def by_hand(documents, seed, max_blanks):
    """The law as its page states it: every stretch of every document, then sorted."""
    candidates = {}
    cuts = {language: cuts_by_hand(documents, language) for language, _ in documents}
    for language, text in dict.fromkeys(documents):
        name = hashlib.sha256(text.encode()).hexdigest()
        for k in range((len(text) + 255) // 256):
            digest = hashlib.sha256(f"{seed}/{name}/{k}".encode()).digest()
            first, second, third = (int.from_bytes(digest[i : i + 8], "big") for i in (0, 8, 16))
            stretch = text[256 * k : 256 * k + 256]
            goes_on = 256 * k + 256 < len(text)
            words = [
                (a, b) for a, b in words_of(stretch)
                if is_han(stretch[a]) or not ((a == 0 and k) or (b == len(stretch) and goes_on))
            ]  # fmt: skip
            size = 1 + third % 6
            while size:
                places = [
                    (words[i][0], words[i + size - 1][1]) for i in range(len(words) - size + 1)
                    if "\n" not in stretch[words[i][0] : words[i + size - 1][1]]
                    and all(
                        at in (0, len(text)) or cuts[language](text[at - 1], text[at])
                        for at in (256 * k + words[i][0], 256 * k + words[i + size - 1][1])
                    )
                ]  # fmt: skip
                if places and size < len(words):
                    break
                size -= 1
            if not size:
                continue
            a, b = (256 * k + edge for edge in places[second % len(places)])
            if a and text[a - 1] == " ":
                a -= 1
            candidates.setdefault(language, []).append((first, name, a, text[a:b], size))
    return {
        language: [tuple(one[1:]) for one in sorted(found)[:max_blanks]]
        for language, found in candidates.items()
    }


def by_language(documents):
    found = {}
    for language, text in documents:
        found.setdefault(language, []).append(text)
    return found


def draw(documents, **options):
    return draw_blanks(by_language(documents), **options)


def drawn(documents, seed, max_blanks):
    found = draw(documents, seed=seed, max_blanks=max_blanks).by_language
    return {
        language: [(b.document, b.start, b.text, b.num_words) for b in blanks]
        for language, blanks in found.items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_blanks_are_those_that_the_law_states(seed):
    documents = texts(seed=seed)
    for max_blanks in (1, 7, 10_000):
        assert drawn(documents, seed, max_blanks) == by_hand(documents, seed, max_blanks)


def test_neither_order_nor_copies_change_them_and_fewer_are_the_first_of_more():
    documents = texts()
    many = draw(documents, max_blanks=30)
    again = draw(documents[::-1] + documents[:9], max_blanks=30)
    assert again == many
    few = draw(documents, max_blanks=8).by_language
    assert few == {language: blanks[:8] for language, blanks in many.by_language.items()}


def test_another_seed_or_text_has_another_fingerprint():
    documents = texts()
    first = draw(documents, max_blanks=30).law
    seed = draw(documents, max_blanks=30, seed=1).law
    assert seed.text_fingerprint == first.text_fingerprint
    assert seed.blanks_fingerprint != first.blanks_fingerprint
    other = draw([*documents[:-6], ("en", documents[-6][1] + "x")], max_blanks=30).law
    assert other.text_fingerprint != first.text_fingerprint


def test_every_number_of_words_is_as_likely():
    text = " ".join(f"word{i}" for i in range(60_000))
    blanks = draw([("en", text)], max_blanks=10**6).by_language["en"]
    counts = Counter(blank.num_words for blank in blanks)
    assert set(counts) == set(range(1, 7))
    expected = len(blanks) / 6
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 20.5  # the 99.9 % point at five degrees of freedom
    assert all(blank.text.split() == blank.text.strip().split(" ") for blank in blanks)


def test_chinese_is_cut_where_characters_do_not_predict_each_other():
    rng = random.Random(0)
    words = ["\u6625\u5929", "\u8bfb\u4e66", "\u6c34\u679c\u6811", "\u7684", "\u4ed6", "\u4e86",
             *(chr(0x4E00 + 11 * i) + chr(0x6E00 + 11 * i) for i in range(60))]  # fmt: skip
    sentences = [rng.choices(words, k=12) for _ in range(400)]
    texts = ["".join(words) + "\u3002" for words in sentences]
    edges = {}
    for text, parts in zip(texts, sentences, strict=True):
        ends = list(itertools.accumulate(map(len, parts), initial=0))
        edges[hashlib.sha256(text.encode()).hexdigest()] = {*ends, len(text)}
    blanks = draw_blanks({"zh": texts}, max_blanks=1000).by_language["zh"]
    assert len(blanks) > 300
    for blank in blanks:
        assert {blank.start, blank.start + len(blank.text)} <= edges[blank.document]


@pytest.mark.parametrize(("language", "size"), [("en", 256), ("zh", 96), ("other", 256)])
def test_the_window_is_as_wide_as_is_said_and_cuts_no_word(language, size):
    text = "".join(random.Random(3).choice(["caf\u00e9 ", "don't ", "\u4eba", "\n"])
                   for _ in range(4000))  # fmt: skip
    blanks = draw([(language, text)], max_blanks=10**6).by_language[language]
    for blank in blanks:
        end = blank.start + len(blank.text)
        first, last = blank.start - len(blank.before), end + len(blank.after)
        assert text[first:last] == blank.before + blank.text + blank.after
        longest = min(size, blank.start), min(size, len(text) - end)
        assert all(0 <= most - len(side) <= 4 for most, side in
                   zip(longest, (blank.before, blank.after), strict=True))  # fmt: skip
        for at in (first, last):
            assert not (0 < at < len(text) and is_plain(text[at - 1]) and is_plain(text[at]))


@pytest.fixture(scope="module")
def corpora(tokenizer_folder, tmp_path_factory):
    """The same held-out text in stores of two tokenizers, one of them in another order."""
    folder = tmp_path_factory.mktemp("law")
    documents = small_corpus(60, 5)
    (folder / "text.txt").write_text("\n\n".join(small_corpus(300, 4)), encoding="utf-8")
    train_tokenizer([folder / "text.txt"], folder / "tok2", vocab_size=400)
    for name, tokenizer, order in (
        ("one", tokenizer_folder, documents),
        ("two", folder / "tok2", documents[::-1]),
    ):
        source = folder / f"{name}.jsonl"
        source.write_text("\n".join(json.dumps({"text": t}) for t in order), encoding="utf-8")
        build_store([source], tokenizer=tokenizer, out=folder / name)
    return [TokenStore.open(folder / name) for name in ("one", "two")]


def test_two_tokenizers_and_two_objectives_are_asked_the_very_same(corpora, monkeypatch):
    one, two = corpora
    assert one.tokenizer_fingerprint != two.tokenizer_fingerprint
    assert one.num_tokens != two.num_tokens
    first, second = (draw_held_out([store], max_blanks=20) for store in corpora)
    assert first == second
    assert sum(map(len, first.by_language.values())) == 40
    # Nothing of an objective is asked: none of these may be built while blanks are drawn.
    for objective in (ObjectiveConfig, *map(type, MIXTURES.values())):
        monkeypatch.setattr(objective, "__getattribute__", lambda *_: pytest.fail("asked"))
    assert draw_held_out([one], max_blanks=20) == first


def test_more_documents_than_are_read_are_drawn_from_all_stores(corpora, monkeypatch):
    monkeypatch.setattr(held_out, "MAX_DOCUMENTS", 10)
    read = read_texts([corpora[0], corpora[0]])
    assert {language: len(list(texts)) for language, texts in read.items()} == {"en": 10, "zh": 10}
    for language, texts in read.items():
        again = read_texts([corpora[0], corpora[0]])[language]
        assert list(texts) == list(texts) == list(again)


def test_a_long_document_is_read_up_to_the_same_character_with_any_tokenizer(corpora, monkeypatch):
    def read():
        return [
            {language: sorted(texts) for language, texts in read_texts([store]).items()}
            for store in corpora
        ]

    assert read()[0] == read()[1]
    for module in (law, held_out):
        monkeypatch.setattr(module, "MAX_CHARACTERS", 17)
    assert read()[0] == read()[1]
    assert {len(text) for texts in read()[0].values() for text in texts} == {17}


def test_text_without_a_blank_is_one_sentence(tokenizer_folder, tmp_path):
    source = tmp_path / "words.jsonl"
    lines = [json.dumps({"text": text}) for text in ("alone", "...", "42", "\u4eba")]
    source.write_text("\n".join(lines), encoding="utf-8")
    build_store([source], tokenizer=tokenizer_folder, out=tmp_path / "store")
    with pytest.raises(DataError, match=r"no blank can be drawn from .*two words or more"):
        draw_held_out([TokenStore.open(tmp_path / "store")], max_blanks=5)
