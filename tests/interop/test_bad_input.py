"""What cannot be imported: one sentence that names file, tensor and way out; nothing is written."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from blankfill.cli.main import main
from interop import foreign


def learned(folder, tp=2):
    foreign.glm_megatron(folder, foreign.draw(gated=False, positions=41, tied=True), tp)


def change(path, edit):
    """Load a file of ranks, change the state inside, and save it again."""
    held = torch.load(path, weights_only=True)
    edit(held["module"])
    torch.save(held, path)


def cut_off(folder):
    learned(folder)
    path = folder / "mp_rank_01_model_states.pt"
    path.write_bytes(path.read_bytes()[:-2000])
    return [], ["mp_rank_01_model_states.pt", "cut off", "download or copy it again"]


def damaged(folder):
    learned(folder)
    path = folder / "mp_rank_01_model_states.pt"
    data = bytearray(path.read_bytes())
    held = torch.load(path, weights_only=True)["module"]["word_embeddings.weight"]
    data[data.index(held.numpy().tobytes())] ^= 1
    path.write_bytes(data)
    return [], ["mp_rank_01_model_states.pt", "word_embeddings.weight", "checksum"]


def first_ranks_only(folder):
    learned(folder, 4)
    for rank in (2, 3):
        (folder / f"mp_rank_{rank:02d}_model_states.pt").unlink()
    return [], ["2 tensor-parallel ranks", "split over 4", "rank 02", "query_key_value.weight"]


def a_rank_in_the_middle(folder):
    learned(folder, 4)
    (folder / "mp_rank_01_model_states.pt").unlink()
    return [], ["mp_rank_01", "copy the files of every rank"]


def a_missing_layer_file(folder):
    foreign.largescale(folder, foreign.draw(gated=True, positions=0, tied=True), 2)
    (folder / "layer_04-model_01-model_states.pt").unlink()
    return [], ["layer_04-model_01-model_states.pt", "copy"]


def a_missing_shard(folder):
    foreign.glm_hf(folder, foreign.draw(gated=False, positions=41, tied=True), shards=3)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    return [], ["pytorch_model-00002-of-00003.bin is missing"]


def another_vocabulary_size(folder):
    foreign.glm_hf(folder, foreign.draw(gated=False, positions=41, tied=True))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 128}))
    return [], ["config.json", "vocab_size=128", "word_embeddings.weight", "96"]


def an_unknown_layout(folder):
    folder.mkdir()
    save_file({"vision.patch.weight": torch.ones(4, 4)}, folder / "model.safetensors")
    return [], ["vision.patch.weight", "--layout", "GLM-130B"]


def an_empty_folder(folder):
    folder.mkdir()
    return [], ["no checkpoint that blankfill knows"]


def another_layout_than_said(folder):
    foreign.largescale(folder, foreign.draw(gated=True, positions=0, tied=True), 1)
    return ["--layout", "glm-hf"], ["largescale", "--layout"]


class Touch:
    """Makes a folder when an ordinary unpickler meets it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def a_pickle_with_code(folder):
    learned(folder, 1)
    state = {
        "module": {"word_embeddings.weight": torch.ones(4, 4)},
        "x": Touch(str(folder / "ran")),
    }
    torch.save(state, folder / "mp_rank_00_model_states.pt")
    return [], ["mp_rank_00_model_states.pt", "run code", "mkdir", "safetensors"]


def heads_that_do_not_divide(folder):
    learned(folder)
    return ["--num-heads", "5"], ["num_heads=5", "hidden size 32", "--num-heads"]


def heads_that_ranks_do_not_share(folder):
    learned(folder, 8)
    return ["--num-heads", "4"], ["num_heads=4", "8 ranks"]


def heads_unknown(folder):
    learned(folder)
    return None, ["attention heads", "2 layers of 32", "--num-heads"]


def a_tensor_in_two_shards(folder):
    foreign.glm_hf(folder, foreign.draw(gated=False, positions=41, tied=True), shards=2)
    (folder / "pytorch_model.bin.index.json").unlink()
    extra = {"glm.word_embeddings.weight": torch.ones(96, 32)}
    torch.save(extra, folder / "pytorch_model-00003-of-00003.bin")
    return [], ["glm.word_embeddings.weight", "twice", "pytorch_model-00003-of-00003.bin"]


def a_tensor_with_and_without_prefix(folder):
    foreign.glm_hf(folder, foreign.draw(gated=False, positions=41, tied=True), prefix="glm.")
    held = torch.load(folder / "pytorch_model.bin", weights_only=True)
    held["word_embeddings.weight"] = held["glm.word_embeddings.weight"].clone()
    torch.save(held, folder / "pytorch_model.bin")
    return [], ["word_embeddings.weight", "twice"]


def a_tensor_too_many(folder):
    learned(folder)
    path = folder / "mp_rank_00_model_states.pt"
    change(path, lambda state: state.update({"pooler.weight": torch.ones(2)}))
    return [], ["mp_rank_00_model_states.pt", "pooler.weight", "no place"]


def a_tensor_too_few(folder):
    learned(folder)
    path = folder / "mp_rank_01_model_states.pt"
    change(path, lambda state: state.pop("transformer.layers.1.mlp.dense_4h_to_h.bias"))
    return [], ["transformer.layers.1.mlp.dense_4h_to_h.bias", "rank 01", "copy"]


def a_layer_in_the_middle(folder):
    learned(folder)
    for path in folder.iterdir():
        change(path, lambda s: [s.pop(n) for n in list(s) if ".layers.0." in n])
    return [], ["transformer.layers.0", "layer 1", "copy"]


def a_number_that_is_none(folder):
    foreign.chatglm_hf(folder, foreign.draw(gated=False, positions=0, tied=False))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_sequence_length": "long"}))
    return [], ["config.json", "max_sequence_length='long'"]


def a_tensor_of_another_shape(folder):
    learned(folder)
    name = "transformer.layers.1.mlp.dense_4h_to_h.weight"
    change(folder / "mp_rank_01_model_states.pt", lambda s: s.update({name: torch.ones(32, 23)}))
    return [], ["mp_rank_01_model_states.pt", name, "[32, 23]", "[32, 24]"]


def scales_of_another_length(folder):
    foreign.sat_glm_130b(folder, foreign.draw(gated=True, positions=0, tied=True), 1, 8)
    name = "transformer.layers.0.attention.dense.weight"
    path = folder / "49300" / "mp_rank_00_model_states.pt"
    change(path, lambda s: s.update({f"{name}_scale": torch.ones(3)}))
    return [], ["mp_rank_00_model_states.pt", name, "one scale a row"]


def a_latest_that_points_nowhere(folder):
    folder.mkdir()
    (folder / "latest").write_text("49300")
    return [], ["latest", "49300"]


def image_rows_of_a_model_without(folder):
    learned(folder)
    return ["--drop-image-rows"], ["96 rows", "--drop-image-rows"]


def a_vocabulary_of_another_model(folder):
    learned(folder)
    vocabulary = folder.parent / "vocabulary"
    vocabulary.mkdir()
    shutil.copytree(pytest.tokenizer_folder, vocabulary / "tok")
    return ["--tokenizer", str(vocabulary / "tok")], ["500 ids", "96 rows", "--tokenizer"]


CASES = [
    cut_off, damaged, first_ranks_only, a_rank_in_the_middle, a_missing_layer_file,
    a_missing_shard, another_vocabulary_size, an_unknown_layout, an_empty_folder,
    another_layout_than_said, a_pickle_with_code, heads_that_do_not_divide,
    heads_that_ranks_do_not_share, heads_unknown, a_tensor_in_two_shards,
    a_tensor_with_and_without_prefix, a_tensor_too_many, a_tensor_too_few,
    a_layer_in_the_middle, a_number_that_is_none,
    a_tensor_of_another_shape, scales_of_another_length, a_latest_that_points_nowhere,
    image_rows_of_a_model_without, a_vocabulary_of_another_model,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_one_sentence_and_nothing_is_written(
    case, tmp_path, capsys, monkeypatch, tokenizer_folder
):
    monkeypatch.setattr(pytest, "tokenizer_folder", tokenizer_folder, raising=False)
    folder = tmp_path / "theirs"
    options, words = case(folder)
    if options is None:
        options = []
    elif "--num-heads" not in options:
        options = [*options, "--num-heads", "8"]
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "made" / "ours"
    assert main(["import", str(folder), "--out", str(out), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (sentence,) = [line for line in printed.err.splitlines() if line.startswith("blankfill:")]
    assert "Traceback" not in printed.err
    for word in words:
        assert word in sentence, sentence
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    learned(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mine.txt").write_text("mine")
    words = ["import", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")]
    assert main([*words, "--num-heads", "8"]) == 2
    assert "already holds something" in capsys.readouterr().err
    assert (tmp_path / "ours" / "mine.txt").read_text() == "mine"


def test_nothing_is_there_is_said(tmp_path, capsys):
    assert main(["import", str(tmp_path / "nothing"), "--out", str(tmp_path / "ours")]) == 2
    assert "does not exist" in capsys.readouterr().err
