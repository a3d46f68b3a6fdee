"""Exports, read back from their files and compared with their run.

One for Hugging Face goes through transformers where that is installed. Where it is not, the plain
torch files of the export (network and layout) are loaded alone, which proves the weights, the
configuration, the mathematics and the positions, but not the wrapper around them.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from blankfill.interop.export_hf import PREFIX
from blankfill.interop.export_parity import Reloaded, Row
from blankfill.objective.batch import Int32
from blankfill.objective.special import DISPLAY, SpecialIds
from blankfill.runs.tensors import read_tensors

__all__ = ["ReloadedByTorch", "ReloadedByTransformers", "reload_hf"]

_INPUTS = ("mask", "smask", "gmask", "sop", "pad", "dblock")
"""Roles that only stand in inputs and are never generated."""


def reload_hf(folder: Path, special: SpecialIds) -> Reloaded:
    """Load an export through transformers, or without it through the plain torch files."""
    if importlib.util.find_spec("transformers") is None:
        return ReloadedByTorch(folder, special)
    return ReloadedByTransformers(folder, special)


class ReloadedByTransformers:
    """The export as a model of transformers, with its own `generate()`."""

    def __init__(self, folder: Path, special: SpecialIds) -> None:
        import transformers  # pyright: ignore[reportMissingImports]  # an extra

        from blankfill.interop.hf import BlankfillForCausalLM

        self.through = f"transformers {transformers.__version__}"
        self._model: Any = BlankfillForCausalLM.from_pretrained(folder)
        self._model.eval()
        self._ids = _known(self._model.config, special)
        self._special = special

    @torch.inference_mode()
    def logits(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Score the inputs of rows, as one batch: `[T, V]` each."""
        tokens, real = _pad([row.tokens(self._special) for row in rows], self._ids["pad"])
        scores = self._model(input_ids=tokens, attention_mask=real.long(), use_cache=False).logits
        return _inputs(rows, scores, real)

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[Int32], max_new_tokens: int) -> list[list[int]]:
        """Fill prompts as one batch: what stands after the first `[S]` of each row."""
        sop = np.array([self._ids["sop"]], np.int32)
        tokens, real = _pad([np.concatenate([p, sop]) for p in prompts], self._ids["pad"])
        rows = self._model.generate(
            input_ids=tokens, attention_mask=real.long(), do_sample=False, num_beams=1,
            max_new_tokens=max_new_tokens, pad_token_id=self._ids["pad"],
            eos_token_id=[self._ids["eop"], self._ids["eos"]],
        )  # fmt: skip
        return [_plain(row, self._ids) for row in rows[:, tokens.shape[1] :].tolist()]


class ReloadedByTorch:
    """The export's network and layout files, loaded by themselves."""

    def __init__(self, folder: Path, special: SpecialIds) -> None:
        self.through = "the export's own torch files (transformers is not installed)"
        self._config = SimpleNamespace(**json.loads((folder / "config.json").read_text("utf-8")))
        self._ids = _known(self._config, special)
        self._special = special
        network = _load(folder / "network_blankfill.py")
        layout = _load(folder / "layout_blankfill.py")
        self._lay_out: Callable[..., Any] = layout.lay_out
        with torch.device("meta"):
            self._network: Any = network.Network(self._config)
        self._network.to_empty(device="cpu").eval()
        weights: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("model*.safetensors")):
            weights |= {name.removeprefix(PREFIX): value for name, value in read_tensors(path)}
        self._network.load_state_dict(weights)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Score the inputs of rows, as one batch: `[T, V]` each."""
        tokens, real = _pad([row.tokens(self._special) for row in rows], self._ids["pad"])
        scores = self._network.logits(self._step(tokens, real, None, 0)[0])
        return _inputs(rows, scores, real)

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[Int32], max_new_tokens: int) -> list[list[int]]:
        """Fill prompts as one batch: what stands after the first `[S]` of each row."""
        ids = self._ids
        tokens, real = _pad([np.append(p, np.int32(ids["sop"])) for p in prompts], ids["pad"])
        ends = (ids["eop"], ids["eos"])
        banned = [*self._config.banned_ids, *(ids[role] for role in _INPUTS)]
        banned = [i for i in banned if i not in ends]
        banned += range(self._config.num_tokens, self._config.vocab_size)
        start, cache, num_cached = tokens.shape[1], _Cache(), 0
        done = torch.zeros(len(tokens), dtype=torch.bool)
        while tokens.shape[1] < start + max_new_tokens and not done.all():
            hidden, layout = self._step(tokens, real, cache, num_cached)
            num_cached = tokens.shape[1]
            scores = self._network.logits(hidden[:, -1])
            scores[:, banned] = float("-inf")
            ended = torch.isin(tokens[:, -1], torch.tensor(ends))
            waits = ended & (layout.num_opened < layout.num_blanks)
            chosen = torch.where(waits, ids["sop"], scores.argmax(-1))
            chosen = torch.where(done, ids["pad"], chosen)
            last = layout.num_opened >= layout.num_blanks
            done |= last & torch.isin(chosen, torch.tensor(ends))
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            real = nn.functional.pad(real, (0, 1), value=True)
        return [_plain(row, ids) for row in tokens[:, start:].tolist()]

    def _step(
        self, tokens: torch.Tensor, real: torch.Tensor, cache: _Cache | None, num_cached: int
    ) -> Any:
        layout = self._lay_out(tokens, real, self._ids, self._config.position_scheme)
        hidden = self._network(
            tokens[:, num_cached:], layout.positions[:, :, num_cached:],
            layout.visible(num_cached)[:, None], cache,
        )  # fmt: skip
        return hidden, layout


class _Cache:
    """Keys and values, appended at every call."""

    def __init__(self) -> None:
        self._stored: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append `[B, N, T, H]` and return all so far."""
        if layer in self._stored:
            before = self._stored[layer]
            keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
        self._stored[layer] = keys, values
        return keys, values


def _inputs(rows: Sequence[Row], scores: torch.Tensor, real: torch.Tensor) -> list[torch.Tensor]:
    """Take the inputs of each row out of `[B, T, V]` scores of a padded batch."""
    kept = [one[where] for one, where in zip(scores, real, strict=True)]
    return [one[torch.from_numpy(row.inputs()).long()] for row, one in zip(rows, kept, strict=True)]


def _pad(rows: Sequence[Int32], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows on the left: `[B, T]` tokens, and where they are no padding."""
    width = max(map(len, rows))
    tokens = np.full((len(rows), width), pad, dtype=np.int64)
    real = np.zeros((len(rows), width), dtype=np.bool_)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :] = row
        real[i, width - len(row) :] = True
    return torch.from_numpy(tokens), torch.from_numpy(real)


def _plain(row: Sequence[int], ids: dict[str, int]) -> list[int]:
    """Cut a row after its last blank, and write one end token for the two that end a blank."""
    plain: list[int] = []
    for token in row:
        if plain and plain[-1] == ids["eop"] and token != ids["sop"]:
            break  # what follows the last blank's end is padding
        plain.append(ids["eop"] if token == ids["eos"] else token)
    return plain


def _known(config: Any, special: SpecialIds) -> dict[str, int]:
    """Tell the export which ids are special, where it was made without a vocabulary."""
    if not config.special_ids:
        config.special_ids = {role: getattr(special, role) for role in DISPLAY}
    ids: dict[str, int] = config.special_ids
    return ids


def _load(path: Path) -> ModuleType:
    """Run one Python file of an export as a module of its own."""
    name = f"_blankfill_export_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their own module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module
