"""`blankfill quantize`: a run in 8 or 4 bits a weight, held to the run that it is made of."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.parameters import CheckpointName, PathLike, Paths, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Range, Seed
from blankfill.errors import CheckpointError, ConfigError, ConversionError, DataError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.data.store import TokenStore
    from blankfill.evaluate.blanks import Items
    from blankfill.evaluate.quantized import BlankNats
    from blankfill.generate import LanguageModel
    from blankfill.interop.quantize import Planned
    from blankfill.runs import Checkpoint, Part, RunRecord

__all__ = ["QuantizeResult", "QuantizedSpeed", "quantize"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedSpeed:
    """How fast blanks are filled, some texts at a time."""

    batch: int
    """Texts that are filled at a time."""
    before: float
    """Tokens a second of the whole run, in the type that it is stored in."""
    after: float
    """Tokens a second of the quantised one."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeResult:
    """What became of a run."""

    run: str
    """The run that was read."""
    step: int
    """Optimizer steps of its checkpoint."""
    out: str
    """The run that was written."""
    bits: int
    """Bits of a weight."""
    num_parameters: int
    """Weights of the model."""
    num_bytes: tuple[int, int]
    """Of the files of weights, before and after."""
    float_bytes: int
    """Of the weights in float32."""
    num_blanks: int
    """Held-out blanks that were scored."""
    loss_nats: tuple[float, float]
    """Loss on them per token, before and after."""
    loss_increase: float
    """By which share of the loss before it has grown; below 0 where it has fallen."""
    loss_increase_error: float
    """Standard error of that share, the blanks being what they are."""
    speeds: tuple[QuantizedSpeed, ...]
    """How fast both fill."""

    __repr__ = short_repr


@checks_arguments
def quantize(
    run: PathLike,
    /,
    *,
    bits: Literal[8, 4],
    out: PathLike,
    data: Paths = (),
    max_loss_increase: Annotated[float, Range(0, 1000)] = 0.05,
    max_blanks: Annotated[int, Range(1, 10**9)] = 400,
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    seed: Seed = 0,
) -> QuantizeResult:
    """Write a trained run in 8 or 4 bits a weight, and show what that costs.

    Every matrix is quantised, the embedding and the output layer included; norms and biases stay as
    they are. The new folder opens wherever a model computes: fill, generate, score, rank, evaluate,
    blankfill.load. It is not trained, resized or exported: for that there is the run it was made
    of, which is only read.

    What was written is read back, and both models answer the same held-out blanks. Where the file
    is not as small as it should be, or the loss rose more than it may, nothing is left.

    Example:
        blankfill quantize runs/mine --bits 8 --out runs/mine-int8

    Args:
        run: folder of a pretrained or imported run, or of one of its checkpoints.
        bits: 8 or 4. 8 costs hardly any quality; 4 halves the file once more.
        out: the new folder.
        data: token stores of held-out text, one or several, of any tokenizer; what the run was
            validated on where not given.
        max_loss_increase: most that the loss may rise, as a share of it: 0.05 is 5 %.
        max_blanks: most blanks of each language that both models answer.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        seed: seed of the blanks.

    Raises:
        CheckpointError: the folder is not a run, has no such checkpoint, is quantised already, or
            holds weights that are not numbers.
        ConfigError: the model's rows are not whole groups of 4-bit weights, or there is no held-out
            text to measure the loss on.
        ConversionError: the file would not be smaller, or the loss rose too much.
        DataError: a store of held-out text is missing, empty or without a blank.
        OutputError: the folder at --out is taken or cannot be written.
    """
    out = as_path(out)
    from blankfill.disk.publish import new_folder, require_free
    from blankfill.evaluate.blanks import encode_set
    from blankfill.evaluate.held_out import draw_held_out
    from blankfill.generate import LanguageModel
    from blankfill.generate.loading import find_weights, load_run_tokenizer
    from blankfill.interop.quantize import plan_quantization, write_quantized
    from blankfill.runs import locate, read_run
    from blankfill.runs.record import QuantizedFrom

    require_free(out)
    place = locate(as_path(run), checkpoint)
    record = read_run(place.run)
    record.require_whole(place.run, "is not quantised again")
    tokenizer = load_run_tokenizer(place.run, record)
    found, part = find_weights(place, weights)
    planned = plan_quantization(record.config.model, bits)
    stored = _require_smaller(place.run, found, part, bits, planned)
    stores = _held_out(place.run, record, [as_path(path) for path in as_list(data)])
    blanks = draw_held_out(stores, max_blanks=max_blanks, seed=seed)
    items = encode_set(blanks, tokenizer, row_length=record.config.train.row_length)
    lm = LanguageModel.load(place.run, checkpoint=found.step, weights=weights)
    nats, speed = _measure(lm, items, found)
    origin = QuantizedFrom(run=str(place.run), step=found.step, weights=weights, bits=bits)
    with new_folder(out) as folder:
        num_bytes = write_quantized(folder, record, lm.model, place.run / "tokenizer", origin)
        del lm  # its memory goes before the next is read
        quantized = LanguageModel.load(folder)
        new_nats, new_speed = _measure(quantized, items, None)
        increase, error = new_nats.increase(nats)
        if not increase <= max_loss_increase:
            raise ConversionError(
                f"in {bits} bits the loss of {place.run} on held-out blanks rises by "
                f"{100 * increase:.2f} %, from {nats.loss:.4f} to {new_nats.loss:.4f} nats a "
                f"token, and max_loss_increase={max_loss_increase:g} allows "
                f"{100 * max_loss_increase:g} %; nothing was written: "
                f"{'take bits=8, or ' if bits == 4 else ''}allow more"
            )
    return QuantizeResult(
        run=str(place.run), step=found.step, out=str(out), bits=bits,
        num_parameters=planned.float_bytes // 4, num_bytes=(stored, num_bytes),
        float_bytes=planned.float_bytes, num_blanks=len(nats.nats),
        loss_nats=(nats.loss, new_nats.loss), loss_increase=increase, loss_increase_error=error,
        speeds=tuple(
            QuantizedSpeed(batch=batch, before=speed[batch], after=new_speed[batch])
            for batch in speed
        ),
    )  # fmt: skip


def _require_smaller(
    run: Path, checkpoint: Checkpoint, part: Part, bits: int, planned: Planned
) -> int:
    """Refuse what would gain nothing; give the bytes of the files of weights that there are."""
    from blankfill.runs import part_of
    from blankfill.runs.parts import list_part

    held = sum(tensor.num_bytes for tensor in list_part(checkpoint.path, part).values())
    if planned.num_bytes >= held:
        raise ConversionError(
            f"{run} would not be smaller in {bits} bits: its weights take {held:,} bytes now and "
            f"{planned.num_bytes:,} then"
        )
    log.info(
        "%d bits a weight: %s bytes, %.1f %% of float32", bits, f"{planned.num_bytes:,}",
        100 * planned.num_bytes / planned.float_bytes,
    )  # fmt: skip
    return sum(file.bytes for name, file in checkpoint.state.files.items() if part_of(name) == part)


def _held_out(run: Path, record: RunRecord, data: list[Path]) -> list[TokenStore]:
    """Open the stores that the loss is measured on."""
    from blankfill.prepare import open_stores, open_stores_apart

    if data:
        return open_stores_apart(data)
    if not record.validation:
        raise ConfigError(
            f"{run} was not validated on held-out text, and the loss before and after is measured "
            "on some; name a token store of it: --data store-valid"
        )
    try:
        return open_stores([Path(entry.path) for entry in record.validation])
    except DataError as error:
        raise ConfigError(
            f"the held-out text that {run} was validated on cannot be read ({error}); name a token "
            "store of held-out text: --data store-valid"
        ) from error


def _measure(
    lm: LanguageModel, items: Items, checkpoint: Checkpoint | None
) -> tuple[BlankNats, dict[int, float]]:
    """Measure the loss on the blanks and the speed of filling.

    Args:
        lm: the model.
        items: the blanks.
        checkpoint: where its weights are from, which are checked to be numbers; None where they
            are quantised.
    """
    from blankfill.evaluate.quantized import fill_speed, measure_nats
    from blankfill.interop.quantize import require_finite

    if checkpoint is not None:
        require_finite(lm.model, checkpoint.path)
    nats = measure_nats(lm, items)
    if not math.isfinite(nats.loss):
        raise CheckpointError(
            f"the loss of {lm.path} on held-out blanks is not a finite number: its weights are "
            "damaged, or its training diverged; quantise an earlier checkpoint"
        )
    log.info("loss on %d blanks: %.4f nats a token", len(nats.nats), nats.loss)
    return nats, fill_speed(lm, items)
