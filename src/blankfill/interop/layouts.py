"""Recognise the layout of a checkpoint, and list its tensors in one table per rank.

| layout | files | written by |
|---|---|---|
| glm-megatron | `mp_rank_00_model_states.pt`, ... | GLM, one file per tensor-parallel rank |
| glm-hf | `pytorch_model*.bin` or safetensors | GLM on Hugging Face |
| sat-glm, sat-glm-130b, sat-chatglm | `mp_rank_00_model_states.pt`, ... | SwissArmyTransformer |
| largescale | `layer_00-model_00-model_states.pt`, ... | GLM-130B's pretraining code |
| chatglm-hf | `pytorch_model*.bin` or safetensors | ChatGLM-6B on Hugging Face |
| blankfill | `run.json` and checkpoints | this project |

The file names decide how to read the files; the tensor names decide the family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.errors import ConversionError
from blankfill.interop.names import FAMILY_OF, LAYOUTS, LayoutName, layout_of, refuse_others, unwrap
from blankfill.interop.shards import StoredTensor, joined, open_shard
from blankfill.runs import Place, RunRecord, choose_checkpoint, locate, read_run
from blankfill.runs.parts import list_part, part_files

__all__ = ["FAMILY_OF", "LAYOUTS", "LayoutName", "Source", "recognise"]

_MP_RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_PIPELINE = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")
_POINTERS = ("latest", "latest_checkpointed_iteration.txt")
_CONFIGS = ("config.json", "model_config.json")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model*.safetensors", "pytorch_model*.bin")

Rank = dict[str, StoredTensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint whose tensors are known and not yet read."""

    path: Path
    """The folder or file that holds it."""
    layout: LayoutName
    """How it is laid out."""
    ranks: list[Rank]
    """For each tensor-parallel rank its tensors, by the family's names for a whole model."""
    config: Mapping[str, object] = field(default_factory=dict[str, object])
    """What its config.json or model_config.json says."""
    config_path: Path | None = None
    """That file."""
    record: RunRecord | None = None
    """What its run.json says, where it is a run of ours."""
    dropped: str = ""
    """The wrappers whose prefixes were removed from the names of the tensors."""

    @property
    def files(self) -> list[Path]:
        """The files that hold its tensors."""
        return sorted({stored.path for rank in self.ranks for stored in rank.values()})


def recognise(path: Path, layout: LayoutName | None = None) -> Source:
    """Find out how a checkpoint is laid out and open its files.

    Args:
        path: a file, a folder, or a folder whose `latest` names one inside.
        layout: use this one instead of recognising it.

    Raises:
        ConversionError: nothing there is a known layout, or a file is missing or damaged.
    """
    if not path.exists():
        raise ConversionError(f"{path} does not exist; name a checkpoint's folder or file")
    folder = _follow(path)
    place = locate(folder)
    if (place.run / "run.json").is_file():
        _check(path, layout, "blankfill")
        return _own(place)
    if not folder.is_dir():
        return _named(path, layout, [open_shard(folder)], folder.parent)
    if files := _matching(folder, _PIPELINE):
        _check(path, layout, "largescale")
        config, config_path = _config(folder)
        return Source(path=path, layout="largescale", ranks=_pipeline(files), config=config,
                      config_path=config_path)  # fmt: skip
    if files := _matching(folder, _MP_RANK):
        _complete(folder, sorted(int(number) for (number,) in files), "mp_rank_{:02d}")
        ranks = [open_shard(files[key]) for key in sorted(files, key=lambda k: int(k[0]))]
        return _named(path, layout, ranks, folder)
    if files := _hugging_face(folder):
        return _named(path, layout, [_union([open_shard(file) for file in files])], folder)
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:4]) or "nothing"
    raise ConversionError(
        f"{path} is no checkpoint that blankfill knows: it holds {held}; name a folder with "
        "mp_rank_*_model_states.pt, layer_*-model_*-model_states.pt, pytorch_model*.bin, "
        "*.safetensors or run.json"
    )


def _follow(path: Path) -> Path:
    """Go to the folder that `latest` names, as DeepSpeed and SwissArmyTransformer write it."""
    for name in _POINTERS:
        pointer = path / name
        if pointer.is_file():
            _refuse_pointer(pointer)
            target = pointer.read_text(encoding="utf-8", errors="replace").strip()
            if target and (path / target).is_dir():
                return path / target
            raise ConversionError(
                f"{pointer} names {target[:80]!r}, which is not there; name the checkpoint's "
                "own folder"
            )
    return path


def _check(path: Path, asked: LayoutName | None, found: LayoutName) -> None:
    if asked is not None and asked != found:
        raise ConversionError(f"{path} is laid out as {found}, not as {asked}; leave out --layout")


def _matching(folder: Path, pattern: re.Pattern[str]) -> dict[tuple[str, ...], Path]:
    found = ((pattern.fullmatch(p.name), p) for p in folder.iterdir())
    return {match.groups(): p for match, p in found if match}


def _complete(folder: Path, numbers: list[int], name: str) -> None:
    missing = sorted(set(range(numbers[-1] + 1)) - set(numbers))
    if missing:
        raise ConversionError(
            f"{folder} lacks the rank {name.format(missing[0])}, while "
            f"{name.format(numbers[-1])} is there; copy the files of every rank"
        )


def _hugging_face(folder: Path) -> list[Path]:
    for name in _INDEXES:
        if (folder / name).is_file():
            _refuse_pointer(folder / name)
            try:
                index: dict[str, object] = json.loads((folder / name).read_text(encoding="utf-8"))
                files = sorted(set(cast("dict[str, str]", index["weight_map"]).values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConversionError(f"{folder / name} is damaged ({error!r}); "
                                      "download it again") from error  # fmt: skip
            for file in files:
                if not (folder / file).is_file() or Path(file).name != file:
                    raise ConversionError(
                        f"{folder / file} is missing, which {name} names; copy every shard"
                    )
            return [folder / file for file in files]
    for pattern in (*_WHOLE, "*.safetensors", "*.bin", "*.pt"):
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def _union(shards: list[Rank]) -> Rank:
    """Put the shards of one rank together; a tensor may stand in one of them only."""
    found: Rank = {}
    for shard in shards:
        for name, stored in shard.items():
            _add(found, name, stored)
    return found


def _add(found: Rank, name: str, stored: StoredTensor) -> None:
    if name in found:
        raise ConversionError(
            f"the tensor {name} stands twice, in {found[name].path} and in {stored.path}; "
            "remove the file that does not belong to the checkpoint"
        )
    found[name] = stored


def _named(path: Path, asked: LayoutName | None, ranks: list[Rank], folder: Path) -> Source:
    """Recognise the layout by the names of the tensors without wrappers."""
    inner, dropped = unwrap([name for rank in ranks for name in rank])
    refuse_others(path, inner.values())
    ranks = [_renamed(rank, inner) for rank in ranks]
    is_ranked = any(_MP_RANK.fullmatch(s.path.name) for s in ranks[0].values())
    layout = asked or layout_of(path, ranks[0], is_ranked=is_ranked)
    ranks = [_renamed(rank, {name: _whole_name(name, layout) for name in rank}) for rank in ranks]
    config, config_path = _config(folder)
    return Source(path=path, layout=layout, ranks=ranks, dropped=dropped, config=config,
                  config_path=config_path)  # fmt: skip


def _renamed(rank: Rank, names: dict[str, str]) -> Rank:
    found: Rank = {}
    for name, stored in rank.items():
        _add(found, names[name], stored)
    return found


def _whole_name(name: str, layout: LayoutName) -> str:
    if layout == "glm-hf":  # the base model is saved without the prefix of the one with a head
        return name if name.startswith("glm.") else f"glm.{name}"
    return name


def _pipeline(files: dict[tuple[str, ...], Path]) -> list[Rank]:
    """Name the tensors of pipeline files: first the embedding, last the final norm."""
    layers = sorted({int(layer) for layer, _ in files})
    sizes = sorted({int(rank) for _, rank in files})
    by_number = {(int(layer), int(rank)): path for (layer, rank), path in files.items()}
    folder = next(iter(files.values())).parent
    _complete(folder, sizes, "layer_*-model_{:02d}")
    ranks: list[Rank] = [{} for _ in sizes]
    for order, layer in enumerate(layers):
        for rank in sizes:
            if (layer, rank) not in by_number:
                raise ConversionError(
                    f"{folder} lacks layer_{layer:02d}-model_{rank:02d}-model_states.pt; copy the "
                    "files of every layer and rank"
                )
            stem = f"transformer.layers.{order - 1}."
            if order == 0:
                stem = "transformer."
            elif order == len(layers) - 1:
                stem = "transformer.final_layernorm."
            shard = open_shard(by_number[layer, rank])
            for name, stored in _renamed(shard, unwrap(shard)[0]).items():
                name = name.replace("self_attention.", "attention.")
                _add(ranks[rank], stem + name.removeprefix("final_layernorm."), stored)
    return ranks


def _own(place: Place) -> Source:
    folder = place.run
    record = read_run(folder)
    record.require_whole(folder, "is not imported")
    checkpoint = choose_checkpoint(folder, place.checkpoint, ["model"])
    shards = {path: open_shard(path) for path in part_files(checkpoint.path)}
    tensors = {
        name: joined(tensor.shape, [(one.begin, shards[one.path][name]) for one in tensor.blocks])
        for name, tensor in list_part(checkpoint.path).items()
    }
    return Source(path=folder, layout="blankfill", ranks=[tensors], record=record,
                  config_path=folder / "run.json")  # fmt: skip


def _config(folder: Path) -> tuple[Mapping[str, object], Path | None]:
    """Read config.json or model_config.json beside the weights or one folder up, and its path."""
    for path in (place / name for place in (folder, folder.parent) for name in _CONFIGS):
        if path.is_file():
            _refuse_pointer(path)
            try:
                config: object = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise ConversionError(
                    f"{path} is damaged: it is not JSON ({error}); download it again"
                ) from error
            if not isinstance(config, dict):
                raise ConversionError(
                    f"{path} is no configuration: it holds no names and values; download it again"
                )
            return cast("dict[str, object]", config), path
    return {}, None


def _refuse_pointer(path: Path) -> None:
    if is_pointer(path):
        raise ConversionError(pointer_sentence(path))
