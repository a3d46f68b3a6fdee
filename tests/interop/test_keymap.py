"""The tables of names, in both directions."""

import dataclasses

import pytest
import torch

from blankfill.errors import ConversionError
from blankfill.interop.keymap import FAMILIES, TEMPLATES, from_ours, tensors, to_ours
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights


def small(family, **changes):
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_layers": 3, "num_heads": 2, "ffn_size": 24,
             "max_position": 12}  # fmt: skip
    return dataclasses.replace(TEMPLATES[family], **(sizes | changes))


def filled(cfg):
    model = GLM(cfg)
    init_weights(model, 0)
    return model.state_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_names_every_tensor_of_the_model_once(family):
    table = tensors(family, small(family))
    assert sorted(n for t in table for n in t.ours) == sorted(filled(small(family)))
    assert len({t.theirs for t in table}) == len(table)


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_the_identity(family):
    cfg = small(family)
    own = filled(cfg)
    back = to_ours(family, from_ours(family, own, cfg), cfg)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_interleaved_rows_are_q_k_v_of_each_head_in_turn():
    cfg = small("glm130b")
    names = [f"blocks.0.attention.{part}.bias" for part in "qkv"]
    own = dict(zip(names, torch.arange(48).chunk(3), strict=True))
    (line,) = (t for t in tensors("glm130b", cfg) if list(t.ours) == names)
    # Heads are 8 rows wide: ours are Q 0..15, K 16..31, V 32..47; theirs alternate.
    expected = [*range(8), *range(16, 24), *range(32, 40),
                *range(8, 16), *range(24, 32), *range(40, 48)]  # fmt: skip
    assert line.write(own, 2).tolist() == expected


def test_a_checkpoint_without_span_positions_has_them_zero():
    cfg = small("glm")
    foreign = from_ours("glm", filled(cfg), cfg)
    del foreign["transformer.block_position_embeddings.weight"]
    ours = to_ours("glm", foreign, cfg)
    assert ours["embed.block_position.weight"].shape == ours["embed.position.weight"].shape
    assert not ours["embed.block_position.weight"].any()


def test_tables_of_frequencies_are_ignored():
    cfg = small("hf_chatglm")
    foreign = from_ours("hf_chatglm", filled(cfg), cfg)
    foreign["transformer.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
    assert to_ours("hf_chatglm", foreign, cfg).keys() == filled(cfg).keys()


def test_a_missing_tensor_is_named():
    cfg = small("glm")
    foreign = from_ours("glm", filled(cfg), cfg)
    del foreign["transformer.layers.1.mlp.dense_h_to_4h.bias"]
    with pytest.raises(ConversionError, match=r"layers\.1\.mlp\.dense_h_to_4h\.bias is missing"):
        to_ours("glm", foreign, cfg)


def test_a_layer_too_many_is_named():
    cfg = small("glm")
    foreign = from_ours("glm", filled(cfg), cfg)
    with pytest.raises(ConversionError, match=r"layers\.2\..* has no place .* of 2 layers"):
        to_ours("glm", foreign, dataclasses.replace(cfg, num_layers=2))


@pytest.mark.parametrize(
    ("family", "changes", "field"),
    [
        ("glm", {"block": "sandwich"}, "block=sandwich"),
        ("glm", {"positions": "none"}, "positions=none"),
        ("glm", {"activation": "geglu"}, "is_gated=True"),
        ("glm130b", {"tie_head": False}, "tie_head=False"),
        ("hf_chatglm", {"qk_norm": True}, "qk_norm=True"),
    ],
)
def test_a_model_that_a_family_cannot_hold_is_refused(family, changes, field):
    with pytest.raises(ConversionError, match=field):
        tensors(family, small(family, **changes))


def test_sat_holds_sandwich_norms():
    table = {
        name: t.theirs
        for t in tensors("sat_glm", small("sat_glm", block="sandwich"))
        for name in t.ours
    }
    assert table["blocks.2.mlp_out_norm.bias"] == "transformer.layers.2.fourth_layernorm.bias"


def test_chatglm_keeps_the_alpha_of_28_layers_and_sat_follows_the_number_of_layers():
    # The released block is built without its number of layers (deepnorm_and_init.json).
    assert small("hf_chatglm", num_layers=2).deepnorm_alpha == pytest.approx(7.4833148)
    assert small("chatglm_sat", num_layers=2).deepnorm_alpha == pytest.approx(2.0)
