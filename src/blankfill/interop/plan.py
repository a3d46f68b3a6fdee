"""What an import will do, decided before a weight is read: which tensor comes from where.

Here is checked that every tensor of the checkpoint is used once or ignored by name, that none is
missing, and that all have the shapes of the configuration.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from blankfill.config.model import Activation, ModelConfig
from blankfill.errors import ConversionError
from blankfill.interop.infer import infer_config, preset_of
from blankfill.interop.keymap import Tensor, is_ignored, tensors
from blankfill.interop.layouts import FAMILY_OF, Source
from blankfill.interop.merge import SCALE, Part, merge, part_shape
from blankfill.interop.safetensors_writer import TensorSpec
from blankfill.model.glm import GLM

__all__ = ["NUM_IMAGE_ROWS", "ImportPlan", "Taken", "plan_import"]

NUM_IMAGE_ROWS = 20_000
"""Rows of the vocabulary that stand for image codes in icetk (ChatGLM-6B dropped them in v1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """One tensor of ours and what it is made of."""

    spec: TensorSpec
    """What will be written."""
    entry: Tensor
    """Its line of the key map."""
    parts: tuple[Part, ...]
    """What each rank holds of it; none for a table of zeros."""
    first_row: int = 0
    """Rows that are dropped before it."""

    def read(self, num_heads: int) -> torch.Tensor:
        """Read and merge its parts and put its rows in our order.

        Raises:
            ConversionError: a file is damaged.
        """
        if not self.parts:
            return torch.zeros(self.spec.shape, dtype=self.spec.dtype)
        return self.entry.read(merge(self.parts, self.entry.sharding), num_heads)[self.first_row :]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportPlan:
    """An import that can be carried out."""

    source: Source
    """The checkpoint."""
    cfg: ModelConfig
    """The model that it holds."""
    preset: str
    """The published preset whose shapes it has, or ''."""
    taken: tuple[Taken, ...]
    """Every tensor of ours, in the order of the model."""
    ignored: dict[str, str]
    """Tensors that are not taken, with the reason."""
    absent: tuple[str, ...]
    """Tensors that may be absent and are: their place is filled with zeros."""

    @property
    def num_quantised(self) -> int:
        """Matrices that will be dequantised."""
        return sum(any(part.scale is not None for part in taken.parts) for taken in self.taken)


def plan_import(
    source: Source,
    *,
    num_heads: int | None = None,
    activation: Activation | None = None,
    dtype: torch.dtype | None = None,
    drop_image_rows: bool = False,
) -> ImportPlan:
    """Decide what an import will do.

    Args:
        source: the checkpoint.
        num_heads: attention heads, where neither config.json nor a preset tells.
        activation: instead of the layout's.
        dtype: of every tensor; kept as it is where not given (float16 where quantised).
        drop_image_rows: leave out the rows of icetk's 20,000 image codes.

    Raises:
        ConversionError: a tensor is missing, has no place, or does not have its shape.
    """
    cfg = infer_config(source, num_heads=num_heads, activation=activation)
    preset = preset_of(cfg)
    entries, shapes = _expected(source, cfg)
    if drop_image_rows and cfg.vocab_size <= NUM_IMAGE_ROWS:
        raise ConversionError(
            f"{source.path} has {cfg.vocab_size} rows and so no {NUM_IMAGE_ROWS} rows of images; "
            "leave --drop-image-rows away"
        )
    ignored = _check_names(source, entries)
    taken: list[Taken] = []
    absent: list[str] = []
    for entry in entries:
        shape = shapes[entry.ours]
        parts = _parts(source, entry, shape)
        if not parts:
            absent.append(entry.theirs)
        kept = parts[0] if parts else taken[-1].parts[0]
        held = kept.stored.dtype if kept.scale is None else torch.float16
        per_word = entry.ours in ("embed.word.weight", "head.weight")
        first_row = NUM_IMAGE_ROWS if drop_image_rows and per_word else 0
        spec = TensorSpec(
            name=entry.ours, dtype=dtype or held, shape=(shape[0] - first_row, *shape[1:])
        )
        taken.append(Taken(spec=spec, entry=entry, parts=parts, first_row=first_row))
    if drop_image_rows:
        cfg = dataclasses.replace(cfg, vocab_size=cfg.vocab_size - NUM_IMAGE_ROWS)
    return ImportPlan(
        source=source, cfg=cfg, preset=preset, taken=tuple(taken), ignored=ignored,
        absent=tuple(absent),
    )  # fmt: skip


def _expected(source: Source, cfg: ModelConfig) -> tuple[list[Tensor], dict[str, tuple[int, ...]]]:
    """List what the model has, with shapes, and where each of it comes from."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in GLM(cfg).state_dict().items()}
    if source.layout == "blankfill":
        return [Tensor(ours=name, theirs=name) for name in shapes], shapes
    by_name = {entry.ours: entry for entry in tensors(FAMILY_OF[source.layout], cfg)}
    return [by_name[name] for name in shapes], shapes


def _check_names(source: Source, entries: list[Tensor]) -> dict[str, str]:
    """Check that each tensor of each rank has a place; name those that are ignored."""
    known = {entry.theirs for entry in entries}
    ignored: dict[str, str] = {}
    for rank in source.ranks:
        for name, stored in rank.items():
            if name in known or (name.endswith(SCALE) and name.removesuffix(SCALE) in known):
                continue
            if not is_ignored(name):
                raise ConversionError(
                    f"{stored.path} holds {stored.name}, which has no place in a "
                    f"{source.layout} model; name the right layout with --layout, or remove it "
                    "from the checkpoint"
                )
            ignored[name] = "rotary frequencies are computed"
    for entry in entries:
        missing = [i for i, rank in enumerate(source.ranks) if entry.theirs not in rank]
        if missing and not (entry.optional and len(missing) == len(source.ranks)):
            where = f" of rank {missing[0]:02d}" if len(source.ranks) > 1 else ""
            raise ConversionError(
                f"{source.path} lacks the tensor {entry.theirs}{where}; a shard is missing: copy "
                "every file of the checkpoint"
            )
    return ignored


def _parts(source: Source, entry: Tensor, shape: tuple[int, ...]) -> tuple[Part, ...]:
    """Find what each rank holds of a tensor, and check its shape."""
    if entry.theirs not in source.ranks[0]:
        return ()
    expected = part_shape(shape, entry.sharding, len(source.ranks))
    parts: list[Part] = []
    for rank in source.ranks:
        stored = rank[entry.theirs]
        scale = rank.get(entry.theirs + SCALE)
        packed = (*expected[:-1], expected[-1] // 2)
        if stored.shape != expected and not (scale is not None and stored.shape == packed):
            raise ConversionError(
                f"{stored.path} holds {stored.name} with the shape {list(stored.shape)}, and the "
                f"other tensors make it {list(expected)}; the file is of another model"
            )
        if scale is None and not stored.dtype.is_floating_point:
            raise ConversionError(
                f"{stored.path} holds {stored.name} as {str(stored.dtype).removeprefix('torch.')} "
                f"and no {entry.theirs}{SCALE} beside it; quantised weights need their scales: "
                "copy every file of the checkpoint"
            )
        parts.append(Part(stored=stored, scale=scale, shape=expected))
    return tuple(parts)
