"""Groups of golden vectors: each holds a public function to what released code computed."""

from __future__ import annotations

from functools import partial

from golden_groups import deepnorm, generation, logits, objective, rope, schedule
from golden_groups.common import Group

__all__ = ["GROUPS", "Group"]

OBJECTIVE = ("special_ids.json", "objective_cases.jsonl")
GENERATION = ("special_ids.json", "generation_positions.jsonl")
MODELS = ("logits",)
GROUPS = (
    Group("make_block_data", objective.block_data, 0.0, OBJECTIVE),
    Group("construct_blocks", objective.construct_blocks, 0.0, OBJECTIVE),
    Group("attention_masks", objective.masks, 0.0, ("special_ids.json", "attention_masks.npz")),
    Group("span_statistics", objective.statistics, 5.0, ("span_statistics.json",)),
    *(
        Group(f"generation/{name}", partial(generation.positions, name), 0.0, GENERATION)
        for name in (*generation.CHECKS, generation.OTHERS)
    ),
    Group("logits", logits.scores, 5e-5, MODELS),
    Group("packed_logits", logits.packed_scores, 5e-5, MODELS),
    Group("cached_logits", logits.cached_scores, 5e-5, MODELS),
    Group("hidden_states", logits.hidden_states, 5e-5, MODELS),
    Group("losses", logits.losses, 5e-5, MODELS),
    Group("gradient_norms", logits.gradient_norms, 1e-4, MODELS),
    Group("gradient_entries", logits.gradient_entries, 1e-4, MODELS),
    Group("rope", rope.near, 5e-6, ("rope.npz",)),
    Group("rope_far", rope.far, 5e-4, ("rope.npz",)),
    Group("deepnorm_alpha", deepnorm.alphas, 1e-6, ("deepnorm_and_init.json",)),
    Group("init_laws", deepnorm.initial_values, 5.0, ("deepnorm_and_init.json",)),
    Group("lr_schedule", schedule.rates, 1e-9, ("lr_schedule.json",)),
)  # fmt: skip
"""In the order in which they are printed, each with its tolerance: integers exactly; statistics and
first values in standard errors; float32 as the vectors' README suggests, relative where a number
has a size of its own."""
