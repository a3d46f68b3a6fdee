"""A part of a checkpoint is read alike from one file, several, or the rows of several writers."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from blankfill.errors import CheckpointError
from blankfill.runs.parts import list_part, load_part, load_weights, part_files, stored_types
from blankfill.runs.tensors import TensorSpec, TensorWriter, write_tensors

HEIGHT = 7


def some(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        "wide": torch.rand(HEIGHT, 5, generator=generator).to(dtype),
        "bias": torch.rand(3, generator=generator).to(dtype),
        "deep": torch.rand(HEIGHT, 2, 3, generator=generator).to(dtype),
        "number": torch.tensor(3).to(dtype),
    }


def begins_at(row, value):
    return (row, *[0] * (value.ndim - 1))


def write_shard(folder, tensors, number, cuts, part="model"):
    """Write what the writer `number`, from 0, of the rows between `cuts` has; it keeps the number
    where it is the first."""
    mine = {}
    for name, value in tensors.items():
        if value.ndim == 0:
            if number == 0:
                mine[name] = None, value
            continue
        start, stop = (min(cut, len(value)) for cut in cuts[number : number + 2])
        if start < stop:
            mine[name] = start, value[start:stop]
    specs = [
        TensorSpec(
            name=name, dtype=rows.dtype, shape=tuple(rows.shape),
            begin=None if first is None else begins_at(first, rows),
        )
        for name, (first, rows) in mine.items()
    ]  # fmt: skip
    with TensorWriter(folder, part, specs, shard=(number + 1, len(cuts) - 1)) as writer:
        for name, (_, rows) in mine.items():
            writer.write(name, rows)


def write_shards(folder, tensors, cuts, part="model"):
    for number in range(len(cuts) - 1):
        write_shard(folder, tensors, number, cuts, part)


def write_blocks(folder, tensors, cuts, columns):
    """Write what writers have that keep some columns of matrices, those between `columns`, and of
    these the rows between `cuts`; of anything else they keep rows."""
    count = (len(cuts) - 1) * (len(columns) - 1)
    for number in range(count):
        band, row = divmod(number, len(cuts) - 1)
        specs, parts = [], []
        for name, value in tensors.items():
            first = min(cuts[row], len(value)) if value.ndim else 0
            part = value[first : cuts[row + 1]] if value.ndim else value
            begin = begins_at(first, value) if value.ndim else ()
            if name == "wide":
                begin = (first, columns[band])
                part = part[:, columns[band] : columns[band + 1]]
            elif band or not (part.numel() if value.ndim else row == 0):
                continue
            specs.append(TensorSpec(name=name, dtype=part.dtype, shape=tuple(part.shape),
                                    begin=begin or None))  # fmt: skip
            parts.append(part)
        with TensorWriter(folder, "model", specs, shard=(number + 1, count)) as writer:
            for spec, part in zip(specs, parts, strict=True):
                writer.write(spec.name, part)


WAYS = {
    "one file": lambda folder, tensors: write_tensors(folder, "model", tensors),
    "files of whole tensors": lambda folder, tensors: write_tensors(
        folder, "model", tensors, max_file_bytes=64
    ),
    "one writer": lambda folder, tensors: write_shards(folder, tensors, (0, 7)),
    "rows of two": lambda folder, tensors: write_shards(folder, tensors, (0, 4, 7)),
    "rows of four, some with none": lambda folder, tensors: write_shards(
        folder, tensors, (0, 3, 6, 7, 7)
    ),
    "columns of two": lambda folder, tensors: write_blocks(folder, tensors, (0, 7), (0, 2, 5)),
    "rows and columns": lambda folder, tensors: write_blocks(
        folder, tensors, (0, 4, 7), (0, 1, 3, 5)
    ),
}
ASKED = {
    "all": None,
    "the first": (slice(0, 2),),
    "across files": (slice(2, 6),),
    "the last": (slice(6, 7),),
    "none": (slice(7, 7),),
    "columns": (slice(0, 7), slice(1, 2)),
    "columns across files": (slice(2, 6), slice(0, 2)),
    "no columns": (slice(2, 6), slice(2, 2)),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("way", WAYS)
def test_any_rows_and_columns_come_back_whatever_files_hold_them(tmp_path, way, asked):
    tensors = some()
    WAYS[way](tmp_path, tensors)
    wanted = ASKED[asked]

    def asked_of(name, shape):
        return wanted if wanted and shape[:1] == (HEIGHT,) else None

    found = load_part(tmp_path, "model", asked_of)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        part = asked_of(name, value.shape)
        assert torch.equal(found[name], value if part is None else value[part])
    listed = list_part(tmp_path)
    assert {name: one.shape for name, one in listed.items()} == {
        name: tuple(value.shape) for name, value in tensors.items()
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("way", ["one file", "rows of two", "rows and columns"])
def test_types_are_told_and_values_keep_their_bits(tmp_path, way, dtype):
    tensors = some(dtype)
    WAYS[way](tmp_path, tensors)
    assert stored_types(tmp_path) == dict.fromkeys(tensors, dtype)
    found = load_part(tmp_path, "model")
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_go_into_a_model_of_any_type(tmp_path, monkeypatch, way, held):
    monkeypatch.setattr("blankfill.runs.parts.BLOCK", 24)  # six values at a time
    model = torch.nn.Module()
    for name, value in some().items():
        model.register_parameter(name, torch.nn.Parameter(torch.zeros_like(value, dtype=held)))
    WAYS[way](tmp_path, some())
    load_weights(model, tmp_path)
    for name, value in some().items():
        assert torch.equal(model.get_parameter(name), value.to(held))


@pytest.mark.parametrize("write", [WAYS["rows of two"], WAYS["rows and columns"]])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_s_own_reader_reads_the_rows_of_several_writers(tmp_path, write):
    from torch.distributed import checkpoint as dcp

    tensors = some()
    del tensors["number"]  # of which that reader makes one with a dimension
    write(tmp_path, tensors)
    found = {name: torch.zeros_like(value) for name, value in tensors.items()}
    reader = dcp.HuggingFaceStorageReader(str(tmp_path))
    dcp.load(found, storage_reader=reader, no_dist=True)
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_a_part_of_one_process_has_the_bytes_it_always_had(tmp_path):
    write_tensors(tmp_path, "model", {"a": torch.tensor([1.0]), "b": torch.tensor(2)})
    header = (
        b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"b":{"dtype":"I64","shape":[],"data_offsets":[4,12]}}'
    )
    header += b" " * (-len(header) % 8)
    content = len(header).to_bytes(8, "little") + header + b"\0\0\x80?" + b"\2" + b"\0" * 7
    assert (tmp_path / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_missing_file_is_named(tmp_path, number):
    write_shards(tmp_path, some(), (0, 3, 6, 7))
    name = f"model-{number:05d}-of-00003.safetensors"
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}; restore it"):
        load_part(tmp_path, "model")


def test_files_of_two_checkpoints_are_not_put_together(tmp_path):
    write_shards(tmp_path, some(), (0, 3, 6, 7))
    write_shard(tmp_path, some(), 1, (0, 4, 6, 7))
    with pytest.raises(CheckpointError, match=r"00002-of-00003.*does not go on with wide.*row 3"):
        list_part(tmp_path)
    write_blocks(tmp_path, some(), (0, 7), (0, 2, 3, 5))
    other = tmp_path / "other"
    other.mkdir()
    write_blocks(other, some(), (0, 7), (0, 2, 4, 5))
    last = "model-00003-of-00003.safetensors"
    (tmp_path / last).write_bytes((other / last).read_bytes())
    with pytest.raises(CheckpointError, match=r"00003-of-00003.*go on with wide.*column 3"):
        list_part(tmp_path)
    write_shards(tmp_path, some(), (0, 4, 7))
    with pytest.raises(CheckpointError, match="holds files of two checkpoints"):
        part_files(tmp_path)


@pytest.mark.parametrize("fault", ["cut off", "a third dimension", "no JSON", "a list"])
def test_a_damaged_file_is_named(tmp_path, fault):
    write_shards(tmp_path, some(), (0, 3, 7))
    path = tmp_path / "model-00002-of-00002.safetensors"
    content = path.read_bytes()
    offsets = {
        "a third dimension": json.dumps({"deep": {"saved_offsets": [3, 0, 1]}}), "no JSON": "{",
        "a list": "[1]",
    }  # fmt: skip
    if fault == "cut off":
        path.write_bytes(content[:-4])
    else:
        from safetensors.torch import save_file

        save_file(load_file(path), path, {"DCP_SHARDING_INFO": offsets[fault]})
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.safetensors cannot be read"):
        load_part(tmp_path, "model")


def test_a_part_that_is_not_there_is_told(tmp_path):
    write_tensors(tmp_path, "model", some())
    assert part_files(tmp_path, "ema") == []
    with pytest.raises(CheckpointError, match="has no file of its ema"):
        load_part(tmp_path, "ema")


@pytest.mark.parametrize("names", [("wide",), ("wide", "bias", "deep", "number", "more")])
def test_weights_of_another_model_are_refused_before_one_is_copied(tmp_path, names):
    write_shards(tmp_path, some(), (0, 3, 7))
    model = torch.nn.Module()
    for name in names:
        model.register_parameter(name, torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(CheckpointError, match=r"in the model of its run\.json"):
        load_weights(model, tmp_path)
    assert all(not p.any() for p in model.parameters())


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's VmHWM")
def test_a_model_is_opened_without_a_second_copy_of_it(tmp_path):
    """Peak of a process that opens 24 million weights, in bytes a weight beyond an empty model."""
    tensors = {f"w{i}": torch.full((1024, 4096), float(i)) for i in range(6)}
    write_shards(tmp_path, tensors, (0, 400, 800, 1024))
    code = (
        "import re, sys, torch\n"
        "from pathlib import Path\n"
        "from blankfill.runs.parts import load_part, load_weights\n"
        "def peak():\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "model = torch.nn.Module()\n"
        "for i in range(6):\n"
        "    model.register_parameter(f'w{i}', torch.nn.Parameter(torch.ones(1024, 4096)))\n"
        "import safetensors.torch\n"
        "before = peak()\n"
        "load_weights(model, Path(sys.argv[1]))\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert int(done.stdout) * 1024 / (6 * 1024 * 4096) < 0.2
