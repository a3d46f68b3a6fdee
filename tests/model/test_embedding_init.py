"""Vectors of neighbours against a dense decomposition in float64, and how a model takes them."""

import numpy as np
import torch

from blankfill.config.model import ModelConfig
from blankfill.model.embedding_init import CONTEXT_POWER, embed_neighbours, neighbour_vectors
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights


def themed_counts(vocab_size=300, contexts=120, themes=6, seed=0):
    """Counts of tokens that each prefer the contexts of one theme; themes differ in strength."""
    rng = np.random.default_rng(seed)
    affinity = np.ones((vocab_size, contexts))
    for token in range(vocab_size):
        own = np.arange(contexts) % themes == token % themes
        affinity[token, own] *= 4 + 3 * (token % themes)
    return rng.poisson(3 * affinity).astype(np.float64)


def reference_vectors(counts, size):
    """The same by the textbook, with a full decomposition."""
    joint = counts / counts.sum()
    own = joint.sum(1, keepdims=True)
    law = counts.sum(0) ** CONTEXT_POWER
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(joint / (own * (law / law.sum())))
    information = np.where(information > 0, information, 0.0)
    left, values, _ = np.linalg.svd(information, full_matrices=False)
    vectors = left[:, :size] * np.sqrt(values[:size])
    return vectors - vectors[counts.sum(1) > 0].mean(0)


def test_vectors_are_those_of_a_full_decomposition_up_to_a_rotation():
    counts = themed_counts()
    ours = neighbour_vectors(torch.from_numpy(counts), 6, seed=1).numpy()
    theirs = reference_vectors(counts, 6)
    # A rotation changes vectors and no inner product. The themes' singular values stand clear of
    # the noise, so four products with the matrix leave the subspace exact to about 1e-9.
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-7)
    assert not np.allclose(np.abs(ours), np.abs(theirs), atol=1e-2)  # it was turned


def test_tokens_without_neighbours_have_no_vector_and_change_no_other():
    counts = torch.from_numpy(themed_counts())
    without = torch.cat([counts, torch.zeros(5, counts.shape[1], dtype=counts.dtype)])
    vectors = neighbour_vectors(without, 6, seed=1)
    assert torch.isfinite(vectors).all()
    assert (vectors[-5:] == 0).all()
    torch.testing.assert_close(
        vectors[:-5] @ vectors[:-5].T,
        (own := neighbour_vectors(counts, 6, seed=1)) @ own.T,
        atol=1e-7,
        rtol=0,
    )


def test_fewer_contexts_than_dimensions():
    counts = torch.from_numpy(themed_counts(contexts=12)).float()
    vectors = neighbour_vectors(counts, 32, seed=1)
    assert vectors.shape == (300, 32)
    assert torch.linalg.matrix_rank(vectors) <= 12
    assert torch.isfinite(vectors).all()


def test_no_text_at_all_gives_no_vectors():
    assert (neighbour_vectors(torch.zeros(7, 3), 4, seed=1) == 0).all()


def small_model(seed=3):
    model = GLM(ModelConfig(vocab_size=320, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16))
    init_weights(model, seed)
    return model


def test_rows_of_known_tokens_are_replaced_and_keep_the_scale():
    counts = torch.from_numpy(themed_counts()).float()
    frequency = torch.full((300,), 9)
    frequency[[3, 7]] = torch.tensor([0, 1])
    counts[3] = 0
    before, model = small_model(), small_model()
    # The model has 20 rows more than there are counts: a rounded-up vocabulary.
    assert embed_neighbours(model.embed.word.weight, counts, frequency, seed=3) == 298
    random, now = before.embed.word.weight, model.embed.word.weight
    kept = [3, 7, *range(300, 320)]
    assert torch.equal(now[kept], random[kept])
    changed = torch.ones(320, dtype=torch.bool)
    changed[kept] = False
    scale = random.square().mean().sqrt() * 4
    torch.testing.assert_close(now[changed].norm(dim=1), scale.expand(298), rtol=1e-5, atol=0)
    unit = now[:300] / now[:300].norm(dim=1, keepdim=True)
    likeness = unit @ unit.T
    theme = torch.arange(300) % 6
    same = (theme[:, None] == theme[None, :]) & ~torch.eye(300, dtype=torch.bool)
    assert likeness[same].mean() > 0.5 > 0.1 > likeness[~same].mean()
    others = [(a, b) for (a, x), (b, y) in zip(
        before.named_parameters(), model.named_parameters(), strict=True
    ) if not torch.equal(x, y)]  # fmt: skip
    assert others == [("embed.word.weight", "embed.word.weight")]


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_rotation():
    counts = torch.from_numpy(themed_counts()).float()
    one, two = (neighbour_vectors(counts, 6, seed=5) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, neighbour_vectors(counts, 6, seed=6), atol=1e-2)
