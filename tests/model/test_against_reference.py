"""The real model beside a naive float64 one that was written from the papers."""

import itertools

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import PackedMask
from blankfill.model.targets import Targets
from blankfill.objective.batch import IGNORE_INDEX, End, Kind
from blankfill.objective.blank import build_example
from blankfill.objective.pack import stack
from blankfill.objective.special import SpecialIds
from reference import glm_float64

IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
BLOCKS = ("pre_ln", "deepnorm", "deepnorm_paper", "post_ln", "sandwich")
ACTIVATIONS = ("geglu", "swiglu", "gelu_tanh", "gelu", "relu")
POSITIONS = ("rope_2d", "rope_1d", "learned_2d", "none")
# Every pair of choices meets once at least: the naive model is too slow for all hundred triples.
PAIRWISE = [
    {"block": block, "activation": activation, "positions": POSITIONS[(b + a) % 4]}
    for b, block in enumerate(BLOCKS)
    for a, activation in enumerate(ACTIVATIONS)
]
OPTIONS = [
    {"tie_head": False},
    {"deepnorm": "su"},
    {"deepnorm": "deepnet", "block": "deepnorm_paper"},
    {"residual_scale": 3.0},
    {"rope_angles": "float16"},
    {"qk_norm": True},
    {"qk_norm": True, "block": "sandwich", "positions": "learned_2d"},
    {"pb_relax": 32.0},
    {"embedding_gradient_shrink": 0.1},
    {"embedding_gradient_shrink": 0.1, "shrink_head": True},
]


def test_every_pair_of_block_activation_and_position_is_covered():
    fields = {"block": BLOCKS, "activation": ACTIVATIONS, "positions": POSITIONS}
    for (one, ones), (other, others) in itertools.combinations(fields.items(), 2):
        met = {(c[one], c[other]) for c in PAIRWISE}
        assert met == set(itertools.product(ones, others))


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    first = build_example(
        rng.integers(8, 20, 7).astype(np.int32), np.array([[1, 3], [5, 6]]), kind=Kind.SHORT,
        order=np.array([1, 0]), ids=IDS,
    )  # fmt: skip
    second = build_example(
        rng.integers(8, 20, 3).astype(np.int32), np.array([[1, 3]]), kind=Kind.DOCUMENT,
        order=np.array([0]), ids=IDS, end=End.NONE,
    )  # fmt: skip
    return [first, second]


@pytest.mark.parametrize(
    "changes", PAIRWISE + OPTIONS, ids=lambda c: "-".join(f"{k}={v}" for k, v in c.items())
)
def test_logits_loss_and_every_gradient_agree_with_the_naive_model(examples, changes):
    cfg = ModelConfig(
        **{"vocab_size": 20, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "ffn_size": 5,
           "max_position": 16} | changes
    )  # fmt: skip
    model = GLM(cfg)
    init_weights(model, 1)
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).double())

    batch = stack([examples], 24, pad=0, documents=[0, 1], languages=[0, 0], sources=[0, 0])
    made = (
        torch.from_numpy(batch.tokens.astype(np.int64)),
        torch.from_numpy(batch.positions.astype(np.int64)),
        PackedMask(batch.blocks, batch.tokens.shape),
    )
    targets = Targets.of(torch.from_numpy(batch.targets.astype(np.int64)))
    hidden, (ours, _) = model(*made), model(*made, targets=targets)
    ours.backward()

    weights = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    law = {"unit_gain": 4**0.25, "deepnet": 4**0.25, "su": 2.0}[cfg.deepnorm]
    scaled = cfg.block in ("deepnorm", "deepnorm_paper")
    naive = {
        "num_layers": 2, "num_heads": 2, "block": cfg.block,
        "alpha": (cfg.residual_scale or law) if scaled else 1.0,
        "activation": cfg.activation, "positions": cfg.positions, "qk_norm": cfg.qk_norm,
        "rope_angles": cfg.rope_angles, "shrink": cfg.embedding_gradient_shrink,
        "shrink_head": cfg.shrink_head,
    }  # fmt: skip
    total = torch.zeros((), dtype=torch.float64)
    for example, (_, start, _, end) in zip(examples, batch.blocks, strict=True):
        document = (
            example.tokens.tolist(), example.positions.T.tolist(), example.part_b_start,
        )  # fmt: skip
        scores = torch.stack(glm_float64.logits(document, weights, naive))
        real = model.logits(hidden[0, start:end])
        # float64 on both sides; sums of tens of terms in another order.
        torch.testing.assert_close(real, scores, rtol=1e-10, atol=1e-11)
        targets = [None if t == IGNORE_INDEX else t for t in example.targets.tolist()]
        total = total + glm_float64.loss(scores, targets)
    torch.testing.assert_close(ours, total, rtol=1e-11, atol=0)
    total.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            weights[name].grad,
            rtol=1e-8,
            atol=1e-10,
            msg=lambda m, n=name: f"{n}: {m}",
        )
