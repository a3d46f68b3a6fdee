import errno
import json
from itertools import pairwise

import numpy as np
import pytest

from blankfill.data import shard_writer
from blankfill.data.store import TokenStore
from blankfill.data.store_writer import StoreWriter
from blankfill.errors import DataError, OutputError

DOCUMENTS = [[5, 6, 7], [499], [], list(range(100))]
LANGUAGES = [1, 2, 0, 1]


def write(path, documents=DOCUMENTS, languages=LANGUAGES, vocab_size=500, **options):
    with StoreWriter(
        path, vocab_size=vocab_size, tokenizer_fingerprint="f" * 64, **options
    ) as writer:
        for tokens, language in zip(documents, languages, strict=True):
            writer.add(np.array(tokens, np.int32), language, characters=3, num_bytes=4)
        return writer.finish({"sources": ["here"]})


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(500, "<u2"), (65_536, "<u2"), (65_537, "<u4"), (150_000, "<u4")]
)
def test_documents_come_back_in_the_width_of_the_vocabulary(tmp_path, vocab_size, dtype):
    documents = [[vocab_size - 1, 0], [1]]
    write(tmp_path / "s", documents, [1, 2], vocab_size)
    store = TokenStore.open(tmp_path / "s", verify=True)
    assert [store.document(i).tolist() for i in range(len(store))] == documents
    assert store.document(0).dtype == np.dtype(dtype)


def test_counts_lengths_and_languages_are_those_added(tmp_path):
    manifest = write(tmp_path / "s")
    store = TokenStore.open(tmp_path / "s", verify=True)
    assert store.lengths_of(np.arange(4)).tolist() == [3, 1, 0, 100]
    assert store.languages_of(np.arange(4)).tolist() == LANGUAGES
    assert (len(store), store.num_tokens) == (4, 104)
    assert store.by_language["en"] == {
        "documents": 2, "tokens": 103, "characters": 6, "bytes": 8
    }  # fmt: skip
    assert manifest == store.manifest
    assert manifest["sources"] == ["here"]


def test_a_document_is_a_view_and_not_a_copy(tmp_path):
    write(tmp_path / "s")
    store = TokenStore.open(tmp_path / "s")
    assert np.shares_memory(store.document(0), store.shard(0).tokens)
    assert not store.document(0).flags.writeable


def test_a_store_is_readable_without_us(tmp_path):
    write(tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    tokens = np.fromfile(tmp_path / "s" / "tokens.bin", manifest["dtype"])
    offsets = np.fromfile(tmp_path / "s" / "offsets.bin", "<i8")
    assert [tokens[a:b].tolist() for a, b in pairwise(offsets)] == DOCUMENTS


def test_offsets_are_right_across_the_writers_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "BUFFERED_DOCUMENTS", 3)
    documents = [[i] * (i % 4) for i in range(20)]
    write(tmp_path / "s", documents, [1] * 20)
    store = TokenStore.open(tmp_path / "s", verify=True)
    assert [store.document(i).tolist() for i in range(20)] == documents


def test_the_fingerprint_changes_with_the_content_only(tmp_path):
    first = write(tmp_path / "a")["fingerprint"]
    assert write(tmp_path / "b")["fingerprint"] == first
    assert write(tmp_path / "c", [[5]], [1])["fingerprint"] != first


def test_nothing_appears_without_finish(tmp_path):
    with StoreWriter(tmp_path / "s", vocab_size=9, tokenizer_fingerprint="f") as writer:
        writer.add(np.array([1]), 1)
    with (
        pytest.raises(ZeroDivisionError),
        StoreWriter(tmp_path / "s", vocab_size=9, tokenizer_fingerprint="f"),
    ):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_replaced_only_where_asked_and_only_when_complete(tmp_path):
    write(tmp_path / "s")
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path / "s")
    with StoreWriter(
        tmp_path / "s", vocab_size=9, tokenizer_fingerprint="f", overwrite=True
    ) as writer:
        writer.add(np.array([1]), 1)
        assert len(TokenStore.open(tmp_path / "s")) == 4
    write(tmp_path / "s", [[1]], [1], overwrite=True)
    assert len(TokenStore.open(tmp_path / "s", verify=True)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_what_is_no_store_is_never_replaced(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "precious").write_text("x")
    with pytest.raises(OutputError, match="not a token store"):
        write(tmp_path / "s", overwrite=True)
    assert (tmp_path / "s" / "precious").read_text() == "x"


@pytest.mark.parametrize("when", ["write", "flush"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, when):
    class Full:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            if name == when:
                raise OSError(errno.ENOSPC, "No space left on device")
            return getattr(self._file, name)

    writer = StoreWriter(tmp_path / "s", vocab_size=9, tokenizer_fingerprint="f")
    files = writer._shard._files
    files["tokens.bin"] = Full(files["tokens.bin"])
    last = writer.finish if when == "flush" else lambda: writer.add(np.array([1]), 1)
    with pytest.raises(OutputError, match="disk is full"):
        last()
    assert list(tmp_path.iterdir()) == []


def _cut(folder):
    data = (folder / "tokens.bin").read_bytes()
    (folder / "tokens.bin").write_bytes(data[:-1])


def _flip(folder):
    data = bytearray((folder / "tokens.bin").read_bytes())
    data[3] ^= 1
    (folder / "tokens.bin").write_bytes(data)


def _lose(folder):
    (folder / "offsets.bin").unlink()


def _shift(folder):
    offsets = np.fromfile(folder / "offsets.bin", "<i8")
    (offsets + 1).tofile(folder / "offsets.bin")


def _change_manifest(**changes):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, value in changes.items():
            if value is None:
                del manifest[name]
            else:
                manifest[name] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


DAMAGE = {
    "tokens.bin has": _cut,
    "not the file that was written": _flip,
    "offsets.bin": _lose,
    "do not span": _shift,
    "version 99": _change_manifest(version=99),
    "'dtype' is missing": _change_manifest(dtype=None),
    "'tokenizer' is missing": _change_manifest(tokenizer=None),
    "'by_language' is missing": _change_manifest(by_language=None),
    "'O'": _change_manifest(dtype="O"),
    "build the store again": _change_manifest(documents="many"),
    "'by_language' is a whole number": _change_manifest(by_language=5),
    "is not a token store": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json is damaged": lambda folder: (folder / "manifest.json").write_text("[" * 9999),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_damage_is_named(tmp_path, reason):
    write(tmp_path / "s")
    DAMAGE[reason](tmp_path / "s")
    with pytest.raises(DataError, match=reason) as caught:
        TokenStore.open(tmp_path / "s", verify=True)
    assert "\n" not in str(caught.value)


def test_a_missing_store_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(DataError, match="blankfill data build"):
        TokenStore.open(tmp_path / "nothing")


def test_sentences_come_back_across_flushes(tmp_path, monkeypatch):
    monkeypatch.setattr("blankfill.data.shard_writer.BUFFERED_DOCUMENTS", 3)
    rng = np.random.default_rng(0)
    wanted = []
    with StoreWriter(tmp_path / "s", vocab_size=100, tokenizer_fingerprint="f") as writer:
        for n in (5, 1, 13, 8, 3, 40, 7):
            ends = np.unique(np.append(rng.integers(1, n + 1, 3), n))
            writer.add(np.arange(n), 0, sentence_ends=ends)
            wanted.append(ends)
        writer.finish()
    store = TokenStore.open(tmp_path / "s", verify=True)
    for i, ends in enumerate(wanted):
        n = len(store.document(i))
        assert store.sentence_ends(i, 0, n).tolist() == ends.tolist()
        inside = [e for e in ends if 2 < e <= n - 1]
        assert store.sentence_ends(i, 2, n - 1).tolist() == inside if n > 3 else True


def test_a_store_of_version_1_is_read_without_sentences(tmp_path):
    with StoreWriter(tmp_path / "s", vocab_size=100, tokenizer_fingerprint="f") as writer:
        writer.add(np.arange(9), 0)
        writer.finish()
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    manifest["version"] = 1
    del manifest["sha256"]["sentences.bin"]
    (tmp_path / "s" / "sentences.bin").unlink()
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(manifest))
    store = TokenStore.open(tmp_path / "s", verify=True)
    assert not store.has_sentences
    assert store.document(0).tolist() == list(range(9))
