"""Whether a run is compiled: where its steps gain more time than the compiler takes.

A compiled run rounds differently from one that is not, so what a run began with it keeps. What a
compiler made is compared with the block as it is written before anything is trained on it.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from blankfill.config.run import RunConfig
from blankfill.config.train import AttentionKind
from blankfill.engine.compiled import compile_block, mark_varying
from blankfill.engine.device import precision_context
from blankfill.engine.transfer import to_tensors
from blankfill.errors import ConfigError
from blankfill.model.glm import GLM, device_of
from blankfill.model.masks import Mask, build_mask
from blankfill.objective.batch import Batch
from blankfill.prepare.timing import median_seconds

__all__ = ["BreakEven", "measure_break_even", "settle_compile"]

log = logging.getLogger(__name__)

LEAST_SECONDS = 300.0
"""A run whose blocks take less than this in all is not tried: a block takes from ten seconds to a
minute to compile, and gains a fifth at most where we measured it."""
LEAST_GAIN = 0.03
"""A block that gains a smaller share is not compiled: its timing does not tell so little apart."""
LARGEST_ERROR = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Most that a compiled block's result or the gradient of a matrix may differ from that of the block
as it is written, by norm, as a share. Sums in another order differ by less than 1e-4 in float32 and
by 0.007 in bfloat16, in the gradient of the queries' matrix (`tiny` and `base` on a CPU); where a
kernel's gradient is lost or lies at other places, that is off by 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakEven:
    """One block forward and backward, as it is and compiled."""

    plain_seconds: float
    """Time of a call as it is."""
    compiled_seconds: float
    """Time of a call when compiled."""
    compile_seconds: float
    """Time to compile all that a model needs."""
    calls: int
    """Calls in an optimizer step."""

    @property
    def saved_seconds(self) -> float:
        """What compiling takes off a step."""
        return (self.plain_seconds - self.compiled_seconds) * self.calls

    @property
    def gains(self) -> bool:
        """Whether a block gains enough to be sure of."""
        return self.plain_seconds - self.compiled_seconds >= LEAST_GAIN * self.plain_seconds

    def pays(self, steps: int) -> bool:
        """Tell whether so many steps earn the time to compile back."""
        return self.gains and self.saved_seconds * steps > self.compile_seconds

    def __str__(self) -> str:
        """Say what was measured."""
        times = (
            f"a block takes {1000 * self.plain_seconds:.1f} ms, "
            f"compiled {1000 * self.compiled_seconds:.1f} ms"
        )
        if not self.gains:
            return f"{times}, no gain to be sure of"
        steps = math.ceil(self.compile_seconds / self.saved_seconds)
        return (
            f"{times}; {self.compile_seconds:.0f} s of compiling are earned back in {steps:,} steps"
        )


def settle_compile(
    cfg: RunConfig, model: GLM, dtype: torch.dtype, attention: AttentionKind,
    batch: Callable[[], Batch], *, before: bool | None = None,
) -> bool:  # fmt: skip
    """Settle whether a run is compiled: as named, as before, or where it pays; with flex always.

    Args:
        cfg: the run.
        model: on the device where it trains.
        dtype: of its products.
        attention: how attention is computed.
        batch: makes a micro-batch of it.
        before: what the run that is resumed did on such a device.

    Raises:
        ConfigError: it was named, or done before, and the compiler does not work here.
    """
    named = cfg.train.compile
    if attention == "flex":  # torch's reference is slow where it is not compiled
        if device_of(model).type == "cuda":
            _require_right(
                _Trial(model, batch(), attention, dtype), "attention flex is compiled",
                "take --train.attention blocks, which a run that is resumed needs --allow-change "
                "train.attention for",
            )  # fmt: skip
        return True
    wanted = before if named == "auto" else named == "on"
    if wanted is False:
        return False
    if wanted is None:
        steps = cfg.train.steps
        found = measure_break_even(cfg, model, dtype, attention, batch, steps=steps)
        pays = isinstance(found, BreakEven) and found.pays(steps)
        log.debug("%s: %s", "compiled" if pays else "not compiled", found)
        return pays
    _require_right(
        _Trial(model, batch(), attention, dtype),
        "train.compile=on" if named == "on" else "this run was compiled so far",
        "install a C++ compiler, or take --train.compile off"
        + ("" if named == "on" else " --allow-change train.compile"),
    )
    return True


def _require_right(trial: _Trial, why: str, way: str) -> None:
    """Compile a trial's blocks.

    Raises:
        ConfigError: that does not work here, or is wrong; the message says why it is needed, and
            the way out.
    """
    try:
        trial.compile()
        trial.require_same()
    except Exception as error:  # no C++ compiler, no Triton, or one that is too old
        raise ConfigError(
            f"{why}, but the compiler does not work here ({_first_line(error)}); {way}"
        ) from error


def measure_break_even(
    cfg: RunConfig, model: GLM, dtype: torch.dtype, attention: AttentionKind,
    batch: Callable[[], Batch], *, steps: int,
) -> BreakEven | str:  # fmt: skip
    """Time one block forward and backward, as it is and compiled.

    Arguments are those of `settle_compile`, and how many steps the run has.

    Returns:
        What was measured, or why it was not: the run is too short to try, or compiling does not
        work here.
    """
    train = cfg.train
    calls = cfg.model.num_layers * (train.batch_rows // train.micro_batch_rows)
    trial = _Trial(model, batch(), attention, dtype)
    (plain,) = trial.median_seconds(trial.first)
    if (work := plain * calls * steps) < LEAST_SECONDS:
        return f"the run's {work:.0f} s in its blocks are too few to earn it back"
    start = time.perf_counter()
    try:
        compiled = trial.compile()
        seconds = time.perf_counter() - start
        trial.require_same()
    except _WrongResultError as error:
        log.warning("not compiled: the compiler does not work here (%s)", error)
        return f"the compiler does not work here ({error})"
    except Exception as error:
        return f"the compiler does not work here ({_first_line(error)})"
    plain, then = trial.median_seconds(trial.first, compiled)
    return BreakEven(
        plain_seconds=plain, compiled_seconds=then, compile_seconds=seconds, calls=calls
    )


class _WrongResultError(Exception):
    """What a compiler made computes something else."""


class _Trial:
    """Copies of a model's blocks, timed forward and backward on a batch of its run."""

    def __init__(
        self, model: GLM, batch: Batch, attention: AttentionKind, dtype: torch.dtype
    ) -> None:
        self._device, self._dtype = device_of(model), dtype
        made = to_tensors(batch, attention, self._device)
        self._mask, self._wanted = made.mask, made.targets.index
        self._batch = batch
        self._attention: AttentionKind = attention
        assert model.embed is not None
        with torch.no_grad():
            self._hidden = model.embed(made.tokens, made.positions).requires_grad_()
        self._rotation = model.rotation(made.positions, self._hidden.dtype)
        generator = torch.Generator(self._device).manual_seed(0)  # the run's own is left alone
        self._weights = torch.randn(
            self._hidden.shape, device=self._device, generator=generator
        )  # fmt: skip
        blocks = [*model.blocks.values()]
        self.first, self._last = blocks[0], blocks[-1]
        self._drops = model.cfg.drops

    def compile(self) -> nn.Module:
        """Compile copies of the first and the last block, and give the first.

        Their graphs are the two that training takes, which finds them made.
        """
        first, last = (copy.deepcopy(block) for block in (self.first, self._last))
        for block, wanted in ((first, None), (last, self._wanted)):
            compile_block(block)
            self._call(block, wanted)
        self._compiled = first, last
        return first

    def require_same(self) -> None:
        """Compare what was compiled with the blocks as they are written, on two batches.

        Where dropout draws other numbers, there is nothing to compare.

        Raises:
            _WrongResultError: it computes something else.
        """
        if self._drops:
            return
        first, last = self._compiled
        shape, device, all_blocks = self._batch.tokens.shape, self._device, self._batch.blocks
        # The second batch lacks an example and a target, so that its sizes are others.
        for left_out, blocks in enumerate((all_blocks, all_blocks[:-1])[: len(all_blocks)]):
            mask = build_mask(blocks, shape, self._attention, device)
            exact = build_mask(blocks, shape, "blocks", device)  # so on any device
            wanted = self._wanted[: len(self._wanted) - left_out]
            self._compare(self._call(first, None, mask), self._call(self.first, None, exact))
            self._compare(self._call(last, wanted, mask), self._call(self._last, wanted, exact))

    def median_seconds(self, *forms: nn.Module) -> list[float]:
        """Time calls of forms of the first block."""
        calls = [functools.partial(self._call, form) for form in forms]
        return median_seconds(self._device, *calls)

    def _call(
        self, block: nn.Module, wanted: torch.Tensor | None = None, mask: Mask | None = None
    ) -> dict[str, torch.Tensor]:
        """Give the result of a block, and the gradient of a weighted sum of it by its name."""
        mask = self._mask if mask is None else mask
        mark_varying(mask, wanted)
        with precision_context(self._dtype, self._device):
            out = block(self._hidden, self._rotation, mask, None, wanted)
        by = {"its input": self._hidden, **dict(block.named_parameters())}
        weights = self._weights.flatten(0, 1)[: out.numel() // out.shape[-1]].view_as(out)
        grads = torch.autograd.grad(out, [*by.values()], weights.to(out.dtype))
        return {"result": out.detach(), **dict(zip(by, grads, strict=True))}

    def _compare(self, found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> None:
        errors = {
            name: float((found[name] - right).norm() / right.norm().clamp_min(1e-30))
            for name, right in exact.items()
            if right.ndim > 1  # a bias of keys has no gradient but what rounding leaves
        }
        worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
        if not errors[worst] <= LARGEST_ERROR[self._dtype]:
            what = worst if worst == "result" else f"gradient of {worst}"
            raise _WrongResultError(
                f"a compiled block's {what} is off by {errors[worst]:.1%} of its size"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
