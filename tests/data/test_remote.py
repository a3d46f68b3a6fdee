"""Stores that lie elsewhere: over HTTP and in fsspec's memory, through a cache of a stated size."""

import errno
import functools
import http.server
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from blankfill.api.data import data_build, data_info, data_merge, data_show
from blankfill.api.data_export import data_export
from blankfill.api.inspect import info
from blankfill.cli.main import main
from blankfill.config.objective import ObjectiveConfig
from blankfill.data import remote
from blankfill.data.cache import FileCache
from blankfill.data.mixture import parse_stores
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.disk.address import address_of, is_address
from blankfill.errors import BlankfillError, ConfigError, DataError, OutputError
from blankfill.prepare import open_stores
from blankfill.prepare.sources import require_cache
from data.stores import write_store
from data.test_shards import everything
from data.text_files import write_lines

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An own cache, and no waiting between tries."""
    monkeypatch.setenv("BLANKFILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0)
    return tmp_path / "cache" / "objects"


@pytest.fixture
def memory(tmp_path):
    """A function that puts a folder into fsspec's memory, and gives its address."""
    system = fsspec.filesystem("memory")

    def put(folder):
        for path in folder.rglob("*"):
            if path.is_file():
                system.pipe_file(f"/{tmp_path.name}/{path.relative_to(tmp_path)}",
                                 path.read_bytes())  # fmt: skip
        return f"memory://{tmp_path.name}/{folder.relative_to(tmp_path)}"

    yield put
    system.store.clear()


@pytest.fixture
def web(tmp_path):
    """The address of a web server that gives the files of `tmp_path`."""
    pytest.importorskip("aiohttp", reason="fsspec reads HTTP with aiohttp, which is not installed")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def stored_bytes(cache):
    return sum(path.stat().st_size for path in cache.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("shard_tokens", [0, 900])
def test_a_store_on_a_web_server_is_read_as_its_folder_is(tmp_path, web, shard_tokens, cache):
    here = write_store(tmp_path / "s", 0, 20, has_pairs=True, shard_tokens=shard_tokens)
    address = f"{web}/s"
    there = TokenStore.open(Path(address), verify=True)
    assert everything(there) == everything(here)
    assert (there.address, there.fingerprint) == (address, here.fingerprint)
    # The second opening asks for the manifest, and finds every file.
    modified = {path.name: path.stat().st_ino for path in cache.iterdir()}
    assert everything(TokenStore.open(f"{address}/")) == everything(here)
    assert {path.name: path.stat().st_ino for path in cache.iterdir()} == modified


def test_rows_are_the_same_wherever_the_store_lies(tmp_path, memory, ids, monkeypatch):
    monkeypatch.setattr("blankfill.data.manifest.SHUFFLED_TOKENS", 3000)
    here = write_store(tmp_path / "s", 0, 60, shard_tokens=900)
    there = TokenStore.open(memory(tmp_path / "s"))
    sources = [
        RowSource([store], ObjectiveConfig(), ids, row_length=128, seed=1)
        for store in (here, there)
    ]
    count = sources[0].num_rows(0)
    batches = [source.rows(count - 3, 6) for source in sources]
    assert np.array_equal(batches[0].tokens, batches[1].tokens)
    assert np.array_equal(batches[0].blocks, batches[1].blocks)


def test_opening_fetches_no_shard_and_a_group_is_fetched_when_it_is_read(
    tmp_path, memory, ids, monkeypatch, cache
):
    monkeypatch.setattr("blankfill.data.manifest.SHUFFLED_TOKENS", 2000)
    monkeypatch.setattr("blankfill.data.rows.MIN_WINDOW", 4)
    monkeypatch.setattr("blankfill.data.rows.WINDOW_TOKENS", 400)
    monkeypatch.setattr(remote.RemoteFiles, "expect", lambda *_: None)
    write_store(tmp_path / "s", 0, 100, shard_tokens=900)
    store = TokenStore.open(memory(tmp_path / "s"))
    assert not cache.exists()
    RowSource([store], ObjectiveConfig(), ids, row_length=128, seed=1).rows(0, 1)
    files = sum(not path.name.startswith(".") for path in cache.iterdir())
    assert 0 < files <= 4 * store.shuffle_shards < 4 * len(store.entries) / 2


@pytest.fixture
def grouped(tmp_path, monkeypatch, ids):
    """A function that opens a store of small groups, and gives it with its rows, the shards of the
    first group, and those of the next."""
    monkeypatch.setattr("blankfill.data.manifest.SHUFFLED_TOKENS", 2000)
    monkeypatch.setattr("blankfill.data.rows.MIN_WINDOW", 4)
    monkeypatch.setattr("blankfill.data.rows.WINDOW_TOKENS", 400)
    write_store(tmp_path / "s", 0, 100, shard_tokens=900)

    def open_at(address):
        store = TokenStore.open(address)
        source = RowSource([store], ObjectiveConfig(), ids, row_length=128, seed=1)
        ((now, later),) = source._order.groups(0, 0)
        assert not set(now.tolist()) & set(later.tolist())
        return store, source, now.tolist(), later.tolist()

    return open_at


def are_here(store, shards):
    """Tell whether the files of some shards are in the cache."""
    cached = store._files._cache
    return all(
        cached.find(store.entries[k].sha256[name], size)
        for k in shards
        for name, size in store.entries[k].sizes.items()
    )


def come_soon(store, shards):
    until = time.monotonic() + 30
    while not are_here(store, shards) and time.monotonic() < until:
        time.sleep(0.01)
    return are_here(store, shards)


def test_the_next_group_comes_while_the_one_before_it_is_read(tmp_path, memory, grouped):
    store, source, now, later = grouped(memory(tmp_path / "s"))
    source.rows(0, 1)
    assert come_soon(store, later)
    assert sum(are_here(store, [k]) for k in range(len(store.entries))) == len(now + later)
    fsspec.filesystem("memory").store.clear()
    for k in later:  # nothing more is asked for
        assert len(store.shard(k).lengths_of(np.arange(1)))


def test_a_group_that_cannot_be_fetched_ahead_is_named_when_it_is_needed(tmp_path, memory, grouped):
    address = memory(tmp_path / "s")
    store, source, now, later = grouped(address)
    lost = f"/{address.partition('://')[2]}/{store.entries[later[0]].name}/tokens.bin"
    fsspec.filesystem("memory").rm(lost)
    source.rows(0, 1)
    wait_for_fetching()
    assert are_here(store, now)
    with pytest.raises(DataError, match=f"{store.entries[later[0]].name}/tokens.bin is not there"):
        source.num_rows(0)


def test_a_cache_without_room_for_two_groups_keeps_what_is_read(
    tmp_path, memory, grouped, monkeypatch
):
    address = memory(tmp_path / "s")
    store, _, now, later = grouped(address)
    needed = sum(store.entries[k].num_bytes for k in now + later)
    for room, comes in ((needed - 1, False), (needed + 1, True)):
        monkeypatch.setenv("BLANKFILL_CACHE", str(tmp_path / f"cache of {room}"))
        monkeypatch.setenv("BLANKFILL_CACHE_GB", f"{room / 1e9:.12f}")
        store, source, now, later = grouped(address)
        source.rows(0, 1)
        wait_for_fetching()
        assert are_here(store, now)
        assert are_here(store, later) == comes


def wait_for_fetching():
    for thread in threading.enumerate():
        if thread.name == "fetch ahead":
            thread.join()


def test_the_next_group_comes_from_a_web_server(web, grouped):
    store, source, _, later = grouped(f"{web}/s")
    source.rows(0, 1)
    assert come_soon(store, later)


def test_the_cache_never_holds_more_than_is_stated_and_everything_can_still_be_read(
    tmp_path, memory, monkeypatch, cache
):
    here = write_store(tmp_path / "s", 0, 40, shard_tokens=900)
    largest = max(entry.num_bytes for entry in here.entries)
    monkeypatch.setenv("BLANKFILL_CACHE_GB", str(2.5 * largest / 1e9))
    there = TokenStore.open(memory(tmp_path / "s"))
    for index in np.random.default_rng(0).integers(0, len(here), 60).tolist():
        assert there.document(index).tolist() == here.document(index).tolist()
        assert stored_bytes(cache) <= 2.5 * largest
        assert len(there._open) <= 3  # what left the cache is let go
    assert everything(there) == everything(here)
    assert stored_bytes(cache) <= 2.5 * largest


def test_a_cache_too_small_is_said_with_the_size_that_would_do(
    tmp_path, memory, monkeypatch, cache
):
    write_store(tmp_path / "s", 0, 40, shard_tokens=900)
    address = memory(tmp_path / "s")
    monkeypatch.setenv("BLANKFILL_CACHE_GB", "0.000001")
    store = TokenStore.open(address)
    with pytest.raises(OutputError, match=r"shard-00000 has .* state a larger one with BLANKFILL_"):
        store.document(0)
    with pytest.raises(ConfigError, match=r"at a time, and the cache .*BLANKFILL_CACHE_GB=0\.1"):
        require_cache(open_stores([Path(address)]))
    assert not cache.exists()
    monkeypatch.setenv("BLANKFILL_CACHE_GB", "0.1")
    require_cache(open_stores([Path(address)]))


@pytest.mark.parametrize("value", ["0", "-3", "many", "inf", "nan"])
def test_a_size_that_is_none_is_refused(memory, tmp_path, monkeypatch, value):
    write_store(tmp_path / "s", 0, 3)
    monkeypatch.setenv("BLANKFILL_CACHE_GB", value)
    with pytest.raises(ConfigError, match=f"BLANKFILL_CACHE_GB='{value}'"):
        TokenStore.open(memory(tmp_path / "s"))


def _flip(system, path):
    data = bytearray(system.cat_file(path))
    data[3] ^= 1
    system.pipe_file(path, bytes(data))


DAMAGE = {
    "SHA-256 is not the one": _flip,
    "is not there": lambda system, path: system.rm(path),
    "has 10 bytes, and the store's manifest says": lambda system, path: system.pipe_file(
        path, system.cat_file(path)[:10]
    ),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_shard_that_cannot_be_had_or_is_another_is_named(tmp_path, memory, cache, reason):
    write_store(tmp_path / "s", 0, 20, shard_tokens=900)
    address = memory(tmp_path / "s")
    path = f"/{tmp_path.name}/s/shard-00001/tokens.bin"
    DAMAGE[reason](fsspec.filesystem("memory"), path)
    store = TokenStore.open(address)
    store.document(0)
    with pytest.raises(DataError, match=reason) as caught:
        store.document(len(store) - 1) if len(store.entries) == 2 else store.document(
            store.entries[0].documents
        )
    assert "shard-00001/tokens.bin" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]  # nothing half-written


def test_a_server_that_fails_at_times_is_asked_again_and_one_that_is_gone_is_named(
    tmp_path, memory, monkeypatch
):
    here = write_store(tmp_path / "s", 0, 20, shard_tokens=900)
    system = fsspec.filesystem("memory")
    given, asked = system.get_file, []

    def at_times(remote_path, local, **options):
        asked.append(remote_path)
        if len(asked) % remote.TRIES:
            raise ConnectionResetError("reset by peer")
        return given(remote_path, local, **options)

    monkeypatch.setattr(system, "get_file", at_times)
    there = TokenStore.open(memory(tmp_path / "s"))
    assert there.document(0).tolist() == here.document(0).tolist()

    def never(*_, **__):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(system, "get_file", never)
    with pytest.raises(DataError, match=r"after 4 tries \(reset by peer\)"):
        there.document(len(there) - 1)


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only")]
)
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, memory, monkeypatch, code, words, cache):
    write_store(tmp_path / "s", 0, 5)
    store = TokenStore.open(memory(tmp_path / "s"))

    def full(_, local, **__):
        Path(local).write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fsspec.filesystem("memory"), "get_file", full)
    with pytest.raises(OutputError, match=rf"{words}.*BLANKFILL_CACHE"):
        store.document(0)
    assert not [path for path in cache.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize("at_once", [2, 6])
def test_many_share_one_cache_and_fetch_every_file_once(tmp_path, memory, monkeypatch, at_once):
    here = write_store(tmp_path / "s", 0, 20, shard_tokens=900)
    address = memory(tmp_path / "s")
    system = type(fsspec.filesystem("memory"))  # each thread has one of its own
    given, asked = system.get_file, []

    def counted(self, remote_path, local, **options):
        asked.append(remote_path)
        return given(self, remote_path, local, **options)

    monkeypatch.setattr(system, "get_file", counted)
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(lambda _: everything(TokenStore.open(address)), range(at_once)))
    assert all(one == everything(here) for one in found)
    assert len(asked) == len(set(asked)) == 4 * len(here.entries)


def test_what_a_killed_process_left_is_removed_and_what_another_fetches_is_waited_for(tmp_path):
    cache = FileCache(folder=tmp_path / "c", limit_bytes=1000)
    objects = tmp_path / "c" / "objects"
    objects.mkdir(parents=True)
    (objects / f".{'a' * 64}.900.1.part").write_bytes(b"left")
    (objects / f".{'b' * 64}.600.1.part").write_bytes(b"left")
    cache.fetch("b" * 64, 600, lambda part: ignore(part.write_bytes(b"x" * 600)), "b")
    assert [path.name for path in objects.iterdir()] == ["b" * 64]
    begun, may_end = threading.Event(), threading.Event()

    def slowly(part):
        begun.set()
        assert may_end.wait(60)
        part.write_bytes(b"y" * 600)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.fetch, "c" * 64, 600, slowly, "c")
        assert begun.wait(60)
        second = pool.submit(
            cache.fetch, "d" * 64, 500, lambda part: ignore(part.write_bytes(b"z" * 500)), "d"
        )
        assert not wait([second], timeout=0.2).done
        may_end.set()
        assert second.result(60).read_bytes() == b"z" * 500
        assert first.result(60).name == "c" * 64
    assert [path.name for path in objects.iterdir()] == ["d" * 64]


def ignore(_):
    pass


def test_a_copy_that_was_cut_is_fetched_again_and_one_that_was_changed_is_found_by_verifying(
    tmp_path, memory, cache
):
    here = write_store(tmp_path / "s", 0, 9)
    address = memory(tmp_path / "s")
    assert everything(TokenStore.open(address)) == everything(here)
    copy = cache / here.entries[0].sha256["tokens.bin"]
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-2])
    assert everything(TokenStore.open(address)) == everything(here)
    assert copy.read_bytes() == whole
    copy.write_bytes(bytes(len(whole)))
    with pytest.raises(DataError, match=rf"not the file that was written.*{cache}"):
        TokenStore.open(address, verify=True)


def test_without_fsspec_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(DataError, match=r"pip install 'blankfill\[remote\]'"):
        TokenStore.open("s3://bucket/store")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nosuch://host/store", "cannot be read"),
        ("memory://nowhere/store", "there is no token store at memory://nowhere/store"),
        ("file:///nowhere/store", "there is no token store at file:///nowhere/store"),
    ],
)
def test_an_address_of_nothing_is_refused_by_every_verb_that_reads(address, reason, capsys):
    for words in (["data", "info"], ["data", "show"], ["info"], ["data", "export"]):
        assert main([*words, address]) == 2
        said = capsys.readouterr().err
        assert reason in said
        assert "Traceback" not in said


def test_a_server_that_is_not_there_is_named(web):
    with pytest.raises(DataError, match=r"there is no token store at http.*/nothing"):
        TokenStore.open(f"{web}/nothing")
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/s/manifest.json cannot be had"):
        TokenStore.open("http://127.0.0.1:9/s")


def test_verbs_take_addresses_where_they_read_and_refuse_them_where_they_write(
    tmp_path, tokenizer_folder, memory
):
    path = write_lines(tmp_path / "t.jsonl", [f"the old fox reads {i} books" for i in range(30)])
    built = data_build([path], tokenizer=tokenizer_folder, out=tmp_path / "s", num_workers=1,
                       shard_tokens=100)  # fmt: skip
    address = memory(tmp_path / "s")
    assert data_info(address).fingerprint == built.store.fingerprint
    assert data_info(Path(address), verify=True).shards == built.store.shards > 1
    assert data_show(address, index=3).documents[0].text == "the old fox reads 3 books"
    assert info(address).facts["shards"] == built.store.shards
    for verb in (
        lambda: data_export(address),
        lambda: data_merge([tmp_path / "s", address], out=tmp_path / "all"),
        lambda: data_merge([tmp_path / "s"], out=address),
    ):
        with pytest.raises(BlankfillError, match="copy"):
            verb()
    assert not Path("memory:").exists()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("https://host/" + "x" * 5000, "https://host/" + "x" * 5000),
        ("s3://bucket/a/store", "s3://bucket/a/store"),
        (Path("s3://bucket/a/store/"), "s3://bucket/a/store"),
        ("HTTPS://host:8000/store", "https://host:8000/store"),
        ("file:///data/store", "file:///data/store"),
        ("store", None), ("a/b:c", None), ("C:/store", None), ("./s3:x", None),
    ],
)  # fmt: skip
def test_addresses_are_told_from_paths(given, address):
    assert is_address(given) == (address is not None)
    if address:
        assert address_of(given) == address
        assert address_of(Path(given)) == address


@pytest.mark.parametrize(
    ("words", "share"),
    [("http://host/s", None), ("http://host:8000/s", None), ("http://host:8000", None),
     ("http://host:8000/s:0.3", 0.3), ("s3://bucket/s:0.3", 0.3)],
)  # fmt: skip
def test_a_share_may_follow_an_address(words, share):
    stores, shares = parse_stores([Path(words), Path("other")])
    assert shares == [share, None]
    assert address_of(stores[0]) == (words.removesuffix(":0.3"))


def test_fsspec_is_loaded_for_addresses_only(tmp_path):
    write_store(tmp_path / "s", 0, 3)
    code = (
        "import sys; from blankfill.api.data import data_info; data_info(sys.argv[1]);"
        "sys.exit('fsspec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")]).returncode == 0
