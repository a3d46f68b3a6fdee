"""Blanks, masks and the sampler's statistics, beside the released corruption code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from blankfill.config.objective import ObjectiveConfig
from blankfill.objective import (
    IGNORE_INDEX,
    End,
    Kind,
    SpecialIds,
    blank_positions,
    build_example,
    restore,
    visible,
)
from blankfill.objective.drawn import Drawn
from blankfill.objective.many import draw_many, place_many
from blankfill.objective.positions import part_a_positions
from golden_groups.common import MISMATCH, Case, difference, special_ids

KINDS = {"bert": Kind.SHORT, "gap_sentence": Kind.SENTENCE, "generation": Kind.DOCUMENT}


def lines(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    for line in (folder / "objective_cases.jsonl").read_text().splitlines():
        case = json.loads(line)
        if case["kind"] == kind:
            yield case


def compared(
    ids: SpecialIds, tokens: list[int], spans: list[list[int]], order: list[list[int]], kind: Kind,
    wanted: dict[str, Any], config: dict[str, Any], *, ends: bool = True,
) -> float:  # fmt: skip
    """Build one example and give its largest difference from the released one.

    `wanted` may be longer: a row of a batch, padded with id 0 and no loss.
    """
    rows = sorted(map(tuple, spans))
    document = np.array(tokens, np.int32)
    if not rows:
        # A text without blanks is Part A alone.
        example_tokens, targets, positions = document, document, part_a_positions(len(document))
        loss = np.zeros(len(document), int)
        sep = len(document)
    else:
        # Without task masks every kind has [MASK], which is what SHORT means under `corrupted`.
        if not config.get("task_mask", False):
            kind = Kind.SHORT
        example = build_example(
            document, np.array(rows), kind=kind, ids=ids, end=End.EOP if ends else End.NONE,
            order=np.array([rows.index(tuple(span)) for span in order]),
            sentinel_position=config["max_seq_length"] if config.get("sentinel_token") else None,
        )  # fmt: skip
        example_tokens, targets, positions = example.tokens, example.targets, example.positions
        loss, sep = (targets != IGNORE_INDEX).astype(int), example.part_b_start
        if difference(restore(example), document):
            return MISMATCH
    if not config.get("block_position_encoding", True):
        # The released one-dimensional form marks Part B with 1 and counts nothing.
        positions = np.stack([positions[0], (np.arange(len(example_tokens)) >= sep).astype(int)])
    if config.get("random_position"):
        # The offset is a draw of theirs; ours are those that keep an example below the row's end.
        offset = int(wanted["position_ids"][0][0])
        if not 0 <= offset <= config["max_seq_length"] - len(example_tokens):
            return MISMATCH
        positions = positions + np.array([[offset], [0]])
    length = len(wanted["tokens"])
    pad = (0, length - len(example_tokens))
    if pad[1] < 0 or sep != wanted["source_length"]:
        return MISMATCH
    wanted_loss = np.array(wanted["loss_mask"])
    worst = [
        difference(np.pad(example_tokens, pad), wanted["tokens"]),
        difference(np.pad(loss, pad), wanted_loss),
        difference(np.pad(positions, ((0, 0), pad)), wanted["position_ids"]),
        difference(
            np.where(wanted_loss == 1, np.pad(targets, pad), 0),
            np.where(wanted_loss == 1, wanted["targets"], 0),
        ),
    ]
    return max(worst)


def block_data(folder: Path) -> Iterator[Case]:
    """Examples from given spans and a given order."""
    ids = special_ids(folder)
    for case in lines(folder, "make_block_data"):
        yield case["id"], compared(
            ids, case["input"]["tokens"], case["input"]["spans"], case["order"],
            KINDS[case["task"]], case["output"], case["config"],
        )  # fmt: skip


def construct_blocks(folder: Path) -> Iterator[Case]:
    """Batches of the released sampler, from the blanks that it chose."""
    ids = special_ids(folder)
    for case in lines(folder, "construct_blocks"):
        config, out = case["config"], case["output"]
        own_loss_mask = any(0 in row for row in case["input"]["loss_mask"])
        if config.get("masked_lm") or case["error"] or (own_loss_mask and not case["blocks"]):
            yield (
                case["id"],
                "an error of theirs, masked_lm, or a loss mask from outside",
            )
            continue
        for r in range(len(out["tokens"])):
            wanted = {key: out[key][r] for key in ("tokens", "targets", "loss_mask", "position_ids",
                                                   "source_length")}  # fmt: skip
            if case["blocks"]:
                block = case["blocks"][r]
                yield case["id"], compared(
                    ids, block["tokens"], block["spans"], block["order"], KINDS[block["task"]],
                    wanted, config,
                )  # fmt: skip
                continue
            # A prefix and its continuation: the blank is the suffix, and nothing ends it.
            tokens = case["input"]["samples"][r]
            spans = [[wanted["source_length"] - 1, len(tokens)]]
            yield (
                case["id"],
                compared(ids, tokens, spans, spans, Kind.DOCUMENT, wanted, config, ends=False),
            )


def masks(folder: Path) -> Iterator[Case]:
    """Who sees whom, with and without memory, and GLM-130B's positions while generating."""
    ids = special_ids(folder)
    arrays = np.load(folder / "attention_masks.npz")
    for name in arrays.files:
        family, _, case = name.partition("/")
        found = arrays[name]
        if family == "glm":
            n, seps, memory = (part.lstrip("nsepm") for part in case.split("_"))
            num_queries, num_memory = int(n), int(memory)
            all_seps = [int(sep) for sep in seps.split("-")]
            for row in range(len(found)):
                sep = all_seps[row % len(all_seps)]
                length = num_memory + num_queries
                ours = visible(np.zeros(length, np.int32), np.arange(length) >= num_memory + sep)
                yield name, difference(ours[num_memory:], found[row, 0])
        elif family == "glm130b_generate":
            case = case.removesuffix("/position_ids")
            n, mask, generated, straight = (
                int("".join(filter(str.isdigit, part))) for part in case.split("_")
            )
            if name.endswith("/position_ids"):
                kind = Kind.DOCUMENT if straight else Kind.SHORT
                part_b = blank_positions(
                    "linear", kind, mask_index=mask, part_a_length=n - 1, earlier_lengths=[],
                    num_inputs=generated + 1,
                )  # fmt: skip
                ours = np.concatenate([part_a_positions(n - 1), part_b], axis=1)[0]
                yield name, difference(ours, found[0])
            else:
                length = n + generated
                ours = visible(np.zeros(length, np.int32), np.arange(length) >= n - 1)
                yield name, difference(ours, found[0, 0])
        elif name + "/input_ids" in arrays.files:
            for row, tokens in enumerate(arrays[name + "/input_ids"]):
                is_pad = tokens == ids.pad
                if ids.sop not in tokens:
                    yield name, "a text without sop"
                    continue
                is_part_b = np.arange(len(tokens)) >= tokens.tolist().index(ids.sop)
                ours = visible(np.where(is_pad, -1, 0), is_part_b)
                # Padding asks for nothing: what it sees is not part of the rule.
                yield name, difference(ours[~is_pad], found[row, 0][~is_pad])


DRAWS = 40_000
"""Documents that are drawn to be compared with the reference's statistics."""


def standard_errors(found: np.ndarray, mean: float, deviation: float, samples: int) -> float:
    """Give the distance of two means in standard errors of their difference."""
    error = np.sqrt(deviation**2 / samples + found.std() ** 2 / len(found))
    return float(abs(found.mean() - mean) / max(error, 1e-12))


def moments(histogram: dict[str, int]) -> tuple[float, float, int]:
    values = np.repeat([int(k) for k in histogram], list(histogram.values()))
    return float(values.mean()), float(values.std()), len(values)


def statistics(folder: Path) -> Iterator[Case]:
    """Laws of the released sampler: distances of means, in standard errors.

    A sample of L tokens begins with a token that is never cut out, so ours has L - 1.
    """
    known = json.loads((folder / "span_statistics.json").read_text())
    for group in ("bert", "bert_single_span"):
        for case in known[group]:
            yield from short_statistics(group, case)
    for case in known["gpt"]:
        if set(case["kinds"]) == {"prefix"} and not case["lengths_vary_between_half_and_L"]:
            length, share = case["seq_length"], case["config"]["gpt_min_ratio"]
            cfg = ObjectiveConfig(
                short_rate=0,
                document_rate=1,
                min_document_share=share,
                max_document_share=(length - 2) / length,
            )
            wanted = case["generation_length"]
            yield (
                f"gpt {length}",
                standard_errors(drawn(length, cfg).lengths, wanted["mean"], wanted["std"], 4000),
            )
    for case in known["gap_sentence"]:
        yield f"gap_sentence {case['seq_length']}", "another rule of what a sentence is"


def drawn(length: int, cfg: ObjectiveConfig) -> Drawn:
    numbers = np.arange(DRAWS)
    sizes = np.full(DRAWS, length)
    return draw_many(sizes, np.ones(DRAWS, bool), numbers, cfg, seed=0, epoch=0)


def short_statistics(group: str, case: dict[str, Any]) -> Iterator[Case]:
    length, config = case["seq_length"], case["config"]
    if case["documents_per_sample"] != 1:
        yield f"{group} {length}", "several documents in a sample"
        return
    tokens = length - 1
    cfg = ObjectiveConfig(
        short_rate=1,
        document_rate=0,
        ratio_law="fixed",
        placement="released",
        mask_ratio=(int(config["bert_ratio"] * length) + 0.5) / tokens,
        mean_span_length=config.get("average_block_length", 3),
        single_span_rate=config.get("single_span_prob", 0),
    )
    placed = place_many(drawn(tokens, cfg), cfg, seed=0, epoch=0, row_length=10**6)
    first = placed.drawn.first
    lengths = placed.spans[:, 1] - placed.spans[:, 0]
    name = f"{group} {length}"
    yield f"{name} lengths", standard_errors(lengths, *moments(case["span_length_histogram"]))
    used = case["samples_used"]
    spans, masked = case["spans_per_sample"], case["masked_fraction"]
    yield f"{name} spans", standard_errors(np.diff(first), spans["mean"], spans["std"], used)
    share = np.add.reduceat(lengths, first[:-1]) / length
    yield f"{name} masked", standard_errors(share, masked["mean"], masked["std"], used)
    histogram = next(v for k, v in case.items() if k.startswith("gap_between"))
    gaps = placed.spans[1:, 0] - placed.spans[:-1, 1]
    gaps = np.delete(gaps, first[1:-1] - 1)
    total = sum(histogram.values())
    for gap in range(1, 6) if total else ():
        wanted = histogram[str(gap)] / total
        deviation = np.sqrt(wanted * (1 - wanted))
        yield f"{name} gap {gap}", standard_errors(gaps == gap, wanted, deviation, total)
