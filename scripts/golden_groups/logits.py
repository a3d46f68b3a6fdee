"""What the released models compute from the released weights: scores, states, losses, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from blankfill.generate.engine import Engine, Inputs
from blankfill.interop.keymap import from_ours
from blankfill.model import DenseMask, PackedMask, Targets
from golden_groups.common import MISMATCH, Case
from golden_groups.models import NotOfferedError, Released, load_model


def scores(folder: Path) -> Iterator[Case]:
    """Logits of whole rows under the given mask, at columns that are not padding."""

    def compare(known: Released) -> Iterator[Case]:
        with torch.no_grad():
            ours = known.model.logits(_hidden(known))
        yield known.name, _largest(ours, known.outputs["logits"], known.valid)
        for name in ("logits_explicit_mask", "logits_row0_scalar_sep"):
            if name in known.outputs:
                theirs = known.outputs[name]
                rows = slice(0, len(theirs))
                yield f"{known.name}/{name}", _largest(ours[rows], theirs, known.valid[rows])

    yield from _each(folder, compare)


def packed_scores(folder: Path) -> Iterator[Case]:
    """The same logits by the attention of packed training rows, where the mask is of its rule."""

    def compare(known: Released) -> Iterator[Case]:
        blocks = _blocks(known)
        if blocks is None:
            yield known.name, "padding lies inside a row"
            return
        mask = PackedMask(blocks, tuple(known.tokens.shape))
        with torch.no_grad():
            ours = known.model.logits(known.model(known.tokens, known.positions, mask))
        yield known.name, _largest(ours, known.outputs["logits"], known.valid)

    yield from _each(folder, compare)


def cached_scores(folder: Path) -> Iterator[Case]:
    """Row 0 decoded with a cache: Part A in one pass, then a token at a time."""

    def compare(known: Released) -> Iterator[Case]:
        if "incremental_logits_row0" not in known.outputs:
            return
        start, part_b, end = _bounds(known, 0)
        model, tokens, positions = known.model, known.tokens[0], known.positions[0]
        context = (tokens[start:part_b].numpy(), positions[:, start:part_b].numpy())
        theirs = known.outputs["incremental_logits_row0"][0, part_b:end]
        for name, size in (("", 1), ("/in one step", end - part_b)):
            engine = Engine(model)
            row = engine.join(engine.encode([context])[0])
            parts = [
                engine.step([Inputs(row, tokens[at].tolist(), positions[:, at].T.tolist())])
                for at in (slice(k, min(k + size, end)) for k in range(part_b, end, size))
            ]
            with torch.inference_mode():
                ours = model.logits(torch.cat(parts))
            yield known.name + name, float((ours - theirs).abs().max())

    yield from _each(folder, compare)


def hidden_states(folder: Path) -> Iterator[Case]:
    """What every layer gives, before the final norm; relative where it is large."""

    def compare(known: Released) -> Iterator[Case]:
        states: dict[str, torch.Tensor] = {}
        hooks = [
            block.register_forward_hook(
                lambda _module, _inputs, out, layer=layer: states.__setitem__(layer, out)
            )
            for layer, block in known.model.blocks.items()
        ]
        with torch.no_grad():
            _hidden(known)
        for hook in hooks:
            hook.remove()
        for layer, ours in states.items():
            wanted = known.outputs.get(f"hidden_after_layer_{layer}")
            if wanted is not None:
                size = max(1.0, float(wanted[known.valid].abs().max()))
                yield f"{known.name} layer {layer}", _largest(ours, wanted, known.valid) / size

    yield from _each(folder, compare)


def losses(folder: Path) -> Iterator[Case]:
    """The mean loss, and each target's where it was recorded."""

    def compare(known: Released) -> Iterator[Case]:
        with torch.no_grad():
            loss, nll = _losses(known)
        wanted = float(known.outputs["loss"])
        yield known.name, abs(float(loss) - wanted) / max(1.0, abs(wanted))
        if "token_losses" in known.outputs:
            each = known.outputs["token_losses"][known.targets != -100]
            yield f"{known.name} tokens", float((nll - each).abs().max())

    yield from _each(folder, compare)


def gradient_norms(folder: Path) -> Iterator[Case]:
    """Relative differences of the norm of each parameter's gradient."""

    def compare(known: Released) -> Iterator[Case]:
        ours = _gradients(known)
        for name, theirs in _recorded(known, "grad_norm/"):
            if name not in ours:
                yield f"{known.name} {name}", MISMATCH
                continue
            wanted = float(theirs)
            yield f"{known.name} {name}", abs(float(ours[name].norm()) - wanted) / max(wanted, 1e-6)

    yield from _each(folder, compare)


def gradient_entries(folder: Path) -> Iterator[Case]:
    """The first entries of each gradient, relative to its largest of them or its mean size."""

    def compare(known: Released) -> Iterator[Case]:
        ours = _gradients(known)
        for name, theirs in _recorded(known, "grad_head/"):
            if name not in ours:
                yield f"{known.name} {name}", MISMATCH
                continue
            gradient = ours[name]
            size = max(float(theirs.abs().max()), float(gradient.norm()) / gradient.numel() ** 0.5)
            found = gradient.flatten()[: theirs.numel()]
            yield f"{known.name} {name}", float((found - theirs.flatten()).abs().max()) / size

    yield from _each(folder, compare)


@cache
def _load(folder: Path) -> Released | str:
    try:
        return load_model(folder)
    except NotOfferedError as reason:
        return str(reason)


def _each(folder: Path, compare: Callable[[Released], Iterator[Case]]) -> Iterator[Case]:
    for path in sorted((folder / "logits").iterdir()):
        if path.is_dir():
            known = _load(path)
            if isinstance(known, str):
                yield path.name, known
            else:
                yield from compare(known)


def _hidden(known: Released) -> torch.Tensor:
    return known.model(known.tokens, known.positions, DenseMask(known.visible))


def _losses(known: Released) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the mean loss and `[n]` that of each target."""
    total, nll = known.model(
        known.tokens, known.positions, DenseMask(known.visible), targets=Targets.of(known.targets)
    )
    return total / max(1, len(nll)), nll


def _gradients(known: Released) -> dict[str, torch.Tensor]:
    """Give the gradient of every parameter of the mean loss, by their names and in their layout."""
    known.model.zero_grad()
    _losses(known)[0].backward()
    ours = {name: p.grad for name, p in known.model.named_parameters() if p.grad is not None}
    return from_ours(known.family, ours, known.model.cfg)


def _recorded(known: Released, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in known.outputs.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), value


def _bounds(known: Released, row: int) -> tuple[int, int, int]:
    """Give where a row starts, where its Part B starts and where it ends; the rest is padding.

    Part A is what its first column sees.
    """
    columns = known.valid[row].nonzero().flatten().tolist()
    part_a = known.visible[row, columns[0]].nonzero().flatten().tolist()
    return columns[0], part_a[-1] + 1, columns[-1] + 1


def _blocks(known: Released) -> np.ndarray | None:
    """Say the rows as examples of packed rows, or None where their mask is of another rule."""
    blocks: list[list[int]] = []
    for row in range(len(known.tokens)):
        start, part_b, end = _bounds(known, row)
        column = torch.arange(start, end)
        wanted = (column[None, :] < part_b) | (column[None, :] <= column[:, None])
        if not torch.equal(known.visible[row, start:end, start:end], wanted):
            return None
        blocks.append([row, start, part_b, end])
    return np.array(blocks, np.int32)


def _largest(found: torch.Tensor, wanted: torch.Tensor, valid: torch.Tensor) -> float:
    """Give the largest difference at valid columns."""
    if found.shape != wanted.shape:
        return MISMATCH
    return float((found - wanted)[valid].abs().max())
