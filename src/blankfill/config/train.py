"""How a run trains: how long, on which batches, and how they are computed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.common import COMMON
from blankfill.config.on_resume import FREE, NEVER
from blankfill.config.ranges import MOST_STEPS, Range, RowLength, Seed, Steps, check_numbers
from blankfill.errors import ConfigError

__all__ = [
    "AttentionKind",
    "DeviceKind",
    "PrecisionKind",
    "RecomputeKind",
    "TrainConfig",
    "WeightType",
]

AttentionKind = Literal["auto", "blocks", "flex", "varlen", "dense"]
DeviceKind = Literal["auto", "cpu", "cuda"]
PrecisionKind = Literal["auto", "bfloat16", "float16", "float32"]
RecomputeKind = Literal["none", "selective", "full"]
WeightType = Literal["stored", "float32", "bfloat16", "float16"]
"""Type that a model in use keeps its matrices in; `stored` is that of each in the checkpoint."""
_SKIPPED = re.compile(r"([0-9]{1,13})(?:-([0-9]{1,13}))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One optimizer run over an endless stream of packed rows."""

    steps: Annotated[int, Range(1, MOST_STEPS), COMMON] = 2000
    """Optimizer steps."""
    row_length: Annotated[RowLength, NEVER, COMMON] = 512
    """Positions in a row; several documents share a row and never see each other."""
    batch_rows: Annotated[int, Range(1, 2**16), COMMON] = 16
    """Rows in one optimizer step."""
    micro_batch_rows: Annotated[int, Range(1, 2**16)] = 16
    """Rows in one forward and backward pass; must divide batch_rows. Of several processes each has
    its share of the batch, and at most so many rows in a pass."""
    ramp_from_rows: Annotated[int, Range(0, 2**16)] = 0
    """Rows of the first step where the batch grows to batch_rows by equal increments of
    micro_batch_rows (GLM-130B: 192 to 4224); 0 is off."""
    ramp_rows: Steps = 0
    """Rows over which the batch grows (GLM-130B: 5,493,164 samples)."""
    embedding_init: Literal["random", "neighbours"] = "random"
    """First values of the word embedding, where a run does not start from weights. neighbours:
    from counts of the training text, each token near those that keep its company, which saves a
    small model about half its first thousand steps."""
    precision: PrecisionKind = "auto"
    """Arithmetic of matrix products. auto: on a GPU bfloat16 where it multiplies it; on a CPU that
    does, the quicker of bfloat16 and float32, timed when a run of a minute or more starts. float16
    scales the loss dynamically, as GLM-130B was trained."""
    loss_scale_window: Annotated[int, Range(1, MOST_STEPS)] = 2000
    """Steps without overflow after which the loss scale of float16 doubles."""
    attention: AttentionKind = "auto"
    """How attention is computed; the mathematics is one. blocks: exact rectangles, on any device;
    flex and varlen: FlexAttention and variable-length FlashAttention, on CUDA; dense: the whole
    square of a row. auto takes blocks on a CPU, and on CUDA the fastest of those that work there,
    timed on one layer when the run starts."""
    z_loss: Annotated[float, Range(0, 1)] = 0.0
    """Weight of the squared log of the softmax's denominator in the loss, which keeps logits from
    drifting (PaLM: 1e-4); 0 is off. Reported losses are without it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the blocks with Inductor. auto does where the run is long enough to earn back the
    time that it takes, by what one block gains, measured when the run starts."""
    recompute: Annotated[RecomputeKind, FREE] = "none"
    """What is not kept for the backward pass but computed again in it, for less memory and more
    time; the numbers are the same, bit for bit. selective: attention weights, which are large
    and quick to make (flex and varlen never keep them); full: all of a block but what it is
    given."""
    device: Annotated[DeviceKind, FREE] = "auto"
    """Where the model computes; auto takes the CUDA device where there is one. Rows are made on the
    CPU in any case."""
    threads: Annotated[int, Range(0, 1024), FREE, COMMON] = 0
    """CPU threads. 0 takes the cores that this process may use, or fewer where rows are quicker so,
    as beside a busy neighbour: timed when a run of a minute or more starts, and again when its
    rate falls by half."""
    seed: Annotated[Seed, NEVER, COMMON] = 1
    """Seed of weights, blanks and order."""
    log_every: Annotated[int, Range(1, MOST_STEPS), FREE] = 10
    """Steps between two lines of metrics.jsonl."""
    wandb: Annotated[str, FREE] = ""
    """Project of Weights & Biases that the numbers go to as well; "" is none."""
    skip_steps: tuple[str, ...] = ()
    """Steps whose rows are left out, such as `137` or `40701-40900`; the model does not move."""

    def __post_init__(self) -> None:
        check_numbers(self, "train")
        if self.batch_rows % self.micro_batch_rows:
            raise ConfigError(
                f"train.micro_batch_rows={self.micro_batch_rows} must divide "
                f"train.batch_rows={self.batch_rows}"
            )
        if bool(self.ramp_from_rows) != bool(self.ramp_rows):
            raise ConfigError(
                f"train.ramp_from_rows={self.ramp_from_rows} and train.ramp_rows={self.ramp_rows} "
                "belong together; set both, or neither"
            )
        if self.ramp_from_rows % self.micro_batch_rows or self.ramp_from_rows > self.batch_rows:
            raise ConfigError(
                f"train.ramp_from_rows={self.ramp_from_rows} must be a multiple of "
                f"train.micro_batch_rows={self.micro_batch_rows} and at most "
                f"train.batch_rows={self.batch_rows}"
            )
        for entry in self.skip_steps:
            found = _SKIPPED.fullmatch(entry)
            if not found or int(found[1]) > int(found[2] or found[1]):
                raise ConfigError(
                    f"train.skip_steps has {entry[:40]!r}; write a step such as 137 or a range "
                    "such as 40701-40900"
                )

    def skips(self, step: int) -> bool:
        """Tell whether `skip_steps` names this 0-based step."""
        ranges = (entry.partition("-") for entry in self.skip_steps)
        return any(int(first) <= step <= int(last or first) for first, _, last in ranges)

    def rows_at(self, row: int) -> int:
        """Tell how many rows the step takes that begins at this row of the stream.

        The batch grows from `ramp_from_rows` by `micro_batch_rows` after equal numbers of rows, and
        has its full size from `ramp_rows` on (Megatron's `rampup_batch_size`).
        """
        if row >= self.ramp_rows:
            return self.batch_rows
        grown = (self.batch_rows - self.ramp_from_rows) // self.micro_batch_rows * row
        return self.ramp_from_rows + grown // self.ramp_rows * self.micro_batch_rows
