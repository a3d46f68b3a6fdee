import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest

from blankfill.errors import ConfigError, DataError, OutputError
from blankfill.text.language import language_code
from blankfill.text.sample import CHUNK_BYTES, Sample, _chunks, balanced_bytes
from blankfill.text.tokenizer import Tokenizer
from blankfill.text.train_tokenizer import train_tokenizer
from blankfill.text.trainer import NUM_FIXED
from conftest import small_corpus
from shared import shared_path


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus.txt").write_text("\n\n".join(small_corpus()), encoding="utf-8")
    return tmp_path / "corpus.txt"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_text_gives_the_same_tokenizer(corpus, tmp_path, tokenizer_folder):
    report = train_tokenizer([corpus], tmp_path / "elsewhere" / "tok", vocab_size=500)
    first = (tokenizer_folder / "tokenizer.model").read_bytes()
    assert (tmp_path / "elsewhere" / "tok" / "tokenizer.model").read_bytes() == first
    assert report.vocab_size == 500
    assert files(tmp_path / "elsewhere") == ["tok"]
    assert files(tmp_path / "elsewhere" / "tok") == ["tokenizer.json", "tokenizer.model"]


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_the_special_tokens_come_first_and_bytes_are_all_there(corpus, tmp_path, model_type):
    train_tokenizer([corpus], tmp_path / "tok", vocab_size=450, model_type=model_type)
    tokenizer = Tokenizer.load(tmp_path / "tok")
    assert tokenizer.vocab_size == 450
    assert [tokenizer.token(i) for i in range(9)] == [
        "<unk>", "[MASK]", "[sMASK]", "[gMASK]", "[S]", "[E]", "[EOS]", "[PAD]", "[dBLOCK]"
    ]  # fmt: skip
    assert tokenizer.byte_mask.sum() == 256


def trains(path, folder, size, **options):
    try:
        train_tokenizer([path], folder / "tok", vocab_size=size, overwrite=True, **options)
    except ConfigError as error:
        return str(error)
    return ""


BOUNDS = re.compile(r"take at least (\d+), at most (\d+)")
TEXTS = {
    "both languages": "\n\n".join(small_corpus(200)),
    "many characters": "".join(chr(0x4E00 + i % 200) for i in range(4000)) + "\u4e00\u4e01 " * 50,
}


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_size_that_does_not_fit_names_both_that_do(tmp_path, kind, model_type):
    path = tmp_path / "a.txt"
    path.write_text(TEXTS[kind], encoding="utf-8")
    low = trains(path, tmp_path, NUM_FIXED + 1, model_type=model_type)
    assert "is too small for the characters" in low
    found = BOUNDS.search(low)
    assert found is not None
    smallest, largest = map(int, found.groups())
    # 60,000 ids have another character coverage than the sizes that are named.
    for size in (largest + 1, 60_000):
        high = trains(path, tmp_path, size, model_type=model_type)
        assert "too little text" in high
        assert BOUNDS.search(high).groups() == found.groups()
    assert str(smallest) in trains(path, tmp_path, smallest - 1, model_type=model_type)
    assert not trains(path, tmp_path, smallest, model_type=model_type)
    assert not trains(path, tmp_path, largest, model_type=model_type)
    assert files(tmp_path) == ["a.txt", "tok"]


def test_one_size_that_fits_is_named_alone(tmp_path):
    (tmp_path / "a.txt").write_text("ab")
    for size in (NUM_FIXED + 1, 5000):
        said = trains(tmp_path / "a.txt", tmp_path, size)
        assert f"the only size that it allows is {NUM_FIXED + 2}" in said
    assert not trains(tmp_path / "a.txt", tmp_path, NUM_FIXED + 2)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"vocab_size": 10}, ConfigError),
        ({"character_coverage": 2.0}, ConfigError),
        ({"sample_bytes": 0}, ConfigError),
    ],
)
def test_impossible_options_are_refused(corpus, tmp_path, options, error):
    with pytest.raises(error, match=next(iter(options))):
        train_tokenizer([corpus], tmp_path / "tok", **options)


def test_an_existing_folder_is_kept_unless_asked(corpus, tmp_path):
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "precious").write_text("x")
    with pytest.raises(OutputError, match="exists already"):
        train_tokenizer([corpus], tmp_path / "tok", vocab_size=400)
    with pytest.raises(OutputError, match="not a tokenizer folder"):
        train_tokenizer([corpus], tmp_path / "tok", vocab_size=400, overwrite=True)
    assert files(tmp_path / "tok") == ["precious"]
    train_tokenizer([corpus], tmp_path / "new", vocab_size=400)
    train_tokenizer([corpus], tmp_path / "new", vocab_size=410, overwrite=True)
    assert Tokenizer.load(tmp_path / "new").vocab_size == 410


def test_text_without_a_document_is_one_clear_sentence(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(DataError, match="no document with text"):
        train_tokenizer([tmp_path / "a.txt"], tmp_path / "tok", vocab_size=400)
    assert files(tmp_path) == ["a.txt"]


def documents(language, size, seed=0):
    rng = random.Random(seed)
    letters = "abcdefgh   " if language == 1 else "\u4eba\u5c71\u6c34\u706b\u6728"
    return ["".join(rng.choice(letters) for _ in range(200)) for _ in range(size)]


def sampled(tmp_path, texts, limit, balance):
    sample = Sample(limit)
    for text in texts:
        sample.add(text, language_code(text), len(text.encode()))
    counts = sample.write(tmp_path / "sample.txt", balance=balance)
    return counts, (tmp_path / "sample.txt").read_bytes().splitlines()


def test_balance_gives_both_languages_the_same_bytes(tmp_path):
    texts = documents(1, 300) + documents(2, 20)
    balanced, _ = sampled(tmp_path, texts, 10**9, balance=True)
    assert abs(balanced[1] - balanced[2]) <= CHUNK_BYTES
    unbalanced, _ = sampled(tmp_path, texts, 10**9, balance=False)
    assert unbalanced[1] > 4 * unbalanced[2]


@pytest.mark.parametrize(
    ("english", "chinese", "vocab_size", "expected"),
    [
        (10**6, 4 * 10**6, 1000, (10**6, 10**6)),
        (4 * 10**6, 10**6, 1000, (10**6, 10**6)),
        (10**5, 4 * 10**6, 5000, (10**5, 5 * 10**5)),  # 100 bytes for each id
        (10**5, 4 * 10**5, 5000, (10**5, 4 * 10**5)),
        (4 * 10**6, 40_000, 1000, (10**5, 40_000)),  # one hundredth: the last to balance by
        (4 * 10**6, 39_999, 1000, (4 * 10**6, 39_999)),
        (35, 2_700_000, 350, (35, 2_700_000)),
        (0, 10**6, 350, (0, 10**6)),
        (10**6, 0, 350, (10**6, 0)),
        (0, 0, 350, (0, 0)),
    ],
)
def test_balancing_leaves_something_to_learn_from(english, chinese, vocab_size, expected):
    assert balanced_bytes(english, chinese, vocab_size) == expected


@pytest.mark.parametrize("foreign", ["A line of English among the Chinese.", "\u4eba\u5c71"])
def test_one_foreign_line_does_not_cut_the_other_language(tmp_path, caplog, foreign):
    texts = documents(3 - language_code(foreign), 100)
    counts, _ = sampled(tmp_path, [*texts, foreign], 10**9, balance=True)
    alone, _ = sampled(tmp_path, texts, 10**9, balance=False)
    assert sum(counts) == sum(alone) + len(foreign.encode())
    small, large = ("English", "Chinese") if foreign.isascii() else ("Chinese", "English")
    assert f"{small} has {len(foreign.encode())} bytes beside" in caplog.text
    assert f"of {large}: too little to balance by" in caplog.text


def test_text_in_other_scripts_is_not_balanced(tmp_path, caplog):
    texts = ["\u043b\u0438\u0441\u0430 " * 40] * 100
    counts, _ = sampled(tmp_path, [*texts, "one line of English"], 10**9, balance=True)
    assert counts[0] > 30_000
    assert not caplog.text


def test_the_text_that_balancing_leaves_out_is_said_where_it_is_missed(tmp_path):
    texts = ["the same few words again and again", *["\u4eba\u5c71" * 200] * 40]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts[:1] * 20 + texts[1:])
    )
    assert "--no-balance" in trains(tmp_path / "a.jsonl", tmp_path, 400)


def test_the_sample_is_bounded_and_spread_over_the_input(tmp_path):
    texts = [f"{i} " + "word " * 30 for i in range(2000)]
    counts, lines = sampled(tmp_path, texts, 40_000, balance=True)
    assert 20_000 <= counts[1] <= 20_000 + CHUNK_BYTES
    numbers = [int(line.split()[0]) for line in lines]
    assert numbers == sorted(numbers)
    assert abs(sum(numbers) / len(numbers) - 1000) < 250


def test_memory_of_the_sample_does_not_grow_with_the_input():
    sample = Sample(100_000)
    tracemalloc.start()
    for i in range(3000):
        sample.add(f"{i} " + "word " * 100, 1, 505)
        if i == 500:
            early = tracemalloc.get_traced_memory()[0]
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert late < 1.5 * early


@pytest.mark.parametrize("unit", ["word ", "x", "\u4eba", "\u4eba\u3002", "A sentence. ", "\n"])
def test_chunks_are_short_whole_characters_and_lose_nothing(unit):
    text = unit * (20_000 // len(unit))
    chunks = list(_chunks(text))
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)
    joined = "".join(chunk.decode() for chunk in chunks)
    assert joined.replace(" ", "") == text.replace(" ", "").replace("\n", "")


CHILD = """
import sys
from blankfill.text.train_tokenizer import train_tokenizer
print("start", flush=True)
train_tokenizer([sys.argv[1]], sys.argv[2], vocab_size=8000)
"""


def test_ctrl_c_ends_training_at_once_and_leaves_nothing(tmp_path):
    path = shared_path("data/corpus.small.jsonl.gz")
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(tmp_path / "tok")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".tok.*/sample.txt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) != 0
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_hostile_file_trains_or_is_refused(tmp_path):
    for path in sorted(shared_path("data/nasty").iterdir()):
        try:
            train_tokenizer([path], tmp_path / "tok", vocab_size=400, overwrite=True)
        except (ConfigError, DataError):
            continue
        assert [p.name for p in tmp_path.iterdir()] in ([], ["tok"])
