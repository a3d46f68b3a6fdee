"""Arrangements of norms and residuals, and the options of the published models."""

import dataclasses

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.model import attention
from blankfill.model.attention import Attention, dense_attention, packed_attention
from blankfill.model.block import DeepNormBlock, PostLNBlock, PreLNBlock, SandwichBlock
from blankfill.model.embedding import shrink_gradient
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask, PackedMask

TOKENS = torch.arange(24).view(2, 12) % 30
POSITIONS = torch.arange(12).expand(2, 2, 12)
CAUSAL = DenseMask(torch.ones(1, 12, 12, dtype=torch.bool).tril())


def tiny(**changes):
    return ModelConfig(
        **({"vocab_size": 30, "hidden_size": 16, "num_layers": 3, "num_heads": 2, "ffn_size": 24,
            "max_position": 16} | changes)
    )  # fmt: skip


def shaken(cfg, seed=0):
    model = GLM(cfg)
    init_weights(model, seed)
    model = model.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)
    return model


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ("pre_ln", PreLNBlock),
        ("deepnorm", DeepNormBlock),
        ("deepnorm_paper", PostLNBlock),
        ("post_ln", PostLNBlock),
        ("sandwich", SandwichBlock),
    ],
)
def test_each_arrangement_has_the_tensors_that_checkpoints_name(block, kind):
    model = GLM(tiny(block=block))
    assert all(type(b) is kind for b in model.blocks.values())
    names = {n.removeprefix("blocks.1.") for n in model.state_dict() if n.startswith("blocks.1.")}
    parts = ["attention_norm", *(f"attention.{x}" for x in ("q", "k", "v", "out"))]
    parts += ["mlp_norm", "mlp.up", "mlp.gate", "mlp.down"]
    if block == "sandwich":
        parts += ["attention_out_norm", "mlp_out_norm"]
    assert names == {f"{part}.{x}" for part in parts for x in ("weight", "bias")}
    rest = {n for n in model.state_dict() if not n.startswith("blocks.")}
    ends_outside = block not in ("post_ln", "deepnorm_paper")
    norm = {"norm.weight", "norm.bias"} if ends_outside else set()
    assert rest == {"embed.word.weight"} | norm


def test_the_released_deepnorm_is_the_papers_after_one_more_norm():
    # LN1 of layer 0 becomes a norm of the embeddings, every other norm ends its branch.
    released = shaken(tiny(block="deepnorm", positions="rope_1d", deepnorm="su"))
    paper = GLM(dataclasses.replace(released.cfg, block="deepnorm_paper")).double()
    state = released.state_dict()
    moved = {k: v for k, v in state.items() if "norm" not in k}
    for n in range(3):
        last = "norm" if n == 2 else f"blocks.{n + 1}.attention_norm"
        for x in ("weight", "bias"):
            moved[f"blocks.{n}.attention_norm.{x}"] = state[f"blocks.{n}.mlp_norm.{x}"]
            moved[f"blocks.{n}.mlp_norm.{x}"] = state[f"{last}.{x}"]
    paper.load_state_dict(moved)
    first = released.blocks["0"].attention_norm
    paper.embed.register_forward_hook(lambda _module, _inputs, h: first(h))
    with torch.no_grad():
        # float64, three layers: a few roundings.
        torch.testing.assert_close(
            paper(TOKENS, POSITIONS, CAUSAL), released(TOKENS, POSITIONS, CAUSAL),
            rtol=1e-11, atol=1e-12,
        )  # fmt: skip


def test_post_ln_is_the_papers_deepnorm_with_alpha_one():
    model = shaken(tiny(block="post_ln"))
    other = GLM(tiny(block="deepnorm_paper", residual_scale=1.0)).double()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(TOKENS, POSITIONS, CAUSAL), other(TOKENS, POSITIONS, CAUSAL))


@pytest.mark.parametrize("block", ["post_ln", "sandwich"])
def test_arrangements_without_a_law_of_their_own_start_as_pre_ln(block):
    # The same names have the same addresses, so the same values.
    first, other = GLM(tiny(block="pre_ln")), GLM(tiny(block=block))
    init_weights(first, 7)
    init_weights(other, 7)
    own, theirs = first.state_dict(), other.state_dict()
    shared = [n for n in own if n in theirs]
    assert len(shared) >= 37
    assert all(torch.equal(own[n], theirs[n]) for n in shared)


def test_both_forms_of_deepnorm_start_alike():
    first, other = GLM(tiny(deepnorm="su")), GLM(tiny(deepnorm="su", block="deepnorm_paper"))
    init_weights(first, 7)
    init_weights(other, 7)
    other_state = other.state_dict()
    assert all(torch.equal(first.state_dict()[n], other_state[n]) for n in other_state)


@pytest.mark.parametrize("attend", ["dense", "packed"])
def test_pb_relax_keeps_float16_from_overflowing(attend):
    # Entries of 100 over 64 dimensions make scores of 640,000; float16 ends at 65,504.
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 6, 1, 64, generator=generator) for _ in range(3))
    q, k = 100 * q.sign(), 100 * k.sign()
    mask = DenseMask(torch.ones(1, 6, 6, dtype=torch.bool))
    if attend == "packed":
        mask = PackedMask(np.array([[0, 0, 6, 6]], np.int32), (1, 6))
    run = dense_attention if attend == "dense" else packed_attention
    exact = run(q, k, v, mask)
    half = [x.half() for x in (q, k, v)]
    plain = run(*half, mask)
    relaxed = run(half[0] * (1 / (8 * 32)), *half[1:], mask, 0.0, 32.0)
    assert not torch.isfinite(plain).all()
    # One row's weights fall on one key, so what remains is the rounding of v.
    torch.testing.assert_close(relaxed.float(), exact, rtol=2e-3, atol=1e-3)


def test_pb_relax_changes_nothing_but_rounding_in_the_model():
    model = shaken(tiny())
    other = GLM(tiny(pb_relax=32.0)).double()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            other(TOKENS, POSITIONS, CAUSAL), model(TOKENS, POSITIONS, CAUSAL),
            rtol=1e-11, atol=1e-12,
        )  # fmt: skip


def test_normalised_queries_and_keys_forget_their_size():
    model = shaken(tiny(qk_norm=True, positions="none"))
    before = model(TOKENS, POSITIONS, CAUSAL)
    with torch.no_grad():
        for block in model.blocks.values():
            assert isinstance(block.attention, Attention)
            for layer in (block.attention.q, block.attention.k):
                layer.weight *= 1000
                layer.bias *= 1000
    after = model(TOKENS, POSITIONS, CAUSAL)
    # LayerNorm's epsilon is what is left of the size.
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("positions", ["rope_2d", "none"])
def test_attention_is_given_one_type_where_a_norm_s_result_is_wider(positions, monkeypatch):
    seen = []

    def attend(q, k, v, *rest):
        seen.append((q.dtype, k.dtype, v.dtype))
        return dense_attention(q, k, v, *rest)

    monkeypatch.setattr(attention, "attend", attend)
    model = GLM(tiny(qk_norm=True, positions=positions))
    init_weights(model, 0)
    for block in model.blocks.values():  # as autocast computes a norm on CUDA
        for norm in (block.attention.q_norm, block.attention.k_norm):
            norm.register_forward_hook(lambda _module, _inputs, found: found.float())
    with torch.autocast("cpu", torch.bfloat16):
        model(TOKENS, POSITIONS, CAUSAL)
    assert seen == [(torch.bfloat16,) * 3] * 3


def test_without_positions_a_permuted_context_reads_the_same():
    model = shaken(tiny(positions="none", num_layers=2))
    everyone = DenseMask(torch.ones(1, 12, 12, dtype=torch.bool))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        straight = model(TOKENS, POSITIONS, everyone)
        permuted = model(TOKENS[:, order], POSITIONS, everyone)
    torch.testing.assert_close(permuted, straight[:, order], rtol=1e-10, atol=1e-11)


def test_a_shrunk_gradient_is_its_share_and_the_value_is_untouched():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    y = shrink_gradient(x, 0.25)
    (y * torch.arange(5)).sum().backward()
    assert torch.equal(y, x)
    assert torch.equal(x.grad, 0.25 * torch.arange(5, dtype=torch.float64))


def test_the_tied_heads_gradient_is_shrunk_only_where_asked():
    gradients = {}
    for shrink_head in (False, True):
        model = shaken(tiny(embedding_gradient_shrink=0.1, shrink_head=shrink_head))
        hidden = model(TOKENS, POSITIONS, CAUSAL).detach()
        model.logits(hidden).sin().sum().backward()
        gradients[shrink_head] = model.embed.word.weight.grad
    torch.testing.assert_close(gradients[True], 0.1 * gradients[False], rtol=1e-12, atol=0)


@pytest.mark.parametrize("which", ["attention_dropout", "embedding_dropout"])
def test_each_dropout_can_be_the_only_one(which):
    model = shaken(dataclasses.replace(tiny(), **{which: 0.5}))
    torch.manual_seed(0)
    assert not torch.equal(model(TOKENS, POSITIONS, CAUSAL), model(TOKENS, POSITIONS, CAUSAL))


def test_a_rate_of_its_own_replaces_the_common_one():
    model = GLM(tiny(dropout=0.5, attention_dropout=0.0, embedding_dropout=0.25))
    block = model.blocks["0"]
    rates = block.dropout.rate, block.attention.dropout, model.embed.dropout.rate
    assert rates == (0.5, 0.0, 0.25)
