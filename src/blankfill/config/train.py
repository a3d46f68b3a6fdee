"""How a run trains: batches, recipe, precision, and what it writes when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from blankfill.config.ranges import Range, RowLength, Seed, check_numbers
from blankfill.errors import ConfigError

__all__ = ["AttentionKind", "DeviceKind", "TrainConfig"]

AttentionKind = Literal["auto", "blocks", "flex", "varlen", "dense"]
DeviceKind = Literal["auto", "cpu", "cuda"]
MOST_STEPS: Final = 10**12
Steps = Annotated[int, Range(0, MOST_STEPS)]
_SKIPPED = re.compile(r"([0-9]{1,13})(?:-([0-9]{1,13}))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One optimizer run over an endless stream of packed rows."""

    steps: Annotated[int, Range(1, MOST_STEPS)] = 2000
    """Optimizer steps."""
    row_length: RowLength = 512
    """Positions in a row; several documents share a row and never see each other."""
    batch_rows: Annotated[int, Range(1, 2**16)] = 16
    """Rows in one optimizer step."""
    micro_batch_rows: Annotated[int, Range(1, 2**16)] = 16
    """Rows in one forward and backward pass; must divide batch_rows."""
    ramp_from_rows: Annotated[int, Range(0, 2**16)] = 0
    """Rows of the first step where the batch grows to batch_rows by equal increments of
    micro_batch_rows (GLM-130B: 192 to 4224); 0 is off."""
    ramp_rows: Steps = 0
    """Rows over which the batch grows (GLM-130B: 5,493,164 samples)."""
    peak_lr: Annotated[float, Range(1e-12, 10)] = 1e-3
    """Learning rate at the end of warm-up."""
    embedding_lr_ratio: Annotated[float, Range(1e-6, 1000)] = 1.0
    """Learning rate of embeddings and the output layer, as a share of that of the rest."""
    min_lr_ratio: Annotated[float, Range(0, 1)] = 0.1
    """Last learning rate as a share of peak_lr."""
    warmup_steps: Steps = 100
    """Steps of linear warm-up; 0 starts at the peak."""
    schedule: Literal["cosine", "linear", "constant", "wsd", "glm_cosine", "glm_linear"] = "cosine"
    """Decay from the peak to the last learning rate. wsd (warm-up, stable, decay) stays at the peak
    until the last cooldown_steps, so a run can be cooled down from any of its checkpoints. The glm_
    forms are the released ones: step 0 does not move, and glm_linear goes on falling past its end.
    """
    cooldown_steps: Steps = 0
    """Last steps of schedule wsd, in which the rate falls linearly; 0 takes a tenth of steps."""
    decay_steps: Steps = 0
    """Step at which the decay ends, warm-up included; 0 is the last step."""
    shrink_hold_steps: Steps = 0
    """Steps for which model.embedding_gradient_shrink is held before it rises to 1."""
    shrink_rise_steps: Steps = 0
    """Steps over which it rises; 0 holds it for good."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for every tensor, or muon for the matrices of the blocks and adamw for the rest."""
    muon_momentum: Annotated[float, Range(0, 0.9999)] = 0.95
    """Muon's decay of the mean gradient."""
    beta1: Annotated[float, Range(0, 0.9999)] = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: Annotated[float, Range(0, 0.999999)] = 0.95
    """AdamW's decay of the squared gradient."""
    eps: Annotated[float, Range(1e-30, 1)] = 1e-8
    """AdamW's epsilon."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.1
    """Decoupled decay of matrices and embeddings; biases and LayerNorms have none."""
    max_grad_norm: Annotated[float, Range(1e-6, 1e6, or_zero=True)] = 1.0
    """Clip the gradient to this global norm; 0 is off."""
    ema_decay: Annotated[float, Range(0, 0.999999)] = 0.0
    """Decay of an exponential moving average of the weights, kept beside them; 0 is off."""
    embedding_init: Literal["random", "neighbours"] = "random"
    """First values of the word embedding, where a run does not start from weights. neighbours:
    from counts of the training text, each token near those that keep its company, which saves a
    small model about half its first thousand steps."""
    precision: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Arithmetic of matrix products. auto: on a GPU bfloat16 where it multiplies it; on a CPU that
    does, the quicker of bfloat16 and float32, timed when a run of a minute or more starts. float16
    scales the loss dynamically, as GLM-130B was trained."""
    loss_scale_window: Annotated[int, Range(1, MOST_STEPS)] = 2000
    """Steps without overflow after which the loss scale of float16 doubles."""
    attention: AttentionKind = "auto"
    """How attention is computed; the mathematics is one. blocks: exact rectangles, on any device;
    flex and varlen: FlexAttention and variable-length FlashAttention, on CUDA; dense: the whole
    square of a row. auto takes blocks on a CPU, and on CUDA the quickest of those that work there,
    timed on one layer when the run starts."""
    z_loss: Annotated[float, Range(0, 1)] = 0.0
    """Weight of the squared log of the softmax's denominator in the loss, which keeps logits from
    drifting (PaLM: 1e-4); 0 is off. Reported losses are without it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the blocks with Inductor. auto does where the run is long enough to earn back the
    time that it takes, by what one block gains, measured when the run starts."""
    device: DeviceKind = "auto"
    """Where the model computes; auto takes the CUDA device where there is one. Rows are made on the
    CPU in any case."""
    threads: Annotated[int, Range(0, 1024)] = 0
    """CPU threads; 0 takes the cores that this process may use."""
    seed: Seed = 1
    """Seed of weights, blanks and order."""
    log_every: Annotated[int, Range(1, MOST_STEPS)] = 10
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: Annotated[int, Range(1, MOST_STEPS)] = 500
    """Steps between two checkpoints; the last step is always saved."""
    keep_checkpoints: Annotated[int, Range(1, MOST_STEPS)] = 2
    """Newest checkpoints that stay on disk."""
    keep_every: Steps = 0
    """Checkpoints at multiples of this many steps stay as well; 0 is off."""
    keep_best: bool = False
    """The checkpoint with the lowest validation loss stays as well."""
    save_in_background: bool = True
    """Write checkpoints beside the steps, from a copy in memory."""
    on_save_error: Literal["stop", "go_on"] = "stop"
    """When a checkpoint cannot be written: end the run, or train on and try again when the next
    one is due. The last good checkpoint stays either way."""
    validate_every: Steps = 0
    """Steps between two validations, which need held-out data. 0 validates only before the first
    step and after the last; these two are done in any case where there is held-out data."""
    validate_blanks: Annotated[int, Range(0, 10**6)] = 64
    """Held-out blanks of each language that a validation fills greedily as well; 0 fills none."""
    show_fills: Annotated[int, Range(0, 10**6)] = 6
    """Of those, how many of each language are kept as text, in samples.jsonl and TensorBoard."""
    wandb: str = ""
    """Project of Weights & Biases that the numbers go to as well; "" is none."""
    forgetting_limit: Annotated[float, Range(0, 1000)] = 0.0
    """Share by which the loss on a held-out store may exceed its best so far, the weights that the
    run started from included, such as 0.05; 0 is off."""
    on_forgetting: Literal["warn", "stop"] = "warn"
    """What a validation beyond forgetting_limit does."""
    on_spike: Literal["log", "skip", "rollback", "stop"] = "log"
    """When loss or gradient norm leaps or is not finite: log goes on after a leap and stops where
    nothing is finite; skip drops the update; rollback returns to the last checkpoint and leaves
    those rows out; stop saves and ends. The batch is written to incidents/ in any case."""
    spike_window: Annotated[int, Range(2, 10**6)] = 128
    """Steps whose losses and gradient norms say what is usual; a quarter of them must be known."""
    spike_threshold: Annotated[float, Range(1e-9, 1e9)] = 8.0
    """A leap is this many robust standard deviations (1.4826 MAD) above the window's median."""
    skip_steps: tuple[str, ...] = ()
    """Steps whose rows are left out, such as `137` or `40701-40900`; the model does not move."""

    def __post_init__(self) -> None:
        check_numbers(self, "train")
        if self.batch_rows % self.micro_batch_rows:
            raise ConfigError(
                f"train.micro_batch_rows={self.micro_batch_rows} must divide "
                f"train.batch_rows={self.batch_rows}"
            )
        if self.keep_best and not self.validate_every:
            raise ConfigError("train.keep_best=True needs validations; set train.validate_every")
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
        self._check_rates()
        for entry in self.skip_steps:
            found = _SKIPPED.fullmatch(entry)
            if not found or int(found[1]) > int(found[2] or found[1]):
                raise ConfigError(
                    f"train.skip_steps has {entry[:40]!r}; write a step such as 137 or a range "
                    "such as 40701-40900"
                )

    def _check_rates(self) -> None:
        """Refuse rates that are in their ranges and together turn the run uphill."""
        # Decay multiplies a weight by one less this product, which must stay above 0.
        shrinks = self.weight_decay * self.peak_lr * max(1.0, self.embedding_lr_ratio)
        if shrinks >= 1:
            raise ConfigError(
                f"train.weight_decay={self.weight_decay:g} takes {shrinks:g} of each weight at the "
                f"peak learning rate; its product with train.peak_lr={self.peak_lr:g} and, where "
                f"that is above 1, train.embedding_lr_ratio={self.embedding_lr_ratio:g} must be "
                "below 1"
            )
        if self.shrink_hold_steps and not self.shrink_rise_steps:
            raise ConfigError(
                f"train.shrink_hold_steps={self.shrink_hold_steps} needs train.shrink_rise_steps: "
                "without it the share is held for good"
            )
        if self.schedule == "glm_linear" and (self.decay_steps or self.steps) > self.warmup_steps:
            span = (self.decay_steps or self.steps) - self.warmup_steps
            if (1 - self.min_lr_ratio) * (self.steps - 1 - self.warmup_steps) > span:
                raise ConfigError(
                    f"train.schedule=glm_linear falls below 0 before train.steps={self.steps}, "
                    f"and a negative learning rate climbs; raise "
                    f"train.decay_steps={self.decay_steps} or train.min_lr_ratio="
                    f"{self.min_lr_ratio:g}"
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
