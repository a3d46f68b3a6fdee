"""The loss: logits only where there is a target, cross-entropy in float32, a chunk at a time.

The gradient of cross-entropy is known as soon as the logits are, so the forward pass computes both
and the `[n, V]` logits of all targets never exist together.

Shapes: n targets, D hidden, V vocabulary, or the part of it that is scored here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch

from blankfill.kernels.native import TYPES, Native, load_native
from blankfill.model.linear import Matrix
from blankfill.model.quantized import QuantizedMatrix
from blankfill.model.targets import Targets

__all__ = ["Loss", "VocabularyPart", "target_loss"]

CHUNK_ELEMENTS = 4_000_000
"""Logits held at a time: 16 MB in float32, about what a CPU's last cache holds."""
MIN_CHUNK_ROWS = 512
"""Fewer targets at a time make thin products, and read the matrix's gradient too often."""


class Loss(NamedTuple):
    """The loss of a batch."""

    total: torch.Tensor
    """The weighted sum in nats, z-loss included; float32 or wider, differentiable once."""
    nats: torch.Tensor
    """`[n]` unweighted nats of each target, without the z-loss; detached."""


class VocabularyPart(Protocol):
    """Tokens of which some are scored here and others elsewhere, each part with its own rows of the
    matrix; and how the parts put together what they have of a row's softmax."""

    @property
    def first(self) -> int:
        """Id of the first token here."""
        ...

    def largest_(self, x: torch.Tensor) -> torch.Tensor:
        """Replace each value by the largest that a part has."""
        ...

    def total_(self, x: torch.Tensor) -> torch.Tensor:
        """Replace each value by the sum of those that the parts have."""
        ...

    def joined(self, scores: torch.Tensor) -> torch.Tensor:
        """Put the parts' `[..., V]` scores side by side; training has no need of it."""
        ...


def target_loss(
    hidden: torch.Tensor,
    matrix: Matrix,
    targets: Targets,
    z_loss: float = 0.0,
    part: VocabularyPart | None = None,
) -> Loss:
    """Sum the weighted negative log-likelihood of the targets.

    Args:
        hidden: `[n, D]` of the positions with a target.
        matrix: `[V, D]` of the output layer; of one that is quantised there is no gradient.
        targets: what they are to predict.
        z_loss: weight of the squared log of each softmax's denominator, which is added to the
            sum (Chowdhery et al. 2022, section 5); 0 is off.
        part: where the matrix has some rows of the vocabulary's alone. The loss is of all tokens;
            the gradient of `hidden` is what these add to it.
    """
    if isinstance(matrix, QuantizedMatrix):
        assert part is None, "what is quantised is not laid out over processes"
        return _loss_alone(hidden, matrix, targets, z_loss)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    made: Any = _ChunkedCrossEntropy.apply(
        hidden, matrix, targets.ids, targets.weights, z_loss, part
    )
    return Loss(*made)


def _loss_alone(
    hidden: torch.Tensor, matrix: QuantizedMatrix, targets: Targets, z_loss: float
) -> Loss:
    """Compute the loss without a gradient."""
    rows = max(1, CHUNK_ELEMENTS // matrix.shape[0])
    parts: list[torch.Tensor] = []
    normalizers: list[torch.Tensor] = []
    for some, ids in zip(hidden.split(rows), targets.ids.split(rows), strict=True):
        logits = matrix(some)
        normalizers.append(logits.logsumexp(dim=-1))
        parts.append(normalizers[-1] - logits.gather(1, ids[:, None])[:, 0])
    nats = torch.cat(parts)
    each = nats + z_loss * torch.cat(normalizers) ** 2 if z_loss else nats
    return Loss((each if targets.weights is None else each * targets.weights).sum(), nats)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base has *args
        ctx: Any,
        hidden: torch.Tensor,
        matrix: torch.Tensor,
        targets: torch.Tensor,
        scale: torch.Tensor | None,
        z_loss: float,
        part: VocabularyPart | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        num_targets, vocab_size = len(targets), matrix.shape[0]
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        narrow = matrix.to(hidden.dtype)  # the matrix's gradient keeps its own precision
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = max(1, min(num_targets, max(MIN_CHUNK_ROWS, CHUNK_ELEMENTS // vocab_size)))
        logits = hidden.new_empty(rows, vocab_size)
        way = _way_for(logits, wide, part)
        normalizer = hidden.new_empty(num_targets, dtype=wide)
        nll = torch.empty_like(normalizer)
        grad_hidden = torch.empty_like(hidden)
        grad_matrix = way.begin_sum(matrix) if needs_grad else None
        for start in range(0, num_targets, rows):
            chunk = slice(start, min(start + rows, num_targets))
            wanted = targets[chunk]
            scores = torch.mm(hidden[chunk], narrow.T, out=logits[: len(wanted)])
            grad = way.score(scores, wanted, normalizer[chunk], nll[chunk], needs_grad, z_loss)
            if grad_matrix is None:
                continue
            # A row's gradient is weight * (factor * p - onehot). What multiplies the whole row is
            # left to the hidden states, which are narrow, where logits are not.
            factor = 1 + 2 * z_loss * normalizer[chunk, None]
            if scale is not None:
                factor = factor * scale[chunk, None]
            torch.mm(grad, narrow, out=grad_hidden[chunk]).mul_(factor)
            way.add_product(grad_matrix, grad, (hidden[chunk] * factor).to(hidden.dtype))
        if grad_matrix is not None:
            ctx.save_for_backward(grad_hidden, grad_matrix)
        ctx.mark_non_differentiable(nll)
        each = nll + z_loss * normalizer**2 if z_loss else nll
        return (each if scale is None else each * scale).sum(), nll

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _grad_nll: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        grad_hidden, grad_matrix = ctx.saved_tensors
        # In place: one more copy of the matrix would be the largest tensor of the step. A graph
        # that is kept is gone through again, as where a pipeline halves a backward pass.
        if _graph_is_kept():
            return grad_hidden * grad, grad_matrix * grad, None, None, None, None
        return grad_hidden.mul_(grad), grad_matrix.mul_(grad), None, None, None, None


def _graph_is_kept() -> bool:
    """Tell whether the graph of the backward pass at hand stays, as AOTAutograd asks too."""
    of_torch: Any = torch._C  # pyright: ignore[reportPrivateUsage]  # nothing public tells it
    return of_torch._autograd._get_current_graph_task_keep_graph()


class _ByTensors:
    """What is done with a chunk of logits, by tensor operations.

    Args:
        logits: `[r, V]` of the largest chunk.
        wide: type of softmax and sums.
    """

    def __init__(self, logits: torch.Tensor, wide: torch.dtype) -> None:
        self._wide = wide
        self._room = logits if logits.dtype == wide else torch.empty_like(logits, dtype=wide)

    def score(
        self, scores: torch.Tensor, targets: torch.Tensor, normalizer: torch.Tensor,
        nll: torch.Tensor, needs_grad: bool, z_loss: float,
    ) -> torch.Tensor:  # fmt: skip
        """Fill the log of the softmax's denominator and the nats of each row of a chunk.

        Returns:
            Softmax, less `1 / (1 + 2 z_loss normalizer)` at the target, in the type of the scores,
            which it may overwrite; of use where a gradient is needed.
        """
        p, wanted = self._room[: len(targets)], targets[:, None]
        own, largest = scores.gather(1, wanted)[:, 0].to(p.dtype), scores.amax(1).to(p.dtype)
        torch.softmax(scores, -1, dtype=p.dtype, out=p)
        # The largest probability is exp(largest - normalizer); it never underflows.
        torch.sub(largest, p.amax(1).log_(), out=normalizer)
        torch.sub(normalizer, own, out=nll)
        if not needs_grad:
            return p
        p.scatter_add_(1, wanted, -1 / (1 + 2 * z_loss * normalizer[:, None]))
        return p if scores.dtype == p.dtype else scores.copy_(p)

    def begin_sum(self, matrix: torch.Tensor) -> torch.Tensor:
        """Give a matrix's gradient, to which no product has been added."""
        return matrix.new_zeros(matrix.shape, dtype=self._wide)

    def add_product(self, total: torch.Tensor, grad: torch.Tensor, source: torch.Tensor) -> None:
        """Add a chunk's part of a matrix's gradient, `grad^T source`."""
        if grad.dtype == self._wide:
            torch.addmm(total, grad.T, source, out=total)
        else:
            total += grad.T @ source


class _InParts(_ByTensors):
    """The same where other tokens are scored elsewhere. What travels is of each target its largest
    logit, its denominator and its own logit; no row of logits leaves its place."""

    def __init__(self, logits: torch.Tensor, wide: torch.dtype, part: VocabularyPart) -> None:
        super().__init__(logits, wide)
        self._part = part

    def score(
        self, scores: torch.Tensor, targets: torch.Tensor, normalizer: torch.Tensor,
        nll: torch.Tensor, needs_grad: bool, z_loss: float,
    ) -> torch.Tensor:  # fmt: skip
        """As by tensors; a target that is elsewhere is taken from no row."""
        p, wanted = self._room[: len(targets)], (targets - self._part.first)[:, None]
        is_here = (wanted >= 0) & (wanted < scores.shape[1])
        wanted = torch.where(is_here, wanted, 0)
        largest = self._part.largest_(scores.amax(1).to(p.dtype))
        torch.sub(scores, largest[:, None], out=p)
        own = torch.where(is_here, p.gather(1, wanted), 0)[:, 0]
        denominator, own = self._part.total_(torch.stack([p.exp_().sum(1), own]))
        torch.add(largest, denominator.log(), out=normalizer)
        torch.sub(denominator.log(), own, out=nll)
        if not needs_grad:
            return p
        p /= denominator[:, None]
        p.scatter_add_(1, wanted, is_here * (-1 / (1 + 2 * z_loss * normalizer[:, None])))
        return p if scores.dtype == p.dtype else scores.copy_(p)


class _InC(_ByTensors):
    """The same for float32 and bfloat16 on a CPU, each in one pass over what it reads."""

    def __init__(self, native: Native) -> None:
        self._native, self._wide = native, torch.float32
        self._product: torch.Tensor | None = None

    def score(
        self, scores: torch.Tensor, targets: torch.Tensor, normalizer: torch.Tensor,
        nll: torch.Tensor, needs_grad: bool, z_loss: float,
    ) -> torch.Tensor:  # fmt: skip
        """As by tensors; the logits are overwritten."""
        self._native.score_chunk(
            scores, targets, normalizer, nll, gradient=needs_grad, z_loss=z_loss
        )
        return scores

    def add_product(self, total: torch.Tensor, grad: torch.Tensor, source: torch.Tensor) -> None:
        """As by tensors; one product's memory serves all chunks."""
        if grad.dtype == self._wide:
            super().add_product(total, grad, source)
            return
        if self._product is None:
            self._product = source.new_empty(total.shape)
        self._native.add_part(total, torch.mm(grad.T, source, out=self._product))


def _way_for(
    logits: torch.Tensor, wide: torch.dtype, part: VocabularyPart | None = None
) -> _ByTensors:
    """Choose by the type of the logits, the device and what is there."""
    if part is not None:
        return _InParts(logits, wide, part)
    fits = logits.dtype in TYPES and logits.device.type == "cpu"
    if fits and (native := load_native()):
        return _InC(native)
    return _ByTensors(logits, wide)
