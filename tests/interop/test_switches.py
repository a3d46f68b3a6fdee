"""Every field of a released configuration that changes the mathematics is honoured or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from blankfill.api import import_
from blankfill.cli.main import main
from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig
from blankfill.errors import ConversionError
from blankfill.interop.export_foreign import family_of
from blankfill.model.glm import GLM
from blankfill.model.masks import DenseMask
from blankfill.objective.blank import build_prompt, generation_positions
from blankfill.objective.mask import visible
from blankfill.runs import read_run
from interop import foreign

WRITERS = {
    "glm-megatron": lambda folder: foreign.glm_megatron(folder, learned(), 1),
    "glm-hf": lambda folder: foreign.glm_hf(folder, learned()),
    "sat-glm": lambda folder: foreign.sat_glm(folder, learned(), 1),
    "sat-glm-130b": lambda folder: foreign.sat_glm_130b(folder, rotary(True), 1),
    "largescale": lambda folder: foreign.largescale(folder, rotary(True), 1),
    "sat-chatglm": lambda folder: foreign.sat_chatglm(folder, rotary(False), 1),
    "chatglm-hf": lambda folder: foreign.chatglm_hf(folder, rotary(False)),
}


def learned():
    return foreign.draw(gated=False, positions=41, tied=True)


def rotary(gated):
    return foreign.draw(gated=gated, positions=0, tied=gated)


def write(folder, layout, **fields):
    """Write a small checkpoint whose configuration says more."""
    WRITERS[layout](folder)
    name = "model_config.json" if layout.startswith("sat") else "config.json"
    path = folder / name
    known = json.loads(path.read_text()) if path.is_file() else {"num_attention_heads": 8}
    path.write_text(json.dumps(known | fields))
    return folder


REFUSED = [
    ("glm-hf", "relative_encoding", True),
    ("glm-hf", "block_position_encoding", False),
    ("glm-hf", "spell_length", 3),
    ("glm-hf", "num_experts", 4),
    ("glm-hf", "num_key_value_heads", 2),
    ("glm-hf", "rotary_type", "1d"),
    ("glm-hf", "use_rmsnorm", True),
    ("glm-hf", "use_swiglu", True),
    ("glm-hf", "use_bias", False),
    ("glm-hf", "unidirectional", True),
    ("glm-hf", "attention_grouping", [1, 2]),
    ("glm-hf", "intermediate_size", 64),
    ("glm-hf", "max_sequence_length", 512),
    ("glm-megatron", "relative_encoding", True),
    ("glm-megatron", "sentinel_token", True),
    ("sat-glm", "layernorm_order", "post"),
    ("sat-glm", "layernorm_order", "sandwich"),
    ("sat-glm", "num_multi_query_heads", 2),
    ("sat-glm", "is_gated_mlp", True),
    ("sat-glm", "is_rotary_emb", True),
    ("sat-glm", "use_final_layernorm", False),
    ("sat-glm", "hidden_size_per_attention_head", 8),
    ("sat-glm", "masked_lm", True),
    ("sat-glm", "sentinel_token", True),
    ("sat-glm", "no_block_position", True),
    ("sat-glm", "inner_hidden_size", 64),
    ("sat-glm", "max_sequence_length", 1025),
    ("sat-glm-130b", "no_glu", True),
    ("sat-glm-130b", "layernorm_order", "sandwich"),
    ("sat-glm-130b", "position_encoding_2d", "maybe"),
    ("largescale", "no_glu", True),
    ("sat-chatglm", "layernorm_order", "pre"),
    ("sat-chatglm", "position_encoding_2d", False),
    ("chatglm-hf", "pre_seq_len", 128),
    ("chatglm-hf", "quantization_bit", 8),
    ("chatglm-hf", "tie_word_embeddings", True),
    ("chatglm-hf", "position_encoding_2d", "false"),
    ("chatglm-hf", "inner_hidden_size", 16384),
    ("chatglm-hf", "num_layers", 3),
    ("chatglm-hf", "vocab_size", "96"),
]


@pytest.mark.parametrize(("layout", "name", "value"), REFUSED)
def test_other_mathematics_is_refused_by_name(tmp_path, capsys, layout, name, value):
    folder = write(tmp_path / "theirs", layout, **{name: value})
    assert main(["import", str(folder), "--out", str(tmp_path / "ours")]) == 2
    printed = capsys.readouterr().err
    (sentence,) = [line for line in printed.splitlines() if line.startswith("blankfill:")]
    assert f"{name}={value!r}" in sentence
    assert "config.json" in sentence
    assert not (tmp_path / "ours").exists()


PUBLISHED = {
    "glm-hf": {
        "relative_encoding": False, "block_position_encoding": True, "spell_length": None,
        "attention_scale": 1.0, "output_predict": True, "max_sequence_length": 40,
        "num_experts": 1, "rotary_type": "none", "num_key_value_heads": 0, "use_bias": True,
    },
    "sat-glm": {
        "layernorm_order": "pre", "max_sequence_length": 41, "sentinel_token": False,
        "num_multi_query_heads": 0, "inner_hidden_size": 48, "model_parallel_size": 1,
    },
    "sat-glm-130b": {
        "layernorm_order": "post", "inner_hidden_size": 48, "no_glu": False,
        "position_encoding_2d": False,
    },
    "sat-chatglm": {"layernorm_order": "post", "position_encoding_2d": True},
    "chatglm-hf": {
        "pre_seq_len": None, "quantization_bit": 0, "prefix_projection": False,
        "inner_hidden_size": 48, "tie_word_embeddings": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", PUBLISHED)
def test_what_the_published_configurations_say_is_taken(tmp_path, layout):
    folder = write(tmp_path / "theirs", layout, **PUBLISHED[layout])
    assert import_(folder, out=tmp_path / "ours").layout == layout


@pytest.mark.parametrize(
    ("layout", "two", "positions", "scheme"),
    [
        ("chatglm-hf", None, "rope_2d", "corrupted"),
        ("chatglm-hf", True, "rope_2d", "corrupted"),
        ("chatglm-hf", False, "rope_1d", "linear"),
        ("chatglm-hf", 0, "rope_1d", "linear"),
        ("sat-glm-130b", None, "rope_1d", "linear"),
        ("sat-glm-130b", False, "rope_1d", "linear"),
        ("sat-glm-130b", True, "rope_2d", "corrupted"),
        ("largescale", None, "rope_1d", "linear"),
        ("largescale", True, "rope_2d", "corrupted"),
        ("sat-chatglm", None, "rope_2d", "corrupted"),
        ("glm-hf", None, "learned_2d", "corrupted"),
        ("glm-megatron", None, "learned_2d", "corrupted"),
        ("sat-glm", None, "learned_2d", "corrupted"),
    ],
)
def test_positions_are_recorded_as_the_released_code_numbers_them(
    tmp_path, layout, two, positions, scheme
):
    folder = write(tmp_path / "theirs", layout, position_encoding_2d=two)
    import_(folder, out=tmp_path / "ours")
    cfg = read_run(tmp_path / "ours").config
    assert (cfg.model.positions, cfg.objective.positions) == (positions, scheme)


@pytest.mark.parametrize("mask", ["mask", "gmask"])
def test_a_chatglm_of_one_position_is_asked_at_the_positions_of_its_own_code(tmp_path, ids, mask):
    """Its `get_position_ids`: 0, 1, 2, ...; after a [MASK], but not after a [gMASK], the mask's."""
    folder = write(tmp_path / "theirs", "chatglm-hf", position_encoding_2d=False)
    import_(folder, out=tmp_path / "ours")
    cfg = read_run(tmp_path / "ours").config
    tokens = np.array([20, 21, getattr(ids, mask), 22, 23][: 5 if mask == "mask" else 3], np.int32)
    prompt = build_prompt(tokens, ids)
    generated = [
        generation_positions(prompt, 0, step, [], scheme=cfg.objective.positions)[0]
        for step in range(4)
    ]
    context = len(tokens)
    expected = [2] * 4 if mask == "mask" else list(range(context, context + 4))
    assert prompt.positions[0].tolist() == list(range(context))
    assert generated == expected


def test_the_imported_rotation_of_one_position_is_that_of_the_released_code(tmp_path):
    """The golden ChatGLM once more, all of each head rotated by one position, in float64."""
    config, weights = foreign_golden("hf_chatglm_b_4layer")
    config = {**config, "position_encoding_2d": False, "max_sequence_length": 64}
    folder = tmp_path / "theirs"
    folder.mkdir()
    state = {n: v.clone() for n, v in weights.items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    import_(folder, out=tmp_path / "ours")
    cfg = read_run(tmp_path / "ours").config.model
    assert (cfg.positions, cfg.rope_angles) == ("rope_1d", "float16")
    model = GLM(cfg)
    model.load_state_dict(load_file(next((tmp_path / "ours").rglob("model.safetensors"))))
    model.eval()
    n, a = 12, 7
    tokens = torch.randint(10, config["vocab_size"], (1, n), generator=torch.manual_seed(0))
    ordinal = torch.arange(n)
    ordinal[a:] = 3
    seen = torch.from_numpy(visible(np.zeros(n, np.int32), np.arange(n) >= a))
    positions = torch.stack([ordinal, torch.clamp(torch.arange(n) - a + 1, min=0)])[None]
    with torch.no_grad():
        found = model.logits(model(tokens, positions, DenseMask(seen[None])))[0]
    expected = released_chatglm(weights, config, tokens[0], ordinal, seen)
    assert torch.allclose(found.double(), expected, atol=2e-5)


def foreign_golden(name):
    folder = Path(__file__).parents[1] / "golden" / "logits" / name
    return (
        json.loads((folder / "config.json").read_text()),
        load_file(folder / "model.safetensors"),
    )


def released_chatglm(weights, config, tokens, ordinal, seen):
    """ChatGLM-6B's forward pass with `position_encoding_2d=False`, one head at a time, float64."""
    w = {name: value.double() for name, value in weights.items()}
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size, alpha = hidden // heads, 56**0.5
    rates = (1 / 10000 ** (torch.arange(0, size, 2) / size)).half().double()
    angles = torch.cat([ordinal.double()[:, None] * rates] * 2, dim=1)  # [T, H]

    def rotate(x):
        half = torch.cat([-x[:, size // 2 :], x[:, : size // 2]], dim=1)
        return x * angles.cos() + half * angles.sin()

    def norm(x, name):
        return torch.nn.functional.layer_norm(
            x, (hidden,), w[f"{name}.weight"], w[f"{name}.bias"], config["layernorm_epsilon"]
        )

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["transformer.word_embeddings.weight"][tokens]
    for i in range(config["num_layers"]):
        at = f"transformer.layers.{i}."
        a = norm(x, f"{at}input_layernorm")
        mixed = linear(a, f"{at}attention.query_key_value").view(-1, heads, 3, size)
        out = []
        for head in range(heads):
            q, k, v = rotate(mixed[:, head, 0]), rotate(mixed[:, head, 1]), mixed[:, head, 2]
            scores = (q @ k.T / size**0.5).masked_fill(~seen, float("-inf"))
            out.append(scores.softmax(-1) @ v)
        x = alpha * a + linear(torch.cat(out, dim=1), f"{at}attention.dense")
        m = norm(x, f"{at}post_attention_layernorm")
        inner = torch.nn.functional.gelu(linear(m, f"{at}mlp.dense_h_to_4h"), approximate="tanh")
        x = alpha * m + linear(inner, f"{at}mlp.dense_4h_to_h")
    return norm(x, "transformer.final_layernorm") @ w["lm_head.weight"].T


def test_quantised_weights_without_their_scales_are_refused(tmp_path):
    foreign.chatglm_hf(tmp_path / "theirs", rotary(False), shards=1, safe=True, bits=8)
    path = tmp_path / "theirs" / "model.safetensors"
    state = {n: v for n, v in load_file(path).items() if not n.endswith("dense.weight_scale")}
    save_file(state, path)
    with pytest.raises(ConversionError, match=r"attention\.dense\.weight as int8 and no .*_scale"):
        import_(tmp_path / "theirs", out=tmp_path / "ours")


def test_a_norm_epsilon_is_the_configuration_s(tmp_path):
    folder = write(tmp_path / "theirs", "chatglm-hf", layernorm_epsilon=1e-6)
    assert import_(folder, out=tmp_path / "ours").model["norm_eps"] == 1e-6
    assert ModelConfig().norm_eps != 1e-6


def test_a_chatglm_of_one_position_is_exported_to_no_code_that_has_two():
    model = ModelConfig(
        hidden_size=32, num_layers=2, num_heads=2, ffn_size=48, deepnorm="su", tie_head=False,
        activation="gelu_tanh", positions="rope_1d", max_position=512,
    )  # fmt: skip
    cfg = RunConfig(model=model, objective=ObjectiveConfig(positions="linear"))
    with pytest.raises(ConversionError, match="rope_2d"):
        family_of("sat", cfg)
