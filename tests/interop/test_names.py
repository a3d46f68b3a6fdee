"""Names of tensors: wrappers, missing tensors, other architectures, pointers of Git LFS."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from blankfill.api import import_
from blankfill.cli.main import main
from blankfill.errors import ConversionError
from blankfill.interop.names import unwrap
from interop import foreign

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1280000000\n"


def learned(**changes):
    return foreign.draw(gated=False, positions=41, tied=True, **changes)


def write(folder, layout):
    """Write a checkpoint and give its only file of weights."""
    if layout == "chatglm-hf":
        model = foreign.draw(gated=False, positions=0, tied=False)
        foreign.chatglm_hf(folder, model, shards=1, safe=True)
    elif layout.startswith("glm-hf"):
        foreign.glm_hf(folder, learned(), safe=True, prefix="" if "bare" in layout else "glm.")
    elif layout == "glm-megatron":
        foreign.glm_megatron(folder, learned(), 1)
    elif layout == "sat-glm":
        foreign.sat_glm(folder, learned(), 1)
    elif layout == "sat-chatglm":
        foreign.sat_chatglm(folder, foreign.draw(gated=False, positions=0, tied=False), 1)
    else:
        foreign.sat_glm_130b(folder, foreign.draw(gated=True, positions=0, tied=True), 1)
    return next(p for p in sorted(folder.rglob("*")) if p.suffix in (".safetensors", ".pt"))


LAYOUTS = ["chatglm-hf", "glm-hf", "glm-hf bare", "glm-megatron", "sat-glm", "sat-chatglm",
           "sat-glm-130b"]  # fmt: skip


def edit(path, change):
    """Replace the tensors of a file by what `change` makes of them."""
    if path.suffix == ".safetensors":
        save_file(change(load_file(path)), path)
    else:
        held = torch.load(path, weights_only=True)
        torch.save(held | {"module": change(held["module"])}, path)


def fsdp(name):
    return f"_fsdp_wrapped_module.{name}".replace(".layers.", "._fsdp_wrapped_module.layers.")


WRAPPERS = {
    "module.": "module.{}", "_orig_mod.": "_orig_mod.{}", "model.": "model.{}",
    "transformer.": "transformer.{}", "_orig_mod. and module.": "module._orig_mod.{}",
    "base_model.model.": "base_model.model.{}", "_fsdp_wrapped_module.": None,
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_of_wrappers_are_left_out_and_said(tmp_path, layout, wrapper):
    plain = write(tmp_path / "plain", layout)
    path = tmp_path / "wrapped" / plain.relative_to(tmp_path / "plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "wrapped")
    wrap = WRAPPERS[wrapper].format if WRAPPERS[wrapper] else fsdp
    edit(path, lambda state: {wrap(name): value for name, value in state.items()})
    first = import_(tmp_path / "plain", out=tmp_path / "a", num_heads=8)
    second = import_(tmp_path / "wrapped", out=tmp_path / "b", num_heads=8)
    assert (second.layout, second.checksum) == (first.layout, first.checksum)
    assert f"{wrapper} was left out of the tensors' names" in second.notes


def test_a_prefix_is_left_out_where_only_a_part_has_it():
    names = [
        "model.transformer.layers.0.x",
        "model.transformer.word_embeddings.weight",
        "lm_head.weight",
    ]
    inner, dropped = unwrap(names)
    assert list(inner.values()) == [
        "transformer.layers.0.x", "transformer.word_embeddings.weight", "lm_head.weight",
    ]  # fmt: skip
    assert dropped == "model."


MISSING = [
    ("chatglm-hf", "lm_head.weight", "chatglm-hf"),
    ("chatglm-hf", "transformer.word_embeddings.weight", "chatglm-hf"),
    ("sat-chatglm", "mixins.chatglm-final.lm_head.weight", "sat-chatglm"),
    ("sat-chatglm", "transformer.word_embeddings.weight", "sat-chatglm"),
    ("sat-glm", "transformer.position_embeddings.weight", "sat-glm"),
    ("sat-glm", "transformer.word_embeddings.weight", "sat-glm"),
    ("sat-glm-130b", "transformer.word_embeddings.weight", "sat-glm-130b"),
    ("glm-hf", "glm.word_embeddings.weight", "glm-hf"),
    ("glm-hf", "glm.transformer.position_embeddings.weight", "glm-hf"),
    ("glm-hf bare", "transformer.position_embeddings.weight", "glm-hf"),
    ("glm-megatron", "word_embeddings.weight", "glm-megatron"),
    ("glm-megatron", "transformer.position_embeddings.weight", "glm-megatron"),
]


@pytest.mark.parametrize(("layout", "name", "called"), MISSING)
def test_a_missing_tensor_is_named_and_makes_no_other_layout_of_the_rest(
    tmp_path, capsys, layout, name, called
):
    path = write(tmp_path / "theirs", layout)
    edit(path, lambda state: {n: v for n, v in state.items() if n != name})
    command = ["import", str(tmp_path / "theirs"), "--out", str(tmp_path / "o"), "--num-heads", "8"]
    assert main(command) == 2
    sentence = capsys.readouterr().err
    assert name in sentence
    assert called in sentence
    assert not (tmp_path / "o").exists()


def test_a_fine_tuned_chatglm_in_a_file_of_deepspeed_is_chatglm(tmp_path):
    path = write(tmp_path / "hf", "chatglm-hf")
    (tmp_path / "ds").mkdir()
    state = {f"module.{name}": value for name, value in load_file(path).items()}
    torch.save({"module": state}, tmp_path / "ds" / "mp_rank_00_model_states.pt")
    shutil.copy(tmp_path / "hf" / "config.json", tmp_path / "ds")
    assert import_(tmp_path / "ds", out=tmp_path / "out").layout == "chatglm-hf"


OTHERS = {
    "ChatGLM2": ["transformer.embedding.word_embeddings.weight",
                 "transformer.encoder.layers.0.self_attention.query_key_value.weight",
                 "transformer.output_layer.weight"],
    "GLM-4": ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
              "model.layers.0.mlp.gate_up_proj.weight", "lm_head.weight"],
    "Llama": ["module.model.layers.3.self_attn.k_proj.weight"],
    "BERT": ["bert.embeddings.word_embeddings.weight",
             "bert.encoder.layer.0.attention.self.query.weight"],
    "GPT-2": ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"],
    "BLOOM": ["transformer.word_embeddings.weight",
              "transformer.h.0.self_attention.query_key_value.weight"],
    "GPT-NeoX": ["gpt_neox.layers.0.attention.query_key_value.weight"],
    "T5": ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"],
    "LoRA": ["base_model.model.transformer.layers.0.attention.query_key_value.lora_A.weight"],
    "P-Tuning": ["transformer.prefix_encoder.embedding.weight"],
}  # fmt: skip


@pytest.mark.parametrize("architecture", OTHERS)
@pytest.mark.parametrize("options", [[], ["--layout", "chatglm-hf"]])
def test_another_architecture_is_called_by_its_name_with_what_can_be_imported(
    tmp_path, capsys, architecture, options
):
    (tmp_path / "theirs").mkdir()
    state = {name: torch.ones(4, 4) for name in OTHERS[architecture]}
    save_file(state, tmp_path / "theirs" / "model.safetensors")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({"model_type": "chatglm"}))
    command = ["import", str(tmp_path / "theirs"), "--out", str(tmp_path / "o"), *options]
    assert main(command) == 2
    sentence = capsys.readouterr().err
    assert architecture in sentence
    assert "it imports GLM (110M to 10B), GLM-130B and ChatGLM-6B" in sentence


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "model.safetensors.index.json", "pytorch_model.bin",
     "mp_rank_00_model_states.pt", "latest"],
)  # fmt: skip
def test_a_git_lfs_pointer_is_called_that(tmp_path, capsys, name):
    folder = tmp_path / "theirs"
    write(folder, "chatglm-hf")
    if not (folder / name).exists():
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    assert main(["import", str(folder), "--out", str(tmp_path / "ours")]) == 2
    sentence = capsys.readouterr().err
    assert f"{folder / name} is a Git LFS pointer" in sentence
    assert "git lfs pull" in sentence


@pytest.mark.parametrize("name", ["ice_text.model", "vocab.txt", "vocab.json", "merges.txt"])
def test_a_pointer_in_place_of_a_vocabulary_is_called_that(tmp_path, capsys, name):
    folder = tmp_path / "theirs"
    write(folder, "chatglm-hf")
    (tmp_path / name).write_text(POINTER)
    given = tmp_path / name
    if name == "merges.txt":
        given = tmp_path / "vocab.json"
        given.write_text("{}")
    command = ["import", str(folder), "--out", str(tmp_path / "o"), "--tokenizer", str(given)]
    assert main(command) == 2
    assert f"{tmp_path / name} is a Git LFS pointer" in capsys.readouterr().err


def test_a_pointer_in_place_of_our_own_files_is_called_that(tmp_path, capsys, tokenizer_folder):
    shutil.copytree(tokenizer_folder, tmp_path / "tok")
    for name in ("tokenizer.model", "tokenizer.json"):
        (tmp_path / "tok" / name).write_text(POINTER)
        assert main(["info", str(tmp_path / "tok")]) == 2
        assert "is a Git LFS pointer" in capsys.readouterr().err


def test_a_gated_model_with_a_head_is_not_half_of_each(tmp_path):
    path = write(tmp_path / "theirs", "sat-glm-130b")
    edit(path, lambda state: state | {"lm_head.weight": torch.ones(96, 32)})
    with pytest.raises(ConversionError, match=r"lm_head\.weight.*no place in a sat-glm-130b"):
        import_(tmp_path / "theirs", out=tmp_path / "ours", num_heads=8)
