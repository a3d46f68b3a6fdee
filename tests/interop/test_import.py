"""Every published layout becomes our model, bit for bit, from files of an independent writer."""

import json

import pytest
import torch

from blankfill.api import fill, import_, info
from blankfill.config.model import ModelConfig
from blankfill.interop.merge import dequantise
from blankfill.model.glm import GLM
from interop import foreign
from shared import shared_path


def imported(folder):
    """The weights that an import wrote, by name."""
    from safetensors.torch import load_file

    found = {}
    for path in sorted((folder / "checkpoints" / "step-00000000").glob("*.safetensors")):
        found |= load_file(path)
    return found


def assert_same(folder, expected):
    found = imported(folder)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def learned(**changes):
    return foreign.draw(gated=False, positions=41, tied=True, **changes)


def rotary(**changes):
    return foreign.draw(gated=True, positions=0, tied=True, **changes)


def chat(**changes):
    return foreign.draw(gated=False, positions=0, tied=False, **changes)


RANKED = {
    "glm-megatron": (foreign.glm_megatron, learned),
    "sat-glm": (foreign.sat_glm, learned),
    "sat-glm-130b": (foreign.sat_glm_130b, rotary),
    "largescale": (foreign.largescale, rotary),
    "sat-chatglm": (foreign.sat_chatglm, chat),
}


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("layout", RANKED)
def test_ranks_of_every_layout_become_our_tensors(tmp_path, layout, tp):
    write, draw = RANKED[layout]
    model = draw(seed=tp)
    write(tmp_path / "theirs", model, tp)
    result = import_(tmp_path / "theirs", out=tmp_path / "ours", num_heads=8)
    assert (result.layout, result.ranks) == (layout, tp)
    assert_same(tmp_path / "ours", foreign.ours(model))
    assert result.parameters == sum(value.numel() for value in foreign.ours(model).values())


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("prefix", ["glm.", ""])
def test_glm_of_hugging_face_becomes_our_tensors(tmp_path, shards, safe, prefix):
    model = learned()
    foreign.glm_hf(tmp_path / "theirs", model, shards=shards, safe=safe, prefix=prefix)
    result = import_(tmp_path / "theirs", out=tmp_path / "ours")
    assert (result.layout, result.model["num_heads"], result.model["activation"]) == (
        "glm-hf", 8, "gelu",
    )  # fmt: skip
    assert_same(tmp_path / "ours", foreign.ours(model))


@pytest.mark.parametrize("safe", [False, True])
def test_chatglm_of_hugging_face_becomes_our_tensors_and_keeps_its_dtypes(tmp_path, safe):
    model = chat(vocab=20_090)
    foreign.chatglm_hf(tmp_path / "theirs", model, safe=safe)
    result = import_(tmp_path / "theirs", out=tmp_path / "ours")
    expected = {n: v.float() if "norm" in n else v for n, v in foreign.ours(model).items()}
    assert_same(tmp_path / "ours", expected)
    assert result.dtypes == {"float16": 2 + 2 * 12, "float32": 2 * 4 + 2}
    assert list(result.ignored) == [
        f"transformer.layers.{i}.attention.rotary_emb.inv_freq" for i in range(2)
    ]
    # The released code has the alpha of 28 layers and float16 angles, whatever its config says.
    assert result.model["residual_scale"] == 56**0.5
    assert result.model["rope_angles"] == "float16"

    import_(tmp_path / "theirs", out=tmp_path / "text", drop_image_rows=True)
    for name in ("embed.word.weight", "head.weight"):
        expected[name] = expected[name][20_000:]
    assert_same(tmp_path / "text", expected)


def test_sandwich_norms_come_along(tmp_path):
    model = learned(sandwich=True)
    foreign.sat_glm(tmp_path / "theirs", model, 2)
    result = import_(tmp_path / "theirs", out=tmp_path / "ours", num_heads=8)
    assert result.model["block"] == "sandwich"
    assert_same(tmp_path / "ours", foreign.ours(model))


def test_the_worked_example_of_int4_comes_back():
    # Row [0.7, -0.35, 0.1, -0.7]: scale 0.1, q = [7, -4, 1, -7], bytes 0x7C 0x19.
    weight, scale = foreign.quantise(torch.tensor([[0.7, -0.35, 0.1, -0.7]]), 4)
    assert weight.view(torch.uint8).tolist() == [[0x7C, 0x19]]
    values = dequantise(weight, scale, 4)
    assert values.dtype == torch.float16
    assert torch.equal(values, torch.tensor([[7, -4, 1, -7]]).half() * torch.tensor(0.1).half())


def test_every_byte_of_int4_is_two_signed_nibbles():
    weight = torch.arange(-128, 128, dtype=torch.int8)[:, None]
    expected = [[(b >> 4 & 15 ^ 8) - 8, (b & 15 ^ 8) - 8] for b in range(-128, 128)]
    values = dequantise(weight, torch.ones(256), 2)
    assert values.tolist() == expected


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tp", [1, 4])
def test_quantised_ranks_of_glm_130b_are_dequantised_each_by_its_own_scales(tmp_path, bits, tp):
    model = rotary()
    foreign.sat_glm_130b(tmp_path / "theirs", model, tp, bits)
    result = import_(tmp_path / "theirs", out=tmp_path / "ours", num_heads=8)
    expected = foreign.ours(model)
    for name, value in expected.items():
        if value.dim() == 2 and name.startswith("blocks"):
            dim = 1 if "out" in name or "down" in name else 0
            # A row that is shared by ranks has the scale of each rank's stretch of it.
            parts = value.chunk(tp, 1) if dim else [value]
            expected[name] = torch.cat([foreign.dequantised(p, bits) for p in parts], dim)
    assert_same(tmp_path / "ours", expected)
    assert result.dequantised == 2 * 4


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_chatglm_is_dequantised(tmp_path, bits):
    model = chat()
    foreign.chatglm_hf(tmp_path / "theirs", model, bits=bits)
    import_(tmp_path / "theirs", out=tmp_path / "ours", dtype="float32")
    name = "blocks.1.mlp.down.weight"
    expected = foreign.dequantised(foreign.ours(model)[name], bits).float()
    assert torch.equal(imported(tmp_path / "ours")[name], expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_dtype_is_the_rounded_value(tmp_path, dtype):
    model = rotary(dtype=torch.float32)
    foreign.sat_glm_130b(tmp_path / "theirs", model, 2)
    import_(tmp_path / "theirs", out=tmp_path / "ours", num_heads=8, dtype=dtype)
    wanted = getattr(torch, dtype)
    assert_same(tmp_path / "ours", {n: v.to(wanted) for n, v in foreign.ours(model).items()})


def test_large_weights_are_cut_into_files_and_open_as_one(tmp_path):
    from blankfill.interop.importer import run_import
    from blankfill.interop.layouts import recognise
    from blankfill.interop.plan import plan_import
    from blankfill.runs.parts import load_weights

    model = learned()
    foreign.glm_megatron(tmp_path / "theirs", model, 2)
    plan = plan_import(recognise(tmp_path / "theirs"), num_heads=8)
    run_import(plan, tmp_path / "ours", max_file_bytes=10_000)
    folder = tmp_path / "ours" / "checkpoints" / "step-00000000"
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 3
    assert_same(tmp_path / "ours", foreign.ours(model))
    opened = GLM(plan.cfg)
    load_weights(opened, folder)
    for name, value in foreign.ours(model).items():
        assert torch.equal(opened.state_dict()[name], value.float())
    # ... and a folder of ours is a layout like any other.
    again = import_(tmp_path / "ours", out=tmp_path / "again")
    assert again.layout == "blankfill"
    assert_same(tmp_path / "again", foreign.ours(model))


def test_the_checksum_is_that_of_the_tensors_whatever_the_layout(tmp_path):
    import hashlib

    model = rotary()
    foreign.sat_glm_130b(tmp_path / "a", model, 4)
    foreign.largescale(tmp_path / "b", model, 2)
    first = import_(tmp_path / "a", out=tmp_path / "ours-a", num_heads=8)
    second = import_(tmp_path / "b", out=tmp_path / "ours-b", num_heads=8)
    hashes = sorted(
        hashlib.sha256(v.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for v in foreign.ours(model).values()
    )
    assert first.checksum == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert second.checksum == first.checksum
    manifest = json.loads((tmp_path / "ours-a" / "import.json").read_text())
    assert manifest["checksum"] == first.checksum
    assert len(manifest["tensors"]) == first.tensors
    facts = info(str(tmp_path / "ours-a")).facts
    assert facts["checksum"] == first.checksum
    assert "--tokenizer" in facts["tokenizer"]


def test_a_model_without_tokenizer_says_how_to_get_one(tmp_path, capsys):
    from blankfill.cli.main import main

    foreign.glm_megatron(tmp_path / "theirs", learned(), 1)
    words = ["import", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")]
    assert main([*words, "--num-heads", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "glm-megatron"
    assert main(["fill", str(tmp_path / "ours"), "a [MASK]"]) == 2
    assert "import it again" in capsys.readouterr().err


def test_a_run_of_ours_keeps_its_tokenizer_and_fills(tmp_path, tokenizer_folder):
    model = learned(vocab=512)
    foreign.glm_megatron(tmp_path / "theirs", model, 2)
    import_(tmp_path / "theirs", out=tmp_path / "bare", num_heads=8)
    result = import_(tmp_path / "bare", out=tmp_path / "ours", tokenizer=tokenizer_folder)
    assert result.tokenizer == "blankfill"
    item = fill(tmp_path / "ours", ["the old [MASK] reads"], max_new_tokens=3).items[0]
    assert len(item.blanks) == 1
    third = import_(tmp_path / "ours", out=tmp_path / "third")
    assert third.tokenizer == "blankfill"


GOLDEN = {
    "glm_a_2layer": "glm-megatron", "glm_d_1d_positions": "glm-megatron", "hf_glm_a_2layer": None,
    "sat_glm_a_2layer": None, "sat_glm_b_sandwich": None, "glm130b_1d_a_2layer": None,
    "glm130b_2d_b_4layer": None, "hf_chatglm_b_4layer": None, "chatglm_sat_a_2layer": None,
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_imported_reference_models_compute_the_reference_logits(tmp_path, name):
    from safetensors.torch import load_file

    from blankfill.model.masks import DenseMask
    from blankfill.runs.parts import load_weights

    folder = shared_path("reference/golden") / "logits" / name
    result = import_(folder, out=tmp_path / "ours", layout=GOLDEN[name])
    model = GLM(ModelConfig(**result.model)).eval()
    load_weights(model, tmp_path / "ours" / "checkpoints" / "step-00000000")
    inputs = load_file(folder / "inputs.safetensors")
    expected = load_file(folder / "outputs.safetensors")["logits"]
    tokens, positions, visible = tokens_of(inputs)
    seen = visible.any(-1)  # rows of pads that see nothing are undefined; let them see themselves
    visible |= torch.diag_embed(~seen)
    with torch.no_grad():
        logits = model.logits(model(tokens, positions, DenseMask(visible)))
    # float32 in another order of operations; the tolerance that the vectors are published with.
    torch.testing.assert_close(logits[seen], expected[seen], rtol=0, atol=5e-5)


def tokens_of(inputs):
    """Tokens, two rows of positions and who sees whom, from the vectors' own names."""
    tokens = inputs["tokens"] if "tokens" in inputs else inputs["input_ids"]
    positions = next(
        inputs[name] for name in ("position_ids_2d", "position_ids", "model_position_ids")
        if name in inputs
    )  # fmt: skip
    if "model_position_ids" in inputs and inputs["model_position_ids"].dim() == 2:
        positions = inputs["model_position_ids"]
    if positions.dim() == 2:
        positions = torch.stack([positions, torch.zeros_like(positions)], 1)
    return tokens.long(), positions.long(), inputs["mask_visible"][:, 0].bool()
