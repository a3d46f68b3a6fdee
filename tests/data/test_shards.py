"""Stores that are cut into shards: written, read, joined and checked like any other."""

import json
import shutil

import numpy as np
import pytest

from blankfill.api.data import (
    data_build,
    data_import,
    data_info,
    data_merge,
    data_show,
)
from blankfill.api.data_export import data_export
from blankfill.api.inspect import info
from blankfill.data import store as store_module
from blankfill.data.store import TokenStore
from blankfill.errors import DataError, OutputError
from data.stores import write_store
from data.text_files import write_lines


def everything(store):
    """All that a store says of its documents, in their order."""
    every = np.arange(len(store))
    lengths = store.lengths_of(every)
    return {
        "tokens": store.read(every, 0 * lengths, lengths).tolist(),
        "lengths": lengths.tolist(),
        "languages": store.languages_of(every).tolist(),
        "prompts": store.prompts_of(every).tolist(),
        "ends": [store.sentence_ends(i, 0, int(n)).tolist() for i, n in enumerate(lengths)],
        "by_language": store.by_language,
        "counts": (len(store), store.num_tokens, store.num_pairs),
    }


@pytest.mark.parametrize("shard_tokens", [1, 1000, 10**6])
@pytest.mark.parametrize("has_pairs", [False, True])
def test_a_store_of_shards_holds_what_the_store_without_holds(tmp_path, shard_tokens, has_pairs):
    count = 6 if shard_tokens == 1 else 20
    plain = write_store(tmp_path / "plain", 0, count, has_pairs=has_pairs)
    cut = write_store(tmp_path / "cut", 0, count, has_pairs=has_pairs, shard_tokens=shard_tokens)
    assert everything(cut) == everything(plain)
    assert TokenStore.open(tmp_path / "cut", verify=True).fingerprint == cut.fingerprint
    assert all(e.tokens <= shard_tokens or e.documents == 1 for e in cut.entries)
    assert (len(cut.entries) == 1) == (shard_tokens == 10**6)
    for k, entry in enumerate(cut.entries):  # each can be read alone
        alone = TokenStore.open(tmp_path / "cut" / entry.name, verify=True)
        assert len(alone) == entry.documents
        assert alone.document(0).tolist() == cut.shard(k).document(0).tolist()


def test_parts_of_documents_come_in_the_order_in_which_they_are_asked_for(tmp_path):
    plain = write_store(tmp_path / "plain", 0, 40)
    cut = write_store(tmp_path / "cut", 0, 40, shard_tokens=500)
    asked = np.random.default_rng(1).integers(0, 40, 300)
    lengths = plain.lengths_of(asked)
    starts, ends = lengths // 3, lengths - lengths // 4
    assert cut.read(asked, starts, ends).tolist() == plain.read(asked, starts, ends).tolist()
    assert cut.languages_of(asked).tolist() == plain.languages_of(asked).tolist()
    assert len(cut.read(asked[:0], starts[:0], ends[:0])) == 0
    for code in range(3):
        assert cut.documents_in(code).tolist() == plain.documents_in(code).tolist()


def test_few_shards_stay_open_and_all_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "KEPT_SHARDS", 2)
    plain = write_store(tmp_path / "plain", 0, 30)
    cut = write_store(tmp_path / "cut", 0, 30, shard_tokens=300)
    assert everything(cut) == everything(plain)
    assert len(cut._open) == 2


def test_opening_maps_no_shard(tmp_path):
    write_store(tmp_path / "s", 0, 30, shard_tokens=300)
    assert not TokenStore.open(tmp_path / "s")._open


@pytest.mark.parametrize("hold_out", [0.0, 0.3])
def test_verbs_take_shards(tmp_path, tokenizer_folder, hold_out):
    texts = [f"the old fox reads {i} books beside the river" for i in range(60)]
    path = write_lines(tmp_path / "t.jsonl", texts)
    built = data_build(
        [path], tokenizer=tokenizer_folder, out=tmp_path / "s", shard_tokens=200, num_workers=1,
        hold_out=hold_out,
    )  # fmt: skip
    assert built.store.shards > 2
    assert (built.held_out.shards if built.held_out else 1) > 0
    assert data_info(tmp_path / "s", verify=True) == built.store
    assert info(tmp_path / "s").facts["shards"] == built.store.shards
    last = built.store.documents - 1
    assert data_show(tmp_path / "s", index=last).documents[0].text in texts
    exported = data_export(tmp_path / "s")
    assert len(exported.prefixes) == built.store.shards
    again = data_import(exported.prefixes[1], tokenizer=tokenizer_folder, out=tmp_path / "again",
                        shard_tokens=50)  # fmt: skip
    assert again.store.shards > 1
    entry = TokenStore.open(tmp_path / "s").entries[1]
    assert again.store.documents == entry.documents
    data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "s", overwrite=True,
               num_workers=1)  # fmt: skip
    assert data_info(tmp_path / "s").shards == 0


def test_stores_are_joined_without_a_token_changing_and_without_taking_their_place(tmp_path):
    parts = [
        write_store(tmp_path / "a", 0, 20),
        write_store(tmp_path / "b", 1, 30, has_pairs=True, shard_tokens=900),
        write_store(tmp_path / "c", 2, 5),
    ]
    before = [everything(part) for part in parts]
    result = data_merge([tmp_path / name for name in "abc"], out=tmp_path / "all")
    joined = TokenStore.open(tmp_path / "all", verify=True)
    assert result.shards == sum(len(part.entries) for part in parts)
    found = everything(joined)
    for name in ("lengths", "languages", "prompts", "ends", "tokens"):
        assert found[name] == [one for part in before for one in part[name]]
    for count in ("documents", "tokens", "characters", "bytes"):
        assert sum(c[count] for c in joined.by_language.values()) == sum(
            c[count] for part in parts for c in part.by_language.values()
        )
    for name, expected in zip("abc", before, strict=True):
        assert everything(TokenStore.open(tmp_path / name, verify=True)) == expected
        shutil.rmtree(tmp_path / name)
    assert everything(TokenStore.open(tmp_path / "all", verify=True)) == found


def test_a_store_may_take_the_place_of_one_that_it_is_joined_of(tmp_path):
    write_store(tmp_path / "a", 0, 20, shard_tokens=900)
    write_store(tmp_path / "b", 1, 20)
    with pytest.raises(OutputError, match="exists"):
        data_merge([tmp_path / "a", tmp_path / "b"], out=tmp_path / "a")
    data_merge([tmp_path / "a", tmp_path / "b"], out=tmp_path / "a", overwrite=True)
    assert len(TokenStore.open(tmp_path / "a", verify=True)) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_does_not_go_together_is_not_joined(tmp_path):
    write_store(tmp_path / "a", 0, 5)
    write_store(tmp_path / "other", 0, 5, tokenizer_fingerprint="e" * 64)
    write_store(tmp_path / "old", 3, 5)
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))
    shutil.copytree(tmp_path / "a", tmp_path / "twin")
    for name, reason in {
        "other": "another tokenizer", "old": "build it again", "twin": "name it once",
        "missing": "no token store",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=reason) as caught:
            data_merge([tmp_path / "a", tmp_path / name], out=tmp_path / "all")
        assert name in str(caught.value)
        assert not (tmp_path / "all").exists()


def _manifest(**changes):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest.update(changes)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


def _shards(change):
    def apply(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest["shards"])
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return apply


def _cut(folder):
    path = folder / "shard-00001" / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])


AT_OPENING = {
    r"shard-00001/tokens.bin has .* bytes, the manifest says": _cut,
    "shard-00002/offsets.bin": lambda folder: (folder / "shard-00002" / "offsets.bin").unlink(),
    r"it says 7 documents, its shards 30": _manifest(documents=7),
    r"shards\[1\]\.tokens' is missing": _shards(lambda shards: shards[1].pop("tokens")),
    "'shards' is a text": _manifest(shards="many"),
    "names a shard twice, or none": _manifest(shards=[]),
    r"named '\.\./x'": _shards(lambda shards: shards[0].update(name="../x")),
    "names a shard twice": _shards(lambda shards: shards[0].update(name=shards[1]["name"])),
    "'shuffle_shards' is below 1": _manifest(shuffle_shards=0),
    "newer than this blankfill": _manifest(version=5),
}


@pytest.mark.parametrize("reason", AT_OPENING)
def test_damage_that_sizes_and_the_manifest_tell_is_named_at_opening(tmp_path, reason):
    write_store(tmp_path / "s", 0, 30, shard_tokens=900)
    AT_OPENING[reason](tmp_path / "s")
    with pytest.raises(DataError, match=reason) as caught:
        TokenStore.open(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_other_damage_is_named_with_its_shard_by_verifying_or_where_it_is_met(tmp_path):
    store = write_store(tmp_path / "s", 0, 30, shard_tokens=900)
    path = tmp_path / "s" / "shard-00002" / "offsets.bin"
    offsets = np.fromfile(path, "<i8")
    (offsets + 1).tofile(path)
    opened = TokenStore.open(tmp_path / "s")
    assert opened.document(0).tolist() == store.document(0).tolist()
    wrong = int(sum(entry.documents for entry in store.entries[:2]))
    with pytest.raises(DataError, match="shard-00002 is damaged"):
        opened.document(wrong)
    with pytest.raises(DataError, match="shard-00002 is damaged"):
        TokenStore.open(tmp_path / "s", verify=True)
    (tmp_path / "t").mkdir()
    flipped = write_store(tmp_path / "t", 0, 30, shard_tokens=900, overwrite=True)
    tokens = tmp_path / "t" / "shard-00001" / "tokens.bin"
    data = bytearray(tokens.read_bytes())
    data[4] ^= 1
    tokens.write_bytes(data)
    assert len(TokenStore.open(tmp_path / "t")) == len(flipped)
    with pytest.raises(DataError, match=r"shard-00001 is damaged .*not the file that was written"):
        TokenStore.open(tmp_path / "t", verify=True)
