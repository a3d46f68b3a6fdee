"""A checkpoint of several processes: files of each, one commit, and any number goes on from it."""

import shutil
from math import prod

import numpy as np
import pytest

from blankfill.api.data import data_build
from blankfill.cli.main import main
from blankfill.runs import list_checkpoints, newest_checkpoint
from blankfill.runs.parts import load_part
from conftest import small_corpus
from parallel.crew import RankFailedError
from parallel.saving import (
    die_in_a_save,
    load_alone,
    meet_a_full_disk,
    pass_on,
    save_on_ranks,
    train_beside_a_save,
)
from parallel.twins import CFG, build_on_ranks, laid_out, meet

CHANGES = {"optimizer.kind": "muon", "checkpoint.in_background": True}
TENSOR = {**CHANGES, "model.num_heads": 4, "model.vocab_size": 204}
"""What 2 and 4 processes can compute together."""


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for part, tensors in expected.items():
        assert found[part].keys() == tensors.keys() != set()
        for name, value in tensors.items():
            np.testing.assert_array_equal(found[part][name], value, err_msg=name)


def hand_on(crew, run, layouts, changes=CHANGES):
    """Save on the first layout, let each other one go on from it and save again, and let one
    process read the last."""
    first, *others = layouts
    stored, place = crew.run(save_on_ranks, laid_out(first).num_processes, changes, first, run, 3)[
        0
    ]
    assert place["row"] == 3 * CFG.changed(changes).train.batch_rows
    assert len(place["guard"].losses) == 3
    for layout in others:
        count = laid_out(layout).num_processes
        found = crew.run(pass_on, count, changes, layout, run)
        assert [one[1] for one in found] == [place] * count
        assert_same(found[0][0], stored)
        assert len(list((run / "checkpoints" / "step-00000003").glob("ema*"))) == count
    tensors, found = load_alone(changes, run)
    assert found == place
    assert_same(tensors, stored)
    folder = newest_checkpoint(run).path
    for part, expected in stored.items():
        on_disk = load_part(folder, part)
        assert on_disk.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(on_disk[name].numpy(), value, err_msg=name)


def test_four_hand_on_to_three_two_and_back_with_the_same_bits_and_the_same_rows(crew, tmp_path):
    hand_on(crew, tmp_path / "run", [(2, 2), (1, 3), (2, 1), (1, 4)])


def test_processes_that_compute_together_hand_on_to_others_and_back(crew, tmp_path):
    layouts = [(1, 2, 2), (1, 3), (1, 1, 2), (2, 1), (2, 1, 2), (1, 1, 4)]
    hand_on(crew, tmp_path / "run", layouts, TENSOR)


@pytest.mark.slow
def test_eight_hand_on_to_four_three_two_one_and_back(large_crew, tmp_path):
    layouts = [(1, 8), (2, 2), (3, 1), (1, 2), (1, 1), (2, 4)]
    hand_on(large_crew, tmp_path / "run", layouts)
    layouts = [(2, 2, 2), (1, 8), (1, 2, 4), (3, 1), (1, 1), (1, 4, 2)]
    hand_on(large_crew, tmp_path / "tensor", layouts, TENSOR)


def test_each_rank_writes_its_share_and_copies_write_it_once(crew, tmp_path):
    stored, _ = crew.run(save_on_ranks, 4, CHANGES, (2, 2), tmp_path / "run", 1)[0]
    folder = newest_checkpoint(tmp_path / "run").path
    names = {path.name for path in folder.iterdir()}
    files = {
        f"{part}-{number:05d}-of-00004.safetensors"
        for part in ("model", "optimizer", "ema")
        for number in (1, 2, 3, 4)
    }
    assert names == {*files, "state.json"}
    sizes = [path.stat().st_size for path in sorted(folder.glob("optimizer-*"))]
    content = sum(value.nbytes for value in stored["optimizer"].values())
    headers = sum(int.from_bytes(p.read_bytes()[:8], "little") + 8
                  for p in folder.glob("optimizer-*"))  # fmt: skip
    assert sum(sizes) == content + headers
    assert max(sizes) < 0.6 * sum(sizes)


def test_training_goes_on_while_shards_are_written_and_the_next_save_waits(crew, tmp_path):
    run = tmp_path / "run"
    stored, steps, seen = crew.run(train_beside_a_save, 2, (1, 2), run)[0]
    assert steps == 4  # two of them while the shards of step 2 were not yet written
    assert seen == [[], ["step-00000002"]]
    assert [path.name for path in list_checkpoints(run)] == ["step-00000002", "step-00000004"]
    folder = run / "checkpoints" / "step-00000002"
    for part, expected in stored.items():
        for name, value in load_part(folder, part).items():
            np.testing.assert_array_equal(value.numpy(), expected[name], err_msg=name)


@pytest.mark.parametrize("on_error", ["stop", "go_on"])
def test_a_full_disk_of_one_rank_is_every_rank_s_one_sentence(crew, tmp_path, on_error):
    run = tmp_path / "run"
    found = crew.run(meet_a_full_disk, 3, (1, 3), run, on_error)
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    if on_error == "go_on":
        assert found == [(True, CFG.train.steps)] * 3
        assert kept == [f"step-{step:08d}" for step in (2, 6, 8, 10)]
        return
    assert len(set(found)) == 1
    assert "of step 4 could not be written" in found[0]
    assert "by process 1 of 3 (the disk is full)" in found[0]
    assert "; step-00000002 is untouched: make room" in found[0]
    assert kept == ["step-00000002"]


def test_what_a_rank_meets_in_a_save_is_told_by_its_name(crew, tmp_path):
    short = crew.run(meet_a_full_disk, 3, (1, 3), tmp_path / "a", "stop", MemoryError("no 8 GB"))
    assert len(set(short)) == 1
    assert "of step 4 could not be written by process 1 of 3: there is not enough" in short[0]
    bug = crew.run(meet_a_full_disk, 3, (1, 3), tmp_path / "b", "stop", ValueError("a bug"))
    assert bug[1] == "ValueError('a bug')"  # which that process says, with its traceback
    assert bug[0] == bug[2]
    assert "process 1 of 3 has met an error: ValueError('a bug')" in bug[0]


def test_a_rank_that_dies_while_saving_leaves_the_last_checkpoint(crew, tmp_path):
    run = tmp_path / "run"
    stored, place = crew.run(save_on_ranks, 3, CHANGES, (1, 3), run, 2)[0]
    with pytest.raises(RankFailedError):
        crew.run(die_in_a_save, 3, (1, 3), run)
    assert [path.name for path in list_checkpoints(run)] == ["step-00000002"]
    found = crew.run(pass_on, 2, CHANGES, (1, 2), run)[0]
    assert found[1] == place
    assert_same(found[0], stored)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]


def train_in(crew, folder, tokenizer_folder, layout):
    """Make a run of several processes, beside what it was made of."""
    (folder / "a.txt").write_text("\n\n".join(small_corpus(60, 0)), encoding="utf-8")
    data_build([folder / "a.txt"], tokenizer=tokenizer_folder, out=folder / "store")
    changes, count = {"optimizer.ema_decay": 0.9}, prod(layout)
    stores = [folder / "store"] * count
    crew.run(meet, count, layout, build_on_ranks, stores, folder / "run", changes)
    return folder


@pytest.fixture(scope="module")
def trained(crew, tmp_path_factory, tokenizer_folder):
    """A run of three processes."""
    return train_in(crew, tmp_path_factory.mktemp("trained"), tokenizer_folder, (1, 3))


@pytest.mark.parametrize("layout", [(1, 3), (1, 1, 2)], ids=str)
def test_every_verb_opens_a_checkpoint_of_several_processes(
    crew, tokenizer_folder, trained, tmp_path, capsys, layout
):
    if layout != (1, 3):
        (tmp_path / "made").mkdir()
        trained = train_in(crew, tmp_path / "made", tokenizer_folder, layout)
    shutil.copytree(trained / "run", tmp_path / "run")
    run = str(tmp_path / "run")
    tokenizer, text = str(trained / "store" / "tokenizer"), "The old [MASK] reads."
    folder = newest_checkpoint(tmp_path / "run").path
    for words in (
        ["info", run],
        ["info", str(folder)],
        ["fill", run, text],
        ["fill", run, text, "--weights", "ema"],
        ["fill", str(folder), text],
        ["evaluate", run, "--data", str(trained / "store"), "--max-blanks", "9", "--no-baselines"],
        ["export", run, "--to", "hf", "--out", str(tmp_path / "hf")],
        ["import", run, "--out", str(tmp_path / "imported")],
        ["resize", run, "--tokenizer", tokenizer, "--out", str(tmp_path / "resized")],
        ["pretrain", "--resume", run, "--train.steps", "3", "--quiet"],
    ):
        assert main(words) == 0, (words, capsys.readouterr().err)
    assert f"optimizer, {prod(layout)} files (bytes)" in capsys.readouterr().out
    weights = load_part(folder, "model")
    for made in ("imported", "resized"):
        found = load_part(newest_checkpoint(tmp_path / made).path, "model")
        assert found.keys() == weights.keys()
        for name, value in found.items():
            rows = 500 if name == "embed.word.weight" else None  # the rest pads the matrix
            np.testing.assert_array_equal(value[:rows], weights[name][:rows], err_msg=name)
    # One process writes what it always did.
    names = {path.name for path in newest_checkpoint(tmp_path / "run").path.iterdir()}
    assert names == {f"{part}.safetensors" for part in ("model", "optimizer", "ema")} | {
        "state.json"
    }


@pytest.mark.parametrize("fault", ["missing", "damaged", "of another checkpoint"])
@pytest.mark.parametrize("verb", ["fill", "export", "resume"])
def test_a_shard_that_is_missing_or_damaged_is_one_sentence(trained, tmp_path, capsys, fault, verb):
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    for folder in list_checkpoints(run):
        shard = folder / "model-00002-of-00003.safetensors"
        if fault == "missing":
            shard.unlink()
        elif fault == "damaged":
            content = bytearray(shard.read_bytes())
            content[-1] ^= 1
            shard.write_bytes(content)
        else:
            shutil.copy(folder / "model-00001-of-00003.safetensors", shard)
    words = {
        "fill": ["fill", str(run), "A [MASK].", "--checkpoint", "2"],
        "export": ["export", str(run), "--to", "hf", "--checkpoint", "2",
                   "--out", str(tmp_path / "out")],
        "resume": ["pretrain", "--resume", str(run), "--train.steps", "4", "--quiet"],
    }[verb]  # fmt: skip
    assert main(words) == 2
    said = capsys.readouterr()
    assert "model-00002-of-00003.safetensors" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()
