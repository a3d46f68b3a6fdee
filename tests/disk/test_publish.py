"""What is named with --out: only ours is replaced, all at once, by one process at a time."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from blankfill import atomic
from blankfill.disk import publish, renames
from blankfill.disk.json_files import Description
from blankfill.disk.new_file import NewFile
from blankfill.disk.ownership import FolderKind, foreign_in
from blankfill.disk.publish import (
    NameLock,
    NewFolder,
    emptied,
    new_folder,
    refused_by_disk,
    require_free,
    scratch_folder,
)
from blankfill.errors import OutputError

KIND = FolderKind(
    title="a thing", marker="thing.json", description=Description("format", "thing", 2, {}),
    files=("data*.bin",), folders={"inner": FolderKind(title="a part", files=("a",))},
)  # fmt: skip


def make(folder, content="1", version=1):
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "thing.json", {"format": "thing", "version": version})
    (folder / "data1.bin").write_text(content)
    (folder / "inner").mkdir(exist_ok=True)
    (folder / "inner" / "a").write_text("x")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_mark(path):
    return path.read_bytes().startswith(b"mark")


def replace(out, content="2"):
    with new_folder(out, KIND, overwrite=True) as folder:
        make(folder, content)


@pytest.fixture(params=["exchanged", "in two steps"])
def renamed(request, monkeypatch):
    """Both ways in which a folder takes the place of another."""
    if request.param == "in two steps":
        monkeypatch.setattr(renames, "_renameat2", lambda *_: None)
    elif not sys.platform.startswith("linux"):
        pytest.skip("names are exchanged on Linux")


def test_a_folder_appears_with_all_that_is_in_it(tmp_path, renamed):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert names(out) == ["a"]
    assert names(out.parent) == ["out"]


def test_an_empty_folder_is_filled(tmp_path, renamed):
    (tmp_path / "out").mkdir()
    replace(tmp_path / "out")
    assert foreign_in(tmp_path / "out", KIND) == ""


def test_a_folder_that_fails_takes_those_made_for_it_along(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "deep" / "out") as folder:  # noqa: PT012
        (folder / "a").write_text("1")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_one_of_ours_is_replaced_where_asked(tmp_path, renamed):
    make(tmp_path / "out")
    with pytest.raises(OutputError, match="--overwrite"), new_folder(tmp_path / "out", KIND):
        pass
    replace(tmp_path / "out")
    assert (tmp_path / "out" / "data1.bin").read_text() == "2"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / "notes.txt").write_text("mine"), r"holds notes\.txt"),
        (lambda f: (f / ".hidden").mkdir(), r"holds \.hidden"),
        (lambda f: (f / "inner" / "b").write_text("mine"), r"holds inner/b"),
        (lambda f: (f / "inner" / "a").unlink() or (f / "inner" / "a").mkdir(), "holds inner/a"),
        (lambda f: (f / "link").symlink_to("/"), "the link link"),
        (lambda f: (f / "thing.json").unlink(), r"has no thing\.json"),
        (lambda f: (f / "thing.json").write_text("{}"), "has no version"),
        (lambda f: (f / "thing.json").write_text('{"version": 1}'), "does not say"),
        (lambda f: (f / "thing.json").write_text('{"version": 1, "format": "app"}'), "'app'"),
        (lambda f: (f / "thing.json").write_text('{"version": 3, "format": "thing"}'), "newer"),
        (lambda f: (f / "thing.json").write_text("["), "not JSON"),
        (lambda f: (f / "thing.json").write_text(""), "is empty"),
    ],
)
def test_what_holds_anything_foreign_is_never_replaced(tmp_path, spoil, reason):
    make(tmp_path / "out")
    spoil(tmp_path / "out")
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=reason):
        replace(tmp_path / "out")
    with NameLock(tmp_path / "out") as name, pytest.raises(OutputError, match=reason):
        emptied(name, KIND)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_what_a_killed_process_left_inside_is_ours(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / ".data1.bin.123.tmp").write_text("half")
    (tmp_path / "out" / ".inner.lock").write_text("")
    assert foreign_in(tmp_path / "out", KIND) == ""
    (tmp_path / "out" / ".notes.txt.123.tmp").write_text("mine")
    assert "notes" in foreign_in(tmp_path / "out", KIND)


def test_a_folder_that_came_meanwhile_stays_and_the_work_is_kept_beside(tmp_path, renamed):
    out = tmp_path / "out"
    (tmp_path / "out-2").write_text("taken")
    with pytest.raises(OutputError, match=r"has appeared.*out-3"), new_folder(out) as folder:  # noqa: PT012
        make(folder)
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    assert names(out) == ["notes.txt"]
    assert foreign_in(tmp_path / "out-3", KIND) == ""
    assert names(tmp_path) == ["out", "out-2", "out-3"]
    replace(tmp_path / "other")  # and nothing is in the way of the next


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_file_or_link_that_came_meanwhile_stays(tmp_path, renamed, what):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="has appeared"), new_folder(out) as folder:  # noqa: PT012
        make(folder)
        out.write_text("mine") if what == "file" else out.symlink_to(tmp_path)
    assert out.read_text() == "mine" if what == "file" else out.is_symlink()


def test_what_was_put_into_ours_meanwhile_stays(tmp_path, renamed):
    out = tmp_path / "out"
    make(out)
    with (  # noqa: PT012
        pytest.raises(OutputError, match=r"holds notes\.txt.*out-2"),
        new_folder(out, KIND, overwrite=True) as folder,
    ):
        make(folder, "2")
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "data1.bin").read_text() == "1"
    assert (tmp_path / "out-2" / "data1.bin").read_text() == "2"


def test_another_of_ours_that_came_meanwhile_stays(tmp_path, renamed):
    out = tmp_path / "out"
    make(out)
    with (  # noqa: PT012
        pytest.raises(OutputError, match="replaced by another"),
        new_folder(out, KIND, overwrite=True) as folder,
    ):
        make(folder, "2")
        out.rename(tmp_path / "moved")
        make(out, "3")
    assert (out / "data1.bin").read_text() == "3"


def test_what_comes_between_the_last_look_and_the_rename_goes_back(tmp_path, renamed, monkeypatch):
    out, looked = tmp_path / "out", renames._changed
    make(out)

    def look(path, *rest):
        found = looked(path, *rest)
        if path == out:
            (out / "notes.txt").write_text("mine")
        return found

    monkeypatch.setattr(renames, "_changed", look)
    with pytest.raises(OutputError, match="notes"):
        replace(out)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "data1.bin").read_text() == "1"


def test_the_second_writer_of_a_name_is_refused_at_once(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    make(tmp_path / "out")
    with new_folder(tmp_path / "out", KIND, overwrite=True) as folder:
        for out in (tmp_path / "out", tmp_path / "link"):
            with pytest.raises(OutputError, match="another process is writing"):
                NewFolder(out, KIND, overwrite=True)
        make(folder, "2")
    require_free(tmp_path / "new")
    assert names(tmp_path) == ["link", "out"]


def test_of_many_writers_at_the_same_moment_one_goes_on(tmp_path):
    start, done = threading.Barrier(8), []

    def write(number):
        start.wait()
        try:
            folder = NewFolder(tmp_path / "out")
        except OutputError:
            return
        (folder.path / str(number)).write_text("")
        done.append(folder)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    done[0].publish()
    assert names(tmp_path) == ["out"]


def test_what_killed_writers_left_is_swept_by_the_next_of_that_name(tmp_path):
    make(tmp_path / ".out.999.tmp")
    make(tmp_path / ".out.v2.999.tmp")
    (tmp_path / ".out.lock").write_text("")
    replace(tmp_path / "out")
    assert names(tmp_path) == [".out.v2.999.tmp", "out"]


def test_one_killed_between_two_renames_has_its_old_one_put_back(tmp_path):
    make(tmp_path / ".out.999.old")
    make(tmp_path / ".out.999.tmp", "2")
    with pytest.raises(OutputError, match="exists already"):
        NewFolder(tmp_path / "out", KIND)
    assert (tmp_path / "out" / "data1.bin").read_text() == "1"
    assert names(tmp_path) == ["out"]


def test_a_link_is_written_through(tmp_path, renamed):
    make(tmp_path / "far" / "real")
    (tmp_path / "out").symlink_to(tmp_path / "far" / "real")
    replace(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "far" / "real" / "data1.bin").read_text() == "2"
    assert names(tmp_path / "far") == ["real"]


def test_places_that_cannot_be_written_are_one_sentence_before_work_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    places = [
        tmp_path / "file", tmp_path / "file" / "out", tmp_path / "dangling", tmp_path / "loop",
        tmp_path / "loop" / "out", tmp_path / ("x" * 300), type(tmp_path)("."),
        type(tmp_path)(".."), type(tmp_path)("/"), type(tmp_path)(""), tmp_path / "a" / "..",
    ]  # fmt: skip
    for out in places:
        for begin in (NewFolder, NameLock, lambda out: NewFile(out, "a text", is_mark)):
            if out.name == "file" and begin is NameLock:
                continue
            with pytest.raises(OutputError) as caught:
                begin(out)
            assert "\n" not in str(caught.value), out
            assert len(str(caught.value)) < 900
    assert names(tmp_path) == ["dangling", "file", "loop"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(publish.atomic, "flush", full)
    with pytest.raises(OutputError, match=r"out could not be written \(the disk is full\)"):
        replace(tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EMFILE, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EIO]
)
def test_what_a_disk_refuses_is_one_sentence(number):
    with pytest.raises(OutputError, match="out could not be written"), refused_by_disk("out"):
        raise OSError(number, os.strerror(number))


def test_a_scratch_folder_is_its_processs_own_and_goes(tmp_path):
    with scratch_folder(tmp_path / "run") as folder:
        folder.mkdir()
        with pytest.raises(OutputError, match="another process"):
            NameLock(tmp_path / "run")
    assert names(tmp_path) == []


def write(out, data=b"mark new"):
    with NewFile(out, "a marked text", is_mark) as file:
        file.write(data)


def test_a_file_of_ours_and_an_empty_one_are_replaced(tmp_path):
    out = tmp_path / "new" / "a"
    write(out, b"mark 1")
    write(out, b"mark 2")
    assert out.read_bytes() == b"mark 2"
    (tmp_path / "empty").write_text("")
    write(tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b"mark new"
    assert names(out.parent) == ["a"]


def test_a_file_of_another_stays_whenever_it_came(tmp_path, renamed):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(OutputError, match="not a marked text and would be lost"):
        write(tmp_path / "a")
    with NewFile(tmp_path / "b", "a marked text", is_mark) as file:
        (tmp_path / "b").write_text("mine")
        with pytest.raises(OutputError, match="has appeared"):
            file.write(b"mark new")
    write(tmp_path / "c", b"mark old")
    with NewFile(tmp_path / "c", "a marked text", is_mark) as file:
        (tmp_path / "c").write_text("mine")
        with pytest.raises(OutputError, match="stays as it is"):
            file.write(b"mark new")
    assert {(tmp_path / name).read_text() for name in "abc"} == {"mine"}
    assert names(tmp_path) == ["a", "b", "c"]


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "far").mkdir()
    write(tmp_path / "far" / "a", b"mark old")
    (tmp_path / "a").symlink_to(tmp_path / "far" / "a")
    write(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "far" / "a").read_bytes() == b"mark new"


def test_a_folder_is_no_place_for_a_file(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        write(tmp_path)


def test_pipes_and_devices_are_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"mark" * 50_000)
    reader.join()
    assert read == [b"mark" * 50_000]
    assert pipe.is_fifo()
    write(type(pipe)("/dev/null"))
    assert type(pipe)("/dev/null").is_char_device()
    assert names(tmp_path) == ["pipe"]
    with pytest.raises(OutputError, match="disk is full"):
        write(type(pipe)("/dev/full"))


def test_a_descriptor_is_written_into_and_not_replaced(tmp_path):
    with (tmp_path / "log").open("w+b") as file:
        file.write(b"before ")
        file.flush()
        write(type(tmp_path)(f"/dev/fd/{file.fileno()}"))
        assert (tmp_path / "log").stat().st_ino == os.fstat(file.fileno()).st_ino
        assert (tmp_path / "log").read_bytes() == b"before mark new"


def test_a_new_file_and_folder_follow_the_umask(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; os.umask(0o027)\n"
        "from blankfill.disk.new_file import NewFile\n"
        "from blankfill.disk.publish import new_folder\n"
        "out = Path(sys.argv[1])\n"
        "with new_folder(out / 'folder') as folder: (folder / 'a').write_text('x')\n"
        "with NewFile(out / 'file', 'a text', lambda path: True) as file: file.write(b'x')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"folder": 0o750, "a": 0o640, "file": 0o640}
