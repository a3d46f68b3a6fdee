"""Stores and a small run, for the tests of what goes on and what begins like another."""

import shutil

import pytest
import torch

from blankfill import api
from blankfill.cli.main import main
from conftest import small_corpus

SIZES = {
    "model.hidden-size": 16, "model.num-layers": 1, "model.num-heads": 2, "model.ffn-size": 16,
    "train.row-length": 64, "train.batch-rows": 2, "train.micro-batch-rows": 2, "train.steps": 3,
    "validation.blanks": 0, "train.threads": 1, "train.embedding-init": "random",
    "train.log-every": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("stores")
    for name, seed in (("a", 0), ("b", 1)):
        text = "\n\n".join(small_corpus(40, seed))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        api.data_build(folder / f"{name}.txt", tokenizer=tokenizer_folder, out=folder / name)
    return folder


@pytest.fixture
def here(stores, tmp_path, monkeypatch):
    """A folder of its own with the stores `a` and `b`, in which commands are typed."""
    for name in ("a", "b"):
        shutil.copytree(stores / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(before)


def begin(*options, sizes=SIZES, preset="tiny"):
    words = ["pretrain", *([preset] if preset else []), *options]
    for name, value in sizes.items():
        words += [] if f"--{name}" in options else [f"--{name}", value]
    return main([str(word) for word in words])
