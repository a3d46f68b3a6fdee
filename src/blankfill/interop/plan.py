"""What an import will do, decided before a weight is read: which tensor comes from where.

This checks that every tensor of the checkpoint is used once or ignored by name, that none is
missing, and that all have the shapes of the configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from blankfill.config.model import Activation, ModelConfig
from blankfill.errors import ConversionError
from blankfill.interop.infer import infer_config, preset_of
from blankfill.interop.keymap import Tensor, is_ignored, tensors
from blankfill.interop.layouts import FAMILY_OF, Source
from blankfill.interop.merge import SCALE, Part, merge, part_shape
from blankfill.model.glm import GLM
from blankfill.runs.tensors import TensorSpec

__all__ = ["NUM_IMAGE_ROWS", "ImportPlan", "Reader", "Taken", "plan_import"]

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


class Reader:
    """Reads the tensors of a plan in its order; of a file's tensor that is several of ours, once.

    Args:
        num_heads: attention heads of the model.
    """

    def __init__(self, num_heads: int) -> None:
        self._num_heads = num_heads
        self._theirs = ""
        self._ours: dict[str, torch.Tensor] = {}

    def read(self, taken: Taken) -> torch.Tensor:
        """Read and merge a tensor's parts and put its rows in our order.

        Raises:
            ConversionError: a file is damaged.
        """
        spec, entry = taken.spec, taken.entry
        if not taken.parts:
            return torch.zeros(spec.shape, dtype=spec.dtype)
        if entry.theirs != self._theirs:
            self._ours = {}  # free the previous tensor before reading this one
            self._ours = entry.read(merge(taken.parts, entry.sharding), self._num_heads)
            self._theirs = entry.theirs
        return self._ours.pop(spec.name)[taken.first_row :]


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
    """Every tensor of ours, in the order of the model; those of one foreign tensor together."""
    ignored: dict[str, str]
    """Tensors that are not taken, with the reason."""
    absent: tuple[str, ...]
    """Tensors that may be absent and are: their place is filled with zeros."""

    @property
    def num_quantised(self) -> int:
        """Matrices that will be dequantised."""
        scaled = (t for t in self.taken if any(part.scale is not None for part in t.parts))
        return len({taken.entry.theirs for taken in scaled})


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
            "leave out --drop-image-rows"
        )
    ignored = _check_names(source, [entry for _, entry in entries])
    taken: list[Taken] = []
    absent: list[str] = []
    for name, entry in entries:
        shape = shapes[name]
        whole = (shape[0] * len(entry.ours), *shape[1:])
        parts = _parts(source, entry, whole)
        if not parts:
            absent.append(entry.theirs)
        kept = parts[0] if parts else taken[-1].parts[0]
        held = kept.stored.dtype if kept.scale is None else torch.float16
        per_word = name in ("embed.word.weight", "head.weight")
        first_row = NUM_IMAGE_ROWS if drop_image_rows and per_word else 0
        spec = TensorSpec(name=name, dtype=dtype or held, shape=(shape[0] - first_row, *shape[1:]))
        taken.append(Taken(spec=spec, entry=entry, parts=parts, first_row=first_row))
    if drop_image_rows:
        cfg = dataclasses.replace(cfg, vocab_size=cfg.vocab_size - NUM_IMAGE_ROWS)
    return ImportPlan(
        source=source, cfg=cfg, preset=preset, taken=tuple(taken), ignored=ignored,
        absent=tuple(absent),
    )  # fmt: skip


def _expected(
    source: Source, cfg: ModelConfig
) -> tuple[list[tuple[str, Tensor]], dict[str, tuple[int, ...]]]:
    """List what the model has and where each of it comes from; give the shapes."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in GLM(cfg).state_dict().items()}
    if source.layout == "blankfill":
        return [(name, Tensor(ours=(name,), theirs=name)) for name in shapes], shapes
    table = tensors(FAMILY_OF[source.layout], cfg)
    by_name = {name: entry for entry in table for name in entry.ours}
    return [(name, by_name[name]) for name in _by_entry(shapes, by_name)], shapes


def _by_entry(names: Iterable[str], entries: dict[str, Tensor]) -> list[str]:
    """Order names so that those of one foreign tensor stand together."""
    found: dict[str, None] = {}
    for name in names:
        found |= dict.fromkeys(entries[name].ours)
    return list(found)


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
