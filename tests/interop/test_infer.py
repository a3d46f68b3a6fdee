"""Published models are told by their shapes alone, at full size and without their weights."""

from pathlib import Path

import pytest
import torch

from blankfill.config.presets import preset
from blankfill.config.published import PUBLISHED
from blankfill.interop.infer import infer_config, preset_of
from blankfill.interop.keymap import tensors
from blankfill.interop.layouts import FAMILY_OF, Source
from blankfill.interop.merge import part_shape
from blankfill.interop.shards import StoredTensor
from blankfill.model.glm import GLM


def layout_of(cfg):
    if cfg.positions == "learned_2d":
        return "glm-megatron"
    return "sat-glm-130b" if cfg.tie_head else "chatglm-hf"


def whole(entry, shapes):
    """The shape of a foreign tensor, which may be several of ours."""
    rows, *width = shapes[entry.ours[0]]
    return (rows * len(entry.ours), *width)


def shapes_only(name, layout, num_ranks):
    """A checkpoint of that preset whose tensors have shapes and no values."""
    cfg = preset(name).model
    with torch.device("meta"):
        shapes = {n: tuple(p.shape) for n, p in GLM(cfg).state_dict().items()}
    rank = {
        t.theirs: StoredTensor(
            path=Path("w.pt"), name=t.theirs, dtype=torch.float16, stride=(), offset=0,
            shape=part_shape(whole(t, shapes), t.sharding, num_ranks),
        )
        for t in tensors(FAMILY_OF[layout], cfg)
    }  # fmt: skip
    return Source(path=Path("w"), layout=layout, ranks=[rank] * num_ranks)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_known_by_the_shapes_of_its_tensors(name):
    wanted = preset(name).model
    layout = layout_of(wanted)
    found = infer_config(shapes_only(name, layout, 1 if layout == "chatglm-hf" else 8
                                     if wanted.num_heads % 8 == 0 else 1))  # fmt: skip
    for field in ("vocab_size", "hidden_size", "num_layers", "num_heads", "ffn_size", "block",
                  "activation", "positions", "max_position", "tie_head", "norm_eps"):  # fmt: skip
        assert getattr(found, field) == getattr(wanted, field), field
    assert found.deepnorm_alpha == pytest.approx(wanted.deepnorm_alpha)
    same = preset(preset_of(found)).model  # GLM-Large, -Doc and -Sent are of one shape
    assert (same.hidden_size, same.num_layers, same.vocab_size) == (
        wanted.hidden_size, wanted.num_layers, wanted.vocab_size,
    )  # fmt: skip
