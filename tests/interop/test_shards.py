"""Files of weights: read a tensor at a time, refused when they are damaged or hold code."""

import argparse
import collections
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from blankfill.errors import ConversionError
from blankfill.interop.shards import open_shard


def some_tensors():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(12, 7, generator=generator)
    return {
        "half": base.half(), "bf": base.bfloat16(), "single": base, "rows": base[3:9],
        "turned": base.t(), "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4),
        "int8": torch.arange(-60, 60, dtype=torch.int8).view(12, 10),
    }  # fmt: skip


def assert_reads(path, expected):
    stored = open_shard(path)
    assert list(stored) == list(expected)
    for name, value in expected.items():
        read = stored[name].read()
        assert read.dtype == value.dtype
        assert torch.equal(read, value), name


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"module": collections.OrderedDict(t)}])
def test_tensors_of_torch_save_come_back_bit_for_bit(tmp_path, zipped, wrap):
    torch.save(wrap(some_tensors()), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert_reads(tmp_path / "w.pt", some_tensors())


def test_tensors_of_safetensors_come_back_bit_for_bit(tmp_path):
    tensors = {name: value.contiguous().clone() for name, value in some_tensors().items()}
    save_file(tensors, tmp_path / "w.safetensors")
    stored = open_shard(tmp_path / "w.safetensors")
    assert {n: (s.dtype, s.shape) for n, s in stored.items()} == {
        n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()
    }
    assert all(torch.equal(stored[name].read(), value) for name, value in tensors.items())


def test_what_training_leaves_beside_the_weights_is_passed_over(tmp_path):
    state = {
        "module": {"w": torch.ones(2)},
        "np_rng_state": ("MT19937", np.arange(9, dtype=np.uint32), 3, 0, 0.0),
        "args": argparse.Namespace(x=np.float64(1.0)), "names": {"a"}, "iteration": 3,
        "torch_rng_state": torch.get_rng_state(),
    }  # fmt: skip
    torch.save(state, tmp_path / "mp_rank_00_model_states.pt")
    assert_reads(tmp_path / "mp_rank_00_model_states.pt", {"w": torch.ones(2)})


class Touch:
    """A pickle that makes a file when it is loaded by an ordinary unpickler."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_its_code_never_runs(tmp_path, zipped):
    state = {"module": {"w": torch.ones(2)}, "x": Touch(tmp_path / "ran")}
    torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConversionError, match="would run code"):
        open_shard(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()
    # The same file does run its code where it is unpickled without care: the trap is real.
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.999])
def test_a_file_that_is_cut_off_is_named(tmp_path, suffix, share):
    path = tmp_path / f"w{suffix}"
    tensors = {"w": torch.arange(1000.0)}
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ConversionError, match=f"w{suffix}.*again"):
        open_shard(path)


def test_a_flipped_bit_in_a_torch_file_is_found_when_the_tensor_is_read(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(500.0).tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConversionError, match=r"w\.pt is damaged: the tensor w "):
        open_shard(path)["w"].read()


def test_a_tensor_that_stands_twice_in_a_header_is_named(tmp_path):
    entry = '"w":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    text = ("{" + entry % (0, 1) + "," + entry % (1, 2) + "}").encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"ab")
    with pytest.raises(ConversionError, match="w"):
        open_shard(path)


def test_a_file_of_neither_kind_and_no_file_are_named(tmp_path):
    (tmp_path / "w.bin").write_text("hello, this is text")
    with pytest.raises(ConversionError, match=r"w\.bin is no file of"):
        open_shard(tmp_path / "w.bin")
    with pytest.raises(ConversionError, match="is missing"):
        open_shard(tmp_path / "nothing.bin")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ConversionError, match="holds a list"):
        open_shard(tmp_path / "list.pt")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's VmHWM")
def test_reading_a_tensor_never_maps_the_rest_of_its_file(tmp_path):
    torch.save({str(i): torch.full((24, 1024, 256), float(i)) for i in range(4)}, tmp_path / "w.pt")
    code = (
        "import re, sys, torch\n"
        "from pathlib import Path\n"
        "from blankfill.interop.shards import open_shard\n"
        "def peak():\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "for stored in open_shard(Path(sys.argv[1])).values():\n"
        "    stored.read().sum()\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "w.pt")], check=True,
                          capture_output=True, text=True)  # fmt: skip
    # Four tensors of 24 MiB in the file: one is held at a time, two while one replaces another.
    assert int(done.stdout) * 1024 < 2.5 * 24 * 1024 * 1024
