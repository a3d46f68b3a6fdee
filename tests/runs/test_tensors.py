import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from blankfill.errors import CheckpointError
from blankfill.runs.parts import part_files
from blankfill.runs.tensors import (
    BLOCK,
    SavedFile,
    TensorSpec,
    TensorWriter,
    load_tensors,
    write_tensors,
)

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def some(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        "b": (torch.rand(7, 5, generator=generator) * 3).to(dtype),
        "a": (torch.rand(4, 6, generator=generator) * 3).to(dtype).T,  # not contiguous
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 3).to(dtype),
    }


def as_it_is(path):
    data = path.read_bytes()
    return SavedFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("dtype", DTYPES)
def test_written_tensors_are_what_the_safetensors_library_reads(tmp_path, dtype):
    tensors = some(dtype)
    written = write_tensors(tmp_path, "model", tensors)
    path = tmp_path / "model.safetensors"
    for loaded in (load_file(path), load_tensors(path)):
        assert loaded.keys() == tensors.keys()
        assert all(loaded[name].dtype == dtype for name in tensors)
        assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    assert written.files == {"model.safetensors": as_it_is(path)}


def test_a_part_without_tensors_is_a_file_without_tensors(tmp_path):
    write_tensors(tmp_path, "optimizer", {})
    assert load_tensors(tmp_path / "optimizer.safetensors") == {}


@pytest.mark.parametrize("held", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_of_several_blocks_is_converted_and_hashed_as_it_is_on_disk(
    tmp_path, held, stored
):
    count = BLOCK // stored.itemsize * 2 + 3
    value = torch.randn(count, generator=torch.Generator().manual_seed(1)).to(held)
    digest = hashlib.sha256()
    spec = TensorSpec(name="w", dtype=stored, shape=(count,))
    with TensorWriter(tmp_path, "model", [spec]) as writer:
        writer.write("w", value, digest)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    assert writer.files == {"model.safetensors": as_it_is(path)}
    assert digest.hexdigest() == hashlib.sha256(data[-spec.num_bytes :]).hexdigest()
    assert torch.equal(load_file(path)["w"], value.to(stored))
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["w"]["data_offsets"] == [0, spec.num_bytes]


def test_a_part_is_cut_into_files_of_at_most_so_many_bytes(tmp_path):
    tensors = {
        name: torch.full((size,), 1.0) for name, size in zip("abcde", (2, 2, 9, 1, 3), strict=True)
    }
    written = write_tensors(tmp_path, "ema", tensors, max_file_bytes=16)
    names = [f"ema-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    assert list(written.files) == names == [path.name for path in part_files(tmp_path, "ema")]
    assert written.places == dict(zip("abcde", (names[i] for i in (0, 0, 1, 2, 2)), strict=True))
    assert written.files == {name: as_it_is(tmp_path / name) for name in names}
    for name, value in tensors.items():
        assert torch.equal(load_file(tmp_path / written.places[name])[name], value)
    assert part_files(tmp_path, "model") == []


@pytest.mark.parametrize("content", [None, b"", b"short", b"\xff" * 64, b"\0" * 64])
def test_a_file_that_is_damaged_or_gone_is_one_sentence(tmp_path, content):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_tensors(path)


def test_a_full_disk_is_told_and_leaves_no_open_file(tmp_path):
    writer = TensorWriter(tmp_path, "model", [TensorSpec(name="w", dtype=torch.int8, shape=(2,))])
    with pytest.raises(OSError, match="full"), writer:
        raise OSError(28, "the disk is full")
    assert writer.files == {}
    assert writer._file.closed
