import dataclasses

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.model.attention import dense_attention, packed_attention
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.loss import target_loss
from blankfill.model.masks import DenseMask, PackedMask
from blankfill.model.targets import Targets
from blankfill.objective.mask import visible

SHAPES = {
    "ours": {},
    "deepnet": {"deepnorm": "deepnet"},
    "glm": {"block": "pre_ln", "activation": "gelu_tanh", "positions": "learned_2d"},
    "glm-130b": {"deepnorm": "su", "positions": "rope_1d"},
    "untied": {"tie_head": False, "activation": "gelu"},
    "post-ln": {"block": "post_ln", "activation": "relu", "positions": "none"},
    "paper": {"block": "deepnorm_paper", "activation": "swiglu", "pb_relax": 32.0},
    "sandwich": {"block": "sandwich", "qk_norm": True},
}


def tiny(**changes):
    return ModelConfig(
        **({"vocab_size": 120, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "ffn_size": 24,
            "max_position": 128} | changes)
    )  # fmt: skip


def shaken(cfg, dtype=torch.float64, seed=0):
    """A model far from its start, so that every path carries a signal."""
    model = GLM(cfg)
    init_weights(model, seed)
    model = model.to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.2 * noise).to(dtype))
    return model


@pytest.fixture
def batch(random_store, ids):
    rows = RowSource(
        [random_store([3, 9, 30, 44, 1, 17, 60] * 6, vocab_size=120)],
        ObjectiveConfig(short_rate=0.5, document_rate=0.5), ids, row_length=96, seed=4,
    )  # fmt: skip
    return rows.rows(0, 4)


def tensors(batch):
    return (
        torch.from_numpy(batch.tokens.astype(np.int64)),
        torch.from_numpy(batch.positions.astype(np.int64)),
        torch.from_numpy(batch.targets.astype(np.int64)),
    )


def oracle(batch):
    rows = zip(batch.segment_ids, batch.is_part_b, strict=True)
    return DenseMask(torch.from_numpy(np.stack([visible(s, b) for s, b in rows])))


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_and_dense_attention_give_one_loss_and_one_gradient(batch, shape):
    model = shaken(tiny(**SHAPES[shape]))
    tokens, positions, targets = tensors(batch)
    results = []
    for mask in (PackedMask(batch.blocks, batch.tokens.shape), oracle(batch)):
        model.zero_grad()
        loss, nll = model(tokens, positions, mask, targets=Targets.of(targets))
        loss.backward()
        results.append((loss.detach(), nll, [p.grad.clone() for p in model.parameters()]))
    (loss, nll, grads), (other, other_nll, other_grads) = results
    # float64, a few hundred sums: 1e-10 is a million rounding errors of room.
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, other_nll, rtol=1e-10, atol=1e-12)
    for a, b in zip(grads, other_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_loss_is_torchs_cross_entropy_and_so_is_its_gradient(batch):
    model = shaken(tiny())
    tokens, positions, targets = tensors(batch)
    weights = torch.rand(
        targets.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    mask = PackedMask(batch.blocks, batch.tokens.shape)
    loss, nll = model(tokens, positions, mask, targets=Targets.of(targets, weights))
    loss.backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    logits = model.logits(model(tokens, positions, mask)).flatten(0, 1)
    each = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
    expected = (each * weights.flatten()).sum()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, each[targets.flatten() >= 0].detach(), rtol=1e-10, atol=1e-12)
    for a, p in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-9, atol=1e-11)


def test_the_loss_does_not_depend_on_its_chunks(batch, monkeypatch):
    model = shaken(tiny())
    tokens, positions, targets = tensors(batch)
    made = Targets.of(targets)
    hidden = model(tokens, positions, PackedMask(batch.blocks, batch.tokens.shape))
    hidden = hidden.flatten(0, 1)[made.index]
    whole = target_loss(hidden, model.head_weight, made).nats
    monkeypatch.setattr("blankfill.model.loss.CHUNK_ELEMENTS", 500)
    found = target_loss(hidden, model.head_weight, made).nats
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)


def test_attention_gradients_are_finite_differences():
    blocks = np.array([[0, 0, 3, 6], [0, 6, 7, 8], [1, 0, 2, 2], [1, 2, 3, 5]], np.int32)
    mask = PackedMask(blocks, (2, 9))
    generator = torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(2, 9, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(3)
    ]
    assert torch.autograd.gradcheck(lambda q, k, v: packed_attention(q, k, v, mask), qkv)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_in_low_precision_is_as_good_as_the_dense_path(batch, dtype):
    generator = torch.Generator().manual_seed(0)
    wide = [torch.randn(4, 96, 2, 8, generator=generator) for _ in range(3)]
    exact = dense_attention(*(x.double() for x in wide), oracle(batch))
    narrow = [x.to(dtype) for x in wide]
    real = torch.from_numpy(batch.segment_ids >= 0)
    packed = packed_attention(*narrow, PackedMask(batch.blocks, batch.tokens.shape))
    dense = dense_attention(*narrow, oracle(batch))
    ours, theirs = ((x.double() - exact)[real].abs().max() for x in (packed, dense))
    assert torch.isfinite(packed).all()
    assert (packed[~real] == 0).all()
    assert ours <= 2 * theirs + 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_part_b_token_reaches_nothing_before_it_nor_part_a_nor_another_document(batch, shape):
    model = shaken(tiny(**SHAPES[shape]))
    tokens, positions, _ = tensors(batch)
    mask = PackedMask(batch.blocks, batch.tokens.shape)
    with torch.no_grad():
        before = model(tokens, positions, mask)
        changed = 0
        for row, start, part_b, end in batch.blocks[::3].tolist():
            place = (part_b + end) // 2
            if place >= end or place < part_b:
                continue
            other = tokens.clone()
            other[row, place] = (other[row, place] + 50) % 110 + 8
            moved = (model(other, positions, mask) != before).any(dim=-1)
            assert moved[row, place]
            inside = torch.zeros_like(moved)
            inside[row, place:end] = True
            assert not (moved & ~inside).any(), (row, start, part_b, end)
            changed += 1
    assert changed >= 4


@pytest.mark.parametrize("shape", SHAPES)
def test_a_document_in_a_row_is_the_document_alone(batch, shape):
    model = shaken(tiny(**SHAPES[shape]))
    tokens, positions, _ = tensors(batch)
    with torch.no_grad():
        packed = model(tokens, positions, PackedMask(batch.blocks, batch.tokens.shape))
        for row, start, part_b, end in batch.blocks.tolist():
            n, sep = end - start, part_b - start
            seen = visible(np.zeros(n, np.int32), np.arange(n) >= sep)
            alone = model(
                tokens[row : row + 1, start:end], positions[row : row + 1, :, start:end],
                DenseMask(torch.from_numpy(seen)[None]),
            )[0]  # fmt: skip
            torch.testing.assert_close(packed[row, start:end], alone, rtol=1e-9, atol=1e-10)


def test_rows_of_only_padding_and_blocks_without_part_b_are_finite():
    blocks = np.array([[1, 0, 4, 4]], np.int32)
    model = shaken(tiny())
    hidden = model(
        torch.ones(3, 8, dtype=torch.long), torch.zeros(3, 2, 8, dtype=torch.long),
        PackedMask(blocks, (3, 8)),
    )  # fmt: skip
    hidden.sum().backward()
    assert torch.isfinite(hidden).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_weights_depend_on_seed_and_name_alone():
    first, again, other = GLM(tiny()), GLM(tiny()), GLM(tiny())
    init_weights(first, 1)
    torch.rand(100)
    init_weights(again, 1)
    init_weights(other, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(first.embed.word.weight, other.embed.word.weight)
    assert not torch.equal(
        first.blocks["0"].attention.out.weight, first.blocks["1"].attention.out.weight
    )


@pytest.mark.parametrize(
    ("law", "beta"), [("su", 4**-0.5), ("deepnet", 16**-0.25), ("unit_gain", 1)]
)
def test_deepnorm_gains_fall_on_the_logical_matrices(law, beta):
    cfg = tiny(hidden_size=128, num_heads=2, ffn_size=256, deepnorm=law)
    model = GLM(cfg)
    init_weights(model, 0)
    block = model.blocks["1"]
    q, k, v = block.attention.q.weight, block.attention.k.weight, block.attention.v.weight
    square, wide = (2 / 256) ** 0.5, (2 / 384) ** 0.5
    # 16,384 values: five standard errors of a standard deviation are 2.8 %.
    for weight, std in [(q, square), (k, square), (v, beta * square),
                        (block.attention.out.weight, beta * square),
                        (block.mlp.up.weight, beta * wide), (block.mlp.gate.weight, beta * wide),
                        (block.mlp.down.weight, beta * wide)]:  # fmt: skip
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.028)
    assert float(model.embed.word.weight.detach().std()) == pytest.approx(
        (1 / 384) ** 0.5, rel=0.04
    )


def test_pre_ln_initialisation_is_the_released_one():
    cfg = tiny(hidden_size=128, num_heads=2, ffn_size=256, block="pre_ln", activation="gelu_tanh")
    model = GLM(cfg)
    init_weights(model, 0)
    block = model.blocks["0"]
    for module, std in [
        (block.attention.q, 0.02),
        (block.attention.k, 0.02),
        (block.attention.v, 0.02),
        (block.mlp.up, 0.02),
        (block.attention.out, 0.01),
        (block.mlp.down, 0.01),
    ]:
        weight = module.weight
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.028)


def test_embedding_gradient_shrink_keeps_the_value_and_its_share_of_the_gradient(batch):
    tokens, positions, _ = tensors(batch)
    mask = PackedMask(batch.blocks, batch.tokens.shape)
    gradients = []
    for shrink in (1.0, 0.1):
        cfg = tiny(tie_head=False, embedding_gradient_shrink=shrink)
        model = shaken(cfg)
        hidden = model(tokens, positions, mask)
        hidden.sin().sum().backward()
        gradients.append((hidden.detach(), model.embed.word.weight.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(0.1 * gradients[0][1], gradients[1][1], rtol=1e-7, atol=1e-10)


def test_dropout_changes_training_and_not_evaluation(batch):
    model = shaken(dataclasses.replace(tiny(), dropout=0.3), torch.float32)
    tokens, positions, targets = tensors(batch)
    mask = PackedMask(batch.blocks, batch.tokens.shape)
    torch.manual_seed(0)
    first = model(tokens, positions, mask)
    assert not torch.equal(first, model(tokens, positions, mask))
    model(tokens, positions, mask, targets=Targets.of(targets)).total.backward()
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(tokens, positions, mask), model(tokens, positions, mask))
