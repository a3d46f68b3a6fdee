import pytest
import torch

from blankfill.optim.muon import NEWTON_SCHULZ, Muon, orthogonalize
from optim.rounding import rounding_of_muon

PRECISIONS = (torch.float32, torch.bfloat16)


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def polar_factor(matrix):
    """The polynomials on the singular values, in float64: what the products should come to."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / (values**4).sum() ** 0.25
    for a, b, c in NEWTON_SCHULZ:
        values = a * values + b * values**3 + c * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (30, 30), (30, 44)])
def test_the_products_are_the_polynomials_of_the_singular_values(shape, dtype):
    matrix = drawn(shape)
    made = orthogonalize(matrix, dtype)
    assert made.dtype == dtype
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    off = left.T @ (made.double() - polar_factor(matrix)) @ right.T
    assert (off.abs().numpy() <= rounding_of_muon(matrix, dtype)).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_single_row_is_made_as_long_as_the_polynomials_say(dtype):
    # One singular value, which is 1 from the start: 1.0 times the polynomials, whose slopes there,
    # 24 times 2.5 times 4, amplify the rounding of the two norms.
    matrix = drawn((1, 5))
    error = (orthogonalize(matrix, dtype).double() - polar_factor(matrix)).abs().max()
    assert float(error) < 240 * 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (30, 30)])
def test_steps_are_those_of_torchs_muon_but_for_the_polynomials(shape, monkeypatch):
    # Torch's own polynomial, five times, on torch's normalisation: the rest must be the same.
    def orthogonalized(matrix, dtype):
        wide = matrix.shape[0] <= matrix.shape[1]
        x = matrix if wide else matrix.T
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x if wide else x.T

    monkeypatch.setattr("blankfill.optim.muon.orthogonalize", orthogonalized)
    ours, theirs = (torch.nn.Parameter(drawn(shape)) for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}
    both = (
        Muon([ours], **settings),
        torch.optim.Muon([theirs], **settings, nesterov=True, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(3):
        ours.grad = drawn(shape, step + 1)
        theirs.grad = ours.grad.clone()
        for optimizer in both:
            optimizer.step()
    moved = float((theirs.detach() - drawn(shape)).norm())
    # bfloat16, in torch's, keeps 8 bits and the iteration amplifies its rounding a few times.
    assert float((ours - theirs).detach().norm()) < 0.03 * moved
    buffers = [opt.state[p]["momentum_buffer"] for opt, p in zip(both, (ours, theirs), strict=True)]
    torch.testing.assert_close(*buffers, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (64, 64)])
def test_singular_values_come_near_one(shape):
    # Of the polynomials, so in float32; what bfloat16 may add to them is bounded above.
    matrix = drawn(shape)
    large = torch.linalg.svdvals(matrix) > 0.01 * torch.linalg.svdvals(matrix).pow(4).sum() ** 0.25
    values = torch.linalg.svdvals(orthogonalize(matrix, torch.float32))
    # The largest deviation that the three polynomials leave on [0.01, 1].
    assert float(values[: int(large.sum())].min()) > 0.73
    assert float(values.max()) < 1.27


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_gradient_of_zeros_or_of_tiny_numbers_moves_nothing_out_of_place(dtype):
    assert orthogonalize(torch.zeros(3, 4), dtype).eq(0).all()
    # A power of two leaves every rounding as it is but for the norms' floor of 1e-7.
    small, large = (orthogonalize(x * drawn((8, 8)), dtype) for x in (2.0**-18, 1.0))
    torch.testing.assert_close(small, large, rtol=0, atol=0)
