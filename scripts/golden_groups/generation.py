"""Positions and masks of every step while the released code generates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from blankfill.config.objective import PositionScheme
from blankfill.generate.writing import Writing
from blankfill.objective import Kind, SpecialIds, blank_positions, build_prompt, visible
from blankfill.objective.blank import Prompt, generation_positions
from golden_groups.common import MISMATCH, Case, difference, special_ids

Record = dict[str, Any]
OTHERS = "others"
"""The group of all that have no check."""


def positions(group: str, folder: Path) -> Iterator[Case]:
    """Each recorded generation of a group, its context and every step, exactly."""
    ids = special_ids(folder)
    for line in (folder / "generation_positions.jsonl").read_text().splitlines():
        record = json.loads(line)
        check = CHECKS.get(record["group"])
        if group != (record["group"] if check else OTHERS):
            continue
        reason = _not_offered(record) if check else f"group {record['group']}"
        if reason or check is None:
            yield record["id"], reason
        else:
            yield record["id"], max(check(record, ids), default=MISMATCH)


def _not_offered(record: Record) -> str:
    options = record.get("options", {})
    if record["error"]:
        return "an error of theirs"
    if options.get("no_block_position"):
        return "one-dimensional positions that leave room for a blank's length"
    if record.get("version", "final") != "final":
        return "the ids and positions of ChatGLM's first release"
    if record["group"] == "chatglm" and not options["position_encoding_2d"]:
        return "ChatGLM in one dimension"
    if record.get("input", {}).get("unified_multitask_encoding"):
        return "unified multitask encoding"
    return ""


def _glm(record: Record, ids: SpecialIds) -> Iterator[float]:
    """GLM: all blanks of one Part A, after it in one cache."""
    prompt = build_prompt(np.array(record["context_ids"], np.int32), ids)
    steps = record["steps"]
    yield difference(prompt.positions, steps[0]["position_ids"][0])
    yield _seen(len(prompt.tokens), len(prompt.tokens), steps[0]["mask_visible"][0][0])
    starts = [blank["first_step_index"] for blank in record["blanks"]]
    for blank, start, end in zip(record["blanks"], starts, [*starts[1:], len(steps)], strict=True):
        number = prompt.blanks.tolist().index(blank["mask_position_argument"])
        for k, step in enumerate(steps[start:end]):
            ours = _next(prompt, number, k, "corrupted")
            yield difference(ours, np.array(step["position_ids"])[0, :, 0])
            length = step["memory_length"] + 1
            yield _seen(length, len(prompt.tokens), step["mask_visible"][0][0])
    yield from _as_the_engine_reads(prompt, steps[1:], starts, ids)


def _as_the_engine_reads(
    prompt: Prompt, steps: list[Record], starts: list[int], ids: SpecialIds
) -> Iterator[float]:
    """What the engine reads where the recorded tokens are chosen: inputs and positions."""
    ends = [*starts[1:], len(steps) + 1]
    chosen = [
        [step["forced_next_token"] for step in steps[start - 1 : end - 1]]
        for start, end in zip(starts, ends, strict=True)
    ]
    if any(tokens[-1] not in (ids.eop, ids.eos) for tokens in chosen):
        return  # cut off by the limit: GLM never reads the last token, we ask what comes after it
    writing = Writing(
        prompt=prompt, scheme="corrupted", enders=(ids.eop, ids.eos), forced=chosen,
        limit=max(map(len, chosen)), order=tuple(range(len(chosen))),
    )  # fmt: skip
    reading = writing.reading()
    yield difference(reading.tokens, [step["input_ids"][0][0] for step in steps])
    yield difference(reading.positions, [np.array(s["position_ids"])[0, :, 0] for s in steps])


def _glm130b(record: Record, ids: SpecialIds) -> Iterator[float]:
    """GLM-130B: for each blank the text anew, the earlier ones filled; [MASK] before [gMASK]."""
    steps = record["steps"]
    starts = [blank["first_step_index"] for blank in record["blanks"]]
    for blank, start, end in zip(record["blanks"], starts, [*starts[1:], len(steps)], strict=True):
        prompt = build_prompt(np.array(blank["input_ids"][:-1], np.int32), ids)
        kinds = sorted(prompt.kinds, key=(Kind.SHORT, Kind.SENTENCE, Kind.DOCUMENT).index)
        number = prompt.kinds.index(kinds[0])
        part_a = prompt.positions[0].tolist()
        for k, step in enumerate(steps[start:end]):
            ours = [int(_next(prompt, number, k, "linear")[0])]
            yield difference((part_a if k == 0 else []) + ours, step["position_ids"][0])
            length = len(part_a) + 1 + k
            yield _seen(length, len(part_a), step["mask_visible"][0][0])


def _chatglm(record: Record, ids: SpecialIds) -> Iterator[float]:
    """ChatGLM-6B: rows padded on the left; [gMASK] before [MASK]."""
    for row, tokens in enumerate(record["prompt_ids"]):
        pads = next(i for i, token in enumerate(tokens) if token != ids.pad)
        part_a = tokens[pads : tokens.index(ids.sop)]
        prompt = build_prompt(np.array(part_a, np.int32), ids)
        number = prompt.kinds.index(Kind.DOCUMENT if Kind.DOCUMENT in prompt.kinds else Kind.SHORT)
        for k, step in enumerate(record["steps"]):
            ours = _next(prompt, number, k, "corrupted")[:, None]
            found = np.array(step["position_ids"])[row]
            if k == 0:
                ours, found = np.concatenate([prompt.positions, ours], axis=1), found[:, pads:]
            yield difference(ours, found)
            if step["mask_visible"] is not None:
                seen = np.array(step["mask_visible"][row][0])
                yield _seen(len(part_a) + 1 + k, len(part_a), seen[pads if k == 0 else 0 :, pads:])


def _hf_glm(record: Record, ids: SpecialIds) -> Iterator[float]:
    """GLM on Hugging Face: rows padded on the right of Part A."""
    for row, tokens in enumerate(record["initial_input_ids"]):
        part_a = np.array(tokens[:-1], np.int32)
        prompt = build_prompt(part_a, ids)
        planned = blank_positions(
            "corrupted", prompt.kinds[0], mask_index=int(prompt.blanks[0]),
            part_a_length=len(part_a), earlier_lengths=[], num_inputs=record["max_gen_length"],
        )  # fmt: skip
        yield difference(
            np.concatenate([prompt.positions, planned], axis=1), record["all_position_ids"][row]
        )
        real = np.append(part_a != ids.pad, True)
        for k, step in enumerate(record["steps"]):
            ours = _next(prompt, 0, k, "corrupted")[:, None]
            found = np.array(step["position_ids"])[row]
            if k == 0:
                ours = np.concatenate([prompt.positions, ours], axis=1)
            yield difference(ours, found)
            keys = np.append(real, np.ones(k, bool))
            seen = np.array(step["mask_visible"])[row, 0][:, keys]
            rows = seen[keys] if k == 0 else seen
            yield _seen(int(keys.sum()), int(real.sum()) - 1, rows)


def _glm130b_eval(record: Record, ids: SpecialIds) -> Iterator[float]:
    """GLM-130B's samples of evaluation: a prompt, or choices side by side after one Part A."""
    out = record["output"]
    tokens = [int(token) for token in out.get("token", out.get("tokens"))]
    starts = [i for i, token in enumerate(tokens) if token == ids.sop]
    prompt = build_prompt(np.array(tokens[: starts[0]], np.int32), ids)
    parts = [prompt.positions[0]]
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        parts.append(_inputs(prompt, 0, end - start))
    yield difference(np.concatenate(parts), out.get("position_id", out.get("position_ids")))
    if "target_position_id" in out:
        inputs = len(tokens) - starts[0]
        ours = _inputs(prompt, inputs, len(out["target_position_id"]))
        yield difference(ours, out["target_position_id"])
    if len(starts) == 1:
        found = np.array(out["attention_mask"]).astype(bool)
        # The builder of language modelling stores what is hidden, the others what is seen.
        hidden = "LanguageModel" in record["reference"]
        yield _seen(len(tokens), starts[0], ~found if hidden else found)


def _glm130b_eval_generate(record: Record, ids: SpecialIds) -> Iterator[float]:
    """The same, batched: a context padded on the right, and each step after it."""
    batch = record["batch"]
    for row, length in enumerate(batch["context_length"]):
        tokens = batch["tokens"][row][:length]
        start = tokens.index(ids.sop)
        prompt = build_prompt(np.array(tokens[:start], np.int32), ids)
        context = np.concatenate([prompt.positions[0], _inputs(prompt, 0, length - start)])
        yield difference(context, batch["position_ids"][row][:length])
        targets = batch["target_position_ids"][row]
        yield difference(_inputs(prompt, length - start, len(targets)), targets)
        for k, step in enumerate(record["steps"]):
            found = step["position_ids"][row]
            if k == 0:
                yield difference(context, found[:length])
            else:
                yield difference(_inputs(prompt, length - start + k - 1, 1), found)


CHECKS: dict[str, Callable[[Record, SpecialIds], Iterator[float]]] = {
    "glm": _glm,
    "130b": _glm130b,
    "130b_eval": _glm130b_eval,
    "130b_eval_generate": _glm130b_eval_generate,
    "chatglm": _chatglm,
    "hf_glm": _hf_glm,
}


def _next(prompt: Prompt, blank: int, num_generated: int, scheme: PositionScheme) -> np.ndarray:
    """Both ids of the next input of a blank; earlier ones do not matter under these schemes."""
    return generation_positions(prompt, blank, num_generated, [], scheme=scheme)


def _inputs(prompt: Prompt, first: int, count: int) -> np.ndarray:
    """First ids of some inputs of the only blank, as GLM-130B numbers them."""
    return blank_positions(
        "linear", prompt.kinds[0], mask_index=int(prompt.blanks[0]),
        part_a_length=len(prompt.tokens), earlier_lengths=[], num_inputs=count, first_input=first,
    )[0]  # fmt: skip


def _seen(length: int, part_a_length: int, found: Any) -> float:
    """Compare the last rows of the mask of `length` positions with those that were recorded."""
    found = np.array(found)
    ours = visible(np.zeros(length, np.int32), np.arange(length) >= part_a_length)
    return difference(ours[length - len(found) :], found)
