"""Whether a run is compiled: where its steps gain more time than the compiler takes.

A compiled run rounds differently from one that is not, so what a run began with it keeps.
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
from blankfill.objective.batch import Batch
from blankfill.prepare.timing import median_seconds

__all__ = ["BreakEven", "measure_break_even", "settle_compile"]

log = logging.getLogger(__name__)

LEAST_SECONDS = 300.0
"""A run whose blocks take less than this in all is not tried: a block takes from ten seconds to a
minute to compile, and gains a fifth at most where we measured it."""
LEAST_GAIN = 0.03
"""A block that gains a smaller share is not compiled: its timing does not tell so little apart."""


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
    if attention == "flex":
        return True  # torch's reference is slow where it is not compiled
    named = cfg.train.compile
    wanted = before if named == "auto" else named == "on"
    if wanted is False:
        return False
    if wanted is None:
        steps = cfg.train.steps
        found = measure_break_even(cfg, model, dtype, attention, batch, steps=steps)
        pays = isinstance(found, BreakEven) and found.pays(steps)
        log.debug("%s: %s", "compiled" if pays else "not compiled", found)
        return pays
    trial = _Trial(model, batch(), attention, dtype)
    try:
        trial.compile()
    except Exception as error:  # no C++ compiler, no Triton, or one that is too old
        why = "train.compile=on" if named == "on" else "this run was compiled so far"
        raise ConfigError(
            f"{why}, but the compiler does not work here ({_first_line(error)}); install a C++ "
            "compiler, or take --train.compile off"
            + ("" if named == "on" else " --allow-change train.compile")
        ) from error
    return True


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
    except Exception as error:
        return f"the compiler does not work here ({_first_line(error)})"
    seconds = time.perf_counter() - start
    plain, then = trial.median_seconds(trial.first, compiled)
    return BreakEven(
        plain_seconds=plain, compiled_seconds=then, compile_seconds=seconds, calls=calls
    )


class _Trial:
    """Copies of a model's blocks, timed forward and backward on a batch of its run."""

    def __init__(
        self, model: GLM, batch: Batch, attention: AttentionKind, dtype: torch.dtype
    ) -> None:
        self._device, self._dtype = device_of(model), dtype
        made = to_tensors(batch, attention, self._device)
        self._mask, self._wanted = made.mask, made.targets.index
        assert model.embed is not None
        with torch.no_grad():
            self._hidden = model.embed(made.tokens, made.positions).requires_grad_()
        self._rotation = model.rotation(made.positions, self._hidden.dtype)
        blocks = [*model.blocks.values()]
        self.first, self._last = blocks[0], blocks[-1]

    def compile(self) -> nn.Module:
        """Compile copies of the first and the last block, and give the first.

        Their graphs are the two that training takes, which finds them made.
        """
        first, last = (copy.deepcopy(block) for block in (self.first, self._last))
        for block, wanted in ((first, None), (last, self._wanted)):
            compile_block(block)
            self._call(block, wanted)
        return first

    def median_seconds(self, *forms: nn.Module) -> list[float]:
        """Time calls of forms of the first block."""
        calls = [functools.partial(self._call, form) for form in forms]
        return median_seconds(self._device, *calls)

    def _call(self, block: nn.Module, wanted: torch.Tensor | None = None) -> None:
        mark_varying(self._mask, wanted)
        with precision_context(self._dtype, self._device):
            out = block(self._hidden, self._rotation, self._mask, None, wanted)
        torch.autograd.grad(out, [self._hidden, *block.parameters()], torch.ones_like(out))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
