"""Megatron's indexed datasets, out and in, byte for byte.

The reader and the writer here follow Megatron-LM's file by its description alone, with `struct`.
"""

import json
import struct

import numpy as np
import pytest

from blankfill.api.data import data_build, data_import, data_info, data_show
from blankfill.api.data_export import data_export
from blankfill.cli.main import main
from blankfill.data.store import TokenStore
from blankfill.errors import DataError, OutputError
from blankfill.text.tokenizer import Tokenizer
from conftest import small_corpus

TYPES = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}


def read_pair(prefix):
    """Read every document as Megatron does: by the index alone."""
    index = prefix.with_name(prefix.name + ".idx").read_bytes()
    data = prefix.with_name(prefix.name + ".bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, n, m = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    place = 9 + 8 + 1 + 8 + 8
    lengths = struct.unpack_from(f"<{n}i", index, place)
    pointers = struct.unpack_from(f"<{n}q", index, place + 4 * n)
    documents = struct.unpack_from(f"<{m}q", index, place + 12 * n)
    assert len(index) == place + 12 * n + 8 * m
    sequences = [
        list(struct.unpack_from(f"<{length}{TYPES[code]}", data, pointer))
        for length, pointer in zip(lengths, pointers, strict=True)
    ]
    assert pointers == tuple(np.cumsum([0, *lengths])[:-1] * struct.calcsize(TYPES[code]))
    return code, sequences, documents


def write_pair(prefix, documents, code, *, end=(), modes=False):
    """Write documents of one or more sequences as Megatron's builder does."""
    sequences = [sequence for document in documents for sequence in document]
    data, pointers = b"", []
    for sequence in sequences:
        pointers.append(len(data))
        data += struct.pack(f"<{len(sequence)}{TYPES[code]}", *sequence)
    starts = np.cumsum([0, *map(len, documents)])
    prefix.with_name(prefix.name + ".bin").write_bytes(data)
    prefix.with_name(prefix.name + ".idx").write_bytes(
        b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sequences), len(starts))
        + struct.pack(f"<{len(sequences)}i", *map(len, sequences))
        + struct.pack(f"<{len(sequences)}q", *pointers)
        + struct.pack(f"<{len(starts)}q", *starts)
        + bytes(len(sequences)) * modes
    )  # fmt: skip


@pytest.fixture
def store(tmp_path, tokenizer_folder):
    lines = [json.dumps({"text": text}) + "\n" for text in small_corpus(50)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    data_build([tmp_path / "a.jsonl"], tokenizer=tokenizer_folder, out=tmp_path / "store")
    return tmp_path / "store"


def test_megatron_reads_the_ids_of_a_store_where_they_lie(store):
    before = (store / "tokens.bin").read_bytes()
    result = data_export(store)
    assert result.prefix == str(store / "tokens")
    code, sequences, documents = read_pair(store / "tokens")
    opened = TokenStore.open(store, verify=True)
    assert code == 8
    assert sequences == [opened.document(i).tolist() for i in range(len(opened))]
    assert documents == tuple(range(len(opened) + 1))
    assert (store / "tokens.bin").read_bytes() == before
    assert result.end_token == Tokenizer.load(store / "tokenizer").ids.eos


def test_an_index_is_part_of_a_store_which_may_be_replaced(store, tokenizer_folder):
    data_export(store)
    data_export(store)
    data_build([store.parent / "a.jsonl"], tokenizer=tokenizer_folder, out=store, overwrite=True)
    assert not (store / "tokens.idx").exists()


def test_ids_of_four_bytes_are_int32(tmp_path):
    from blankfill.data.store_writer import StoreWriter

    with StoreWriter(tmp_path / "s", vocab_size=150_000, tokenizer_fingerprint="f") as writer:
        for ids in ([149_999, 0, 65_536], [7]):
            writer.add(np.array(ids), 0)
        writer.finish()
    assert data_export(tmp_path / "s").end_token is None
    assert read_pair(tmp_path / "s" / "tokens")[:2] == (4, [[149_999, 0, 65_536], [7]])


def test_a_store_comes_back_from_its_pair(store, tokenizer_folder):
    data_export(store)
    data_import(store / "tokens", tokenizer=tokenizer_folder, out=store.parent / "back")
    first, second = data_info(store), data_info(store.parent / "back", verify=True)
    assert first.fingerprint == second.fingerprint
    assert first.languages == second.languages


@pytest.mark.parametrize("code", [3, 4, 5, 8])
@pytest.mark.parametrize("suffix", ["", ".bin", ".idx"])
def test_documents_of_several_sequences_are_joined_and_their_end_is_taken_off(
    tmp_path, tokenizer_folder, code, suffix
):
    tokenizer = Tokenizer.load(tokenizer_folder)
    texts = small_corpus(12)
    documents = []
    for i, text in enumerate(texts):
        ids = tokenizer.encode(text).tolist()
        cut = len(ids) // 2
        documents.append([ids[:cut], [*ids[cut:], tokenizer.ids.eos]] if i % 2 else [ids])
    write_pair(tmp_path / "p.1", documents, code, modes=code == 5)
    # A name with a dot is not a suffix.
    result = data_import(
        tmp_path / f"p.1{suffix}", tokenizer=tokenizer_folder, out=tmp_path / "s", strict=True
    )
    shown = data_show(tmp_path / "s", count=99).documents
    assert [document.text for document in shown] == texts
    assert result.reading.kinds["Megatron"].kept == 12


def test_documents_that_are_no_text_are_counted(tmp_path, tokenizer_folder):
    tokenizer = Tokenizer.load(tokenizer_folder)
    ids = tokenizer.encode("the fox and the dog").tolist()
    eos, mask = tokenizer.ids.eos, tokenizer.ids.mask
    lone = tokenizer.encode("\u9f98").tolist()[:1]  # one byte of three, or the whole character
    documents = [[[*ids, eos]], [[]], [[eos]], [[*ids, mask, *ids]], [[*ids, eos, *ids, eos]],
                 [lone], [], [ids]]  # fmt: skip
    write_pair(tmp_path / "p", documents, 8)
    result = data_import(tmp_path / "p", tokenizer=tokenizer_folder, out=tmp_path / "s")
    assert [d.text for d in data_show(tmp_path / "s", count=9).documents if "fox" in d.text] == [
        "the fox and the dog"
    ] * 2
    dropped = result.reading.kinds["Megatron"].dropped
    assert (dropped["empty"], dropped["special tokens in a document"]) == (3, 2)
    assert result.num_skipped + result.store.documents == 8
    with pytest.raises(DataError, match="p:2: empty"):
        data_import(tmp_path / "p", tokenizer=tokenizer_folder, out=tmp_path / "t", strict=True)
    other = data_import(
        tmp_path / "p", tokenizer=tokenizer_folder, out=tmp_path / "u", end_token=ids[-1]
    )
    assert other.store.documents < result.store.documents + 1


def test_a_share_is_held_out_as_in_a_build(store, tokenizer_folder):
    data_export(store)
    built = data_build([store.parent / "a.jsonl"], tokenizer=tokenizer_folder,
                       out=store.parent / "b", hold_out=0.2)  # fmt: skip
    taken = data_import(store / "tokens", tokenizer=tokenizer_folder, out=store.parent / "i",
                        hold_out=0.2)  # fmt: skip
    assert built.held_out is not None
    assert taken.held_out is not None
    assert built.held_out.fingerprint == taken.held_out.fingerprint
    assert built.store.fingerprint == taken.store.fingerprint


def damaged(index, data):
    head = struct.pack("<QBQQ", 1, 8, 1, 2)
    yield b"", data, "not an index"
    yield b"MMIDIDX", data, "not an index"
    yield b"x" + index[1:], data, "not an index"
    yield index[:-1], data, "bytes"
    yield index + b"\0\0\0", data, "bytes"
    yield index[:9] + struct.pack("<Q", 2) + index[17:], data, "version is 2"
    yield index[:17] + b"\x07" + index[18:], data, "type of an id is 7"
    yield index[:18] + struct.pack("<Q", 2**62) + index[26:], data, "bytes"
    yield index, data[:-2], "cut off"
    body = index[34:]
    yield b"MMIDIDX\0\0" + head + struct.pack("<iqqq", -1, 0, 0, 1), data, "where none can be"
    yield b"MMIDIDX\0\0" + head + struct.pack("<iqqq", 1, 1, 0, 1), data, "where none can be"
    yield b"MMIDIDX\0\0" + head + struct.pack("<iqqq", 1, 0, 1, 0), data, "not made of"
    yield index[:34] + body[:-8] + struct.pack("<q", 99), data, "not made of"
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", data, "Git LFS"


def test_a_damaged_pair_is_one_sentence_and_nothing_is_written(tmp_path, tokenizer_folder, capsys):
    write_pair(tmp_path / "p", [[[300, 301]], [[302]]], 8)
    index, data = ((tmp_path / f"p.{end}").read_bytes() for end in ("idx", "bin"))
    words = ["data", "import", str(tmp_path / "p"), "--tokenizer", str(tokenizer_folder)]
    words += ["--out", str(tmp_path / "s")]
    for new_index, new_data, said in damaged(index, data):
        (tmp_path / "p.idx").write_bytes(new_index)
        (tmp_path / "p.bin").write_bytes(new_data)
        assert main(words) == 2, said
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
        assert sorted(path.name for path in tmp_path.iterdir()) == ["p.bin", "p.idx"]
    (tmp_path / "p.idx").write_bytes(index)
    (tmp_path / "p.bin").unlink()
    assert main(words) == 2
    assert "p.bin" in capsys.readouterr().err


def test_ids_of_another_tokenizer_are_refused(tmp_path, tokenizer_folder):
    for code, ids in ((4, [300, 60_000]), (5, [2**40]), (4, [-1, 300])):
        write_pair(tmp_path / "p", [[[300]], [ids]], code)
        with pytest.raises(DataError, match=r"document 2 of .* holds the id"):
            data_import(tmp_path / "p", tokenizer=tokenizer_folder, out=tmp_path / "s")
    write_pair(tmp_path / "p", [], 4)
    with pytest.raises(DataError, match="no document in"):
        data_import(tmp_path / "p", tokenizer=tokenizer_folder, out=tmp_path / "s")
    with pytest.raises(DataError, match="end_token=512"):
        data_import(tmp_path / "p", tokenizer=tokenizer_folder, out=tmp_path / "s", end_token=512)
    assert not (tmp_path / "s").exists()


def test_what_is_not_ours_is_not_replaced(store, tokenizer_folder):
    data_export(store)
    (store.parent / "mine").mkdir()
    (store.parent / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        data_import(store / "tokens", tokenizer=tokenizer_folder, out=store.parent / "mine",
                    overwrite=True)  # fmt: skip
    with pytest.raises(DataError, match="not a token store"):
        data_export(store.parent / "mine")
    assert [path.name for path in (store.parent / "mine").iterdir()] == ["notes.txt"]
