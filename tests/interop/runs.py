"""Small runs on disk, of any architecture."""

from __future__ import annotations

import torch

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.interop.resize import write_resized
from blankfill.model import GLM, init_weights
from blankfill.runs.record import ResizedFrom
from blankfill.text.tokenizer import Tokenizer
from conftest import run_record

RESIZED = ResizedFrom(run="", step=0, tokenizer="", num_kept=0, num_from_file=0)
SMALL = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "ffn_size": 48, "max_position": 128}

ARCHITECTURES = {
    "ours": {},
    "glm-10b": {"block": "pre_ln", "activation": "gelu_tanh", "positions": "learned_2d"},
    "glm-130b": {"deepnorm": "su", "positions": "rope_1d", "embedding_gradient_shrink": 0.1},
    "chatglm-6b": {
        "residual_scale": 7.5, "activation": "gelu_tanh", "tie_head": False,
        "rope_angles": "float16",
    },
    "paper": {"block": "deepnorm_paper", "activation": "swiglu", "qk_norm": True},
    "sandwich": {"block": "sandwich", "activation": "relu", "pb_relax": 32.0},
    "post-ln": {"block": "post_ln", "activation": "gelu", "positions": "none", "tie_head": False},
}  # fmt: skip
"""One of each block, activation, position and option."""

SHARPNESS = {
    "ours": (0.2, 4.0), "glm-10b": (0.4, 6.0), "glm-130b": (0.2, 6.0), "chatglm-6b": (0.2, 2.0),
    "paper": (0.2, 3.0), "sandwich": (0.4, 6.0), "post-ln": (0.4, 6.0),
}  # fmt: skip
"""Noise on every weight, and how far the end token is favoured: blanks end after a few tokens."""


def make_model(cfg, eop, architecture="ours", seed=5):
    """A model far from its start, so that its answers are sharp and no weight is a constant.

    It ends most blanks after a few tokens, so that fills of several blanks follow each other.
    """
    noise, favour = SHARPNESS[architecture]
    model = GLM(cfg)
    init_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
        last = model.norm if cfg.has_final_norm else model.blocks[str(cfg.num_layers - 1)].mlp_norm
        last.bias += favour * model.head_weight[eop] / model.head_weight[eop].norm()
    return model.eval()


def make_run(folder, tokenizer_folder, architecture="ours", scheme="corrupted", **options):
    """Write a run of one checkpoint and give its folder."""
    tokenizer = Tokenizer.load(tokenizer_folder)
    rows = -(-tokenizer.vocab_size // 64) * 64
    cfg = RunConfig(
        model=ModelConfig(vocab_size=rows, **{**SMALL, **ARCHITECTURES[architecture], **options}),
        objective=ObjectiveConfig(positions=scheme),
        train=TrainConfig(row_length=128, threads=1),
    )
    folder.mkdir(parents=True)
    model = make_model(cfg.model, tokenizer.ids.eop, architecture)
    write_resized(folder, run_record(cfg), model.state_dict(), tokenizer, RESIZED)
    return folder
