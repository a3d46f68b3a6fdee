import pytest
import torch

from blankfill.optim.muon import Muon, orthogonalize


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (30, 30)])
def test_steps_are_those_of_torchs_muon_within_its_bfloat16(shape):
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
    # bfloat16 keeps 8 bits and the iteration amplifies its rounding a few times.
    assert float((ours - theirs).detach().norm()) < 0.03 * moved
    buffers = [opt.state[p]["momentum_buffer"] for opt, p in zip(both, (ours, theirs), strict=True)]
    torch.testing.assert_close(*buffers, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16)])
def test_singular_values_come_near_one(shape):
    # The iteration oscillates around 1 on purpose; (0.5, 1.5) is what its authors say of it.
    values = torch.linalg.svdvals(orthogonalize(drawn(shape), torch.float32))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5
