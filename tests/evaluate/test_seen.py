"""Items that training text has seen: planted ones are found, and no others."""

import json
import random
import tracemalloc

import pytest

from blankfill.api import data_build
from blankfill.data.store import TokenStore
from blankfill.evaluate import seen
from blankfill.evaluate.seen import RUN, find_seen
from conftest import small_corpus

WORDS = [
    "river", "stone", "fox", "bread", "market", "lantern", "winter", "garden", "sleeps", "walks",
    "behind", "before", "old", "young", "seven", "blue", "quiet", "tall", "never", "often",
]  # fmt: skip
HAN = (
    "\u4eba\u5c71\u6c34\u706b\u6728\u571f\u5929\u5730"
    "\u65e5\u6708\u4e66\u8bfb\u770b\u5356\u6765\u53bb"
)


def english(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


def chinese(rng, count):
    return "".join(rng.choice(HAN) for _ in range(count))


def disguised(rng, text):
    """The same words with other capitals, punctuation and spaces."""
    if text[0] in HAN:
        return "".join(c + rng.choice(["", "", "\uff0c", " ", "\n"]) for c in text)
    return "".join(
        (word.upper() if rng.random() < 0.3 else word) + rng.choice([" ", ", ", "\n", " \u2014 "])
        for word in text.split()
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory, tokenizer_folder):
    """A store in which half of the items are hidden, and the items."""
    folder = tmp_path_factory.mktemp("seen")
    rng = random.Random(3)
    make = (english, chinese)
    items = [make[k % 2](rng, 40) for k in range(400)]
    documents = small_corpus(60, 9)
    for k, item in enumerate(items[:200]):
        size = RUN + k % 7
        at = rng.randrange(0, 40 - size)
        run = item.split()[at : at + size] if k % 2 == 0 else list(item[at : at + size])
        leak = disguised(rng, (" " if k % 2 == 0 else "").join(run))
        around = make[k % 2]
        documents.append(f"{around(rng, 30)}. {leak}. {around(rng, 30)}.")
    rng.shuffle(documents)
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": d}) for d in documents))
    data_build([folder / "text.jsonl"], tokenizer=tokenizer_folder, out=folder / "store")
    return TokenStore.open(folder / "store"), items


def test_200_planted_leaks_are_all_found_and_nothing_else(planted):
    store, items = planted
    assert find_seen([store], [(item,) for item in items]) == [True] * 200 + [False] * 200


def test_a_run_of_twelve_is_none(tokenizer_folder, tmp_path):
    rng = random.Random(5)
    text = english(rng, 60)
    (tmp_path / "text.txt").write_text(text)
    data_build([tmp_path / "text.txt"], tokenizer=tokenizer_folder, out=tmp_path / "store")
    store, words = TokenStore.open(tmp_path / "store"), text.split()
    for size, found in ((12, False), (13, True)):
        item = " ".join(["lamp", *words[20 : 20 + size], "lamp", "door"])
        assert find_seen([store], [(item,)]) == [found]
    ends = [" ".join(words[:13]), " ".join(words[-13:]), " ".join(words[:12])]
    assert find_seen([store], [(end,) for end in ends]) == [True, True, None]
    # Half in one text and half in another of an item, or of the store, is no run.
    assert find_seen([store], [(" ".join(words[:7]), " ".join(words[7:14]))]) == [None]


def test_long_documents_are_read_in_pieces_that_share_enough(planted, monkeypatch):
    store, items = planted
    monkeypatch.setattr(seen, "PIECE_TOKENS", 16)
    monkeypatch.setattr(seen, "OVERLAP_TOKENS", 400)
    monkeypatch.setattr(seen, "WORDS_AT_A_TIME", 500)
    assert find_seen([store], [(item,) for item in items]) == [True] * 200 + [False] * 200


def test_equal_passages_are_looked_up_once_and_no_item_is_lost(planted, monkeypatch):
    store, items = planted
    texts = [(items[0],), (items[0],), ("short",), (), (items[300], items[1])]
    assert find_seen([store], texts) == [True, True, None, None, True]
    assert find_seen([store], []) == []
    assert find_seen([store], [("short",)]) == [None]


def test_memory_is_that_of_the_items_and_not_of_the_store(planted, monkeypatch):
    monkeypatch.setattr(seen, "WORDS_AT_A_TIME", 4_000)
    store, items = planted

    class Again:
        """The same store many times over."""

        def __init__(self, times):
            self.times, self.path = times, store.path

        def __len__(self):
            return len(store) * self.times

        def document(self, index):
            return store.document(index % len(store))

    peaks = []
    for times in (1, 1, 8):
        tracemalloc.start()
        find_seen([Again(times)], [(item,) for item in items[:50]])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 100_000
