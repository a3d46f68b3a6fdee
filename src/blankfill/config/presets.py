"""Complete runs by name: each preset is a function that returns a validated `RunConfig`.

These are our sizes, in the article's architecture: DeepNorm, two-dimensional RoPE, GeGLU, one tied
output layer. `published` has the models of Du et al. 2022 (GLM) and Zeng et al. 2022 (GLM-130B).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from blankfill.config.closest import did_you_mean
from blankfill.config.model import ModelConfig
from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.config.optimizer import OptimizerConfig
from blankfill.config.published import PUBLISHED, glm_base
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.config.validation import ValidationConfig
from blankfill.errors import ConfigError

__all__ = ["ALIASES", "PRESETS", "is_preset", "preset"]

SHORT_RUN: Final = OptimizerConfig(kind="muon", muon_momentum=0.9, embedding_lr_ratio=0.4)
"""What ends lowest after minutes or hours (`benchmarks/time_to_loss.py`)."""


def demo() -> RunConfig:
    """About 5 M parameters on the bundled bilingual world; minutes on a laptop.

    What learns most in a few hundred steps, found by comparing runs of the same minutes: more than
    twice the published share of tokens masked, Muon with a short memory and a high rate that falls
    to zero, hardly any warm-up, an embedding that begins from counts, and few wide layers of two
    heads.
    """
    return RunConfig(
        model=ModelConfig(
            vocab_size=2048, hidden_size=288, num_layers=4, num_heads=2, ffn_size=768,
            max_position=256,
        ),
        objective=ObjectiveConfig(short_rate=0.85, document_rate=0.15, mask_ratio=0.4),
        train=TrainConfig(
            steps=1000, row_length=256, batch_rows=8, micro_batch_rows=8,
            embedding_init="neighbours",
        ),
        optimizer=dataclasses.replace(SHORT_RUN, muon_momentum=0.65, embedding_lr_ratio=0.6),
        schedule=_to_zero(1e-2, warmup_steps=20),
        validation=ValidationConfig(blanks=32),
    )  # fmt: skip


def tiny() -> RunConfig:
    """About 5 M parameters, of which a 16,384-piece vocabulary's are 3 M; an hour on a laptop.

    Four layers rather than six, more than twice the published share of tokens masked, and QK-norm:
    0.27 nats a token below six layers at the published share after ten minutes of one core, in both
    languages (`benchmarks/presets.py`).
    """
    return RunConfig(
        model=ModelConfig(
            hidden_size=192, num_layers=4, num_heads=3, ffn_size=512, qk_norm=True,
        ),
        objective=ObjectiveConfig(short_rate=0.75, document_rate=0.25, mask_ratio=0.35),
        train=TrainConfig(steps=2000, row_length=256, embedding_init="neighbours"),
        optimizer=SHORT_RUN,
        schedule=_to_zero(4e-3, warmup_steps=50),
    )  # fmt: skip


def small() -> RunConfig:
    """About 25 M parameters; a night on a laptop."""
    return RunConfig(
        model=ModelConfig(hidden_size=384, num_layers=10, num_heads=6, ffn_size=1024),
        train=TrainConfig(steps=10000, micro_batch_rows=8, embedding_init="neighbours"),
        optimizer=SHORT_RUN,
        schedule=_to_zero(2e-3),
    )


def glm_tiny() -> RunConfig:
    """GLM's published architecture and recipe at about the size of `tiny`, which they never had."""
    return _as_published(tiny().changed({"model.num_layers": 6}))


def glm_small() -> RunConfig:
    """GLM's published architecture and recipe at the size of `small`, which they never had."""
    return _as_published(small())


def base() -> RunConfig:
    """110 M parameters, the size of GLM-Base, in the article's architecture."""
    return RunConfig(
        model=ModelConfig(
            vocab_size=32768, hidden_size=768, num_layers=12, num_heads=12, ffn_size=2048,
            deepnorm="deepnet",
        ),
        train=TrainConfig(steps=150_000, batch_rows=1024),
        schedule=ScheduleConfig(peak_lr=4e-4, min_lr_ratio=0.05, warmup_steps=6000),
    )  # fmt: skip


def large() -> RunConfig:
    """337 M parameters, the size of GLM-Large."""
    return RunConfig(
        model=ModelConfig(
            vocab_size=32768, hidden_size=1024, num_layers=24, num_heads=16, ffn_size=2752,
            deepnorm="deepnet",
        ),
        train=TrainConfig(steps=200_000, batch_rows=1024),
        schedule=ScheduleConfig(peak_lr=2e-4, min_lr_ratio=0.05, warmup_steps=8000),
    )  # fmt: skip


def xl() -> RunConfig:
    """2 B parameters, the size of GLM-2B."""
    return RunConfig(
        model=ModelConfig(
            vocab_size=50304, hidden_size=2048, num_layers=36, num_heads=32, ffn_size=5504,
            deepnorm="deepnet",
        ),
        train=TrainConfig(steps=250_000, row_length=1024, batch_rows=1024, micro_batch_rows=8),
        schedule=ScheduleConfig(peak_lr=1.5e-4, warmup_steps=10_000),
    )  # fmt: skip


PRESETS: Final[dict[str, Callable[[], RunConfig]]] = {
    "demo": demo,
    "tiny": tiny,
    "small": small,
    "glm-tiny": glm_tiny,
    "glm-small": glm_small,
    "base": base,
    "large": large,
    "xl": xl,
    **PUBLISHED,
}
"""Every preset by the name that the command line takes."""

ALIASES: Final = {"10b": "glm-10b", "130b": "glm-130b"}
"""Short names of published models."""


def is_preset(name: str) -> bool:
    """Whether there is a preset of that name, or short name."""
    return ALIASES.get(name, name) in PRESETS


def preset(name: str) -> RunConfig:
    """Return the preset of that name, or short name.

    Raises:
        ConfigError: there is no such preset.
    """
    if not is_preset(name):
        meant = did_you_mean(name, PRESETS)
        raise ConfigError(f"there is no preset {name!r}; {meant}there are: {', '.join(PRESETS)}")
    return PRESETS[ALIASES.get(name, name)]()


def _to_zero(peak_lr: float, warmup_steps: int = 100) -> ScheduleConfig:
    """In a line to 0, which ends lowest after minutes or hours (`benchmarks/time_to_loss.py`)."""
    return ScheduleConfig(
        kind="linear", peak_lr=peak_lr, min_lr_ratio=0.0, warmup_steps=warmup_steps
    )


def _as_published(ours: RunConfig) -> RunConfig:
    """Pre-LN, learned positions, GeLU, dropout; spans and documents; AdamW and a cosine."""
    published = glm_base()
    shape, train = ours.model, ours.train
    return RunConfig(
        model=dataclasses.replace(
            published.model, vocab_size=shape.vocab_size, hidden_size=shape.hidden_size,
            num_layers=shape.num_layers, num_heads=shape.num_heads, max_position=train.row_length,
            ffn_size=4 * shape.hidden_size,
        ),
        objective=MIXTURES["glm-doc"],
        train=dataclasses.replace(
            published.train, steps=train.steps, row_length=train.row_length,
            batch_rows=train.batch_rows, micro_batch_rows=train.micro_batch_rows,
        ),
        optimizer=published.optimizer,
        schedule=dataclasses.replace(
            published.schedule, decay_steps=train.steps, warmup_steps=train.steps // 25
        ),
    )  # fmt: skip
