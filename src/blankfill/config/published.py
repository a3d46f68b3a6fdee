"""The published models by name: their shapes exactly, their recipes as far as a run can say them.

Sources: GLM's released `config/ds_block_*.sh` with their JSON files (of 2B, which was taken out
again, the repository's history) and `config_tasks/model_*.sh`; GLM-130B's paper, table 11, and
`configs/glm-130b.sh`; ChatGLM-6B's `config.json`.

Common to all recipes, and not said here: they ran in float16 with a dynamic loss scale, where ours
chooses its precision; and they drew Adam's batches over as many GPUs as they had. Rows per GPU are
published. The number of GPUs is known for Base and Large (64, Du et al. 2022) and for GLM-130B; for
the others a batch is what the same rows make on a number of GPUs that each docstring names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from blankfill.config.model import ModelConfig
from blankfill.config.objective import MIXTURES
from blankfill.config.optimizer import OptimizerConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig

__all__ = ["PUBLISHED", "glm_base"]

ADAM: Final = OptimizerConfig(beta2=0.98, eps=1e-6, weight_decay=0.1)
"""Adam of the models up to 515M, and of GLM-Large-Chinese."""
LARGE: Final = OptimizerConfig(beta2=0.95, eps=1e-8, weight_decay=0.1)
"""Adam from 2B on."""


def glm_base() -> RunConfig:
    """GLM-Base, 109 M: 1024 rows of 512, 16 on each of 64 GPUs."""
    return RunConfig(
        model=_glm(30592, 12, 768),
        objective=MIXTURES["glm-base"],
        train=TrainConfig(steps=150_000, batch_rows=1024),
        optimizer=ADAM,
        schedule=_cosine(4e-4, decay_steps=120_000, warmup_steps=6000),
    )


def glm_large() -> RunConfig:
    """GLM-Large, 335 M; GLM-Doc and GLM-Sent are of the same shape."""
    return RunConfig(
        model=_glm(30592, 24, 1024),
        objective=MIXTURES["glm-base"],
        train=TrainConfig(steps=200_000, batch_rows=1024),
        optimizer=ADAM,
        schedule=_cosine(2e-4, decay_steps=160_000, warmup_steps=8000),
    )


def glm_roberta() -> RunConfig:
    """GLM-RoBERTa, 355 M, on RoBERTa's vocabulary: half of the 500,000 steps that were planned.

    16 rows, accumulated 8 times, on 64 GPUs.
    """
    return RunConfig(
        model=_glm(50304, 24, 1024),
        objective=MIXTURES["glm-base"],
        train=TrainConfig(steps=250_000, batch_rows=8192),
        optimizer=dataclasses.replace(ADAM, weight_decay=0.01),
        schedule=ScheduleConfig(
            kind="glm_linear", peak_lr=4e-4, decay_steps=500_000, warmup_steps=30_000,
            min_lr_ratio=0.025,
        ),
    )  # fmt: skip


def glm_large_zh() -> RunConfig:
    """GLM-Large-Chinese, 356 M: 32 rows on each GPU; of 64 GPUs here."""
    return RunConfig(
        model=_glm(50048, 24, 1024, max_position=1024),
        objective=MIXTURES["glm-large-zh"],
        train=TrainConfig(steps=250_000, batch_rows=2048, micro_batch_rows=32),
        optimizer=dataclasses.replace(ADAM, weight_decay=0.01),
        schedule=_cosine(4e-4, decay_steps=200_000, warmup_steps=8000, min_lr_ratio=0.1),
    )  # fmt: skip


def glm_410m() -> RunConfig:
    """GLM-410M; its recipe was not released, so this is GLM-Large's on spans and documents."""
    return dataclasses.replace(
        glm_large(), model=_glm(30592, 30, 1024), objective=MIXTURES["glm-doc"]
    )


def glm_515m() -> RunConfig:
    """GLM-515M; its recipe was not released, so this is GLM-Large's on spans and documents."""
    return dataclasses.replace(
        glm_large(), model=_glm(30592, 30, 1152, num_heads=18), objective=MIXTURES["glm-doc"]
    )


def glm_2b() -> RunConfig:
    """GLM-2B, 1.9 B: 32 rows on each GPU; of 64 GPUs here."""
    return RunConfig(
        model=_glm(50304, 36, 2048, max_position=1024),
        objective=MIXTURES["glm-2b"],
        train=TrainConfig(steps=250_000, batch_rows=2048, micro_batch_rows=32),
        optimizer=LARGE,
        schedule=_cosine(1e-4, decay_steps=175_000, warmup_steps=7000, min_lr_ratio=0.1),
    )  # fmt: skip


def glm_10b() -> RunConfig:
    """GLM-10B, 9.9 B, its first stage at 512: 21 rows on each GPU; of 192 GPUs here.

    Its second stage, at 1024, starts from the first one's weights with a learning rate of 3e-5,
    which falls in a line to a tenth over 50,000 steps, and the mixture glm-10b-1024.
    """
    return RunConfig(
        model=_glm(50304, 48, 4096, max_position=1024),
        objective=MIXTURES["glm-10b-512"],
        train=TrainConfig(steps=250_000, batch_rows=4032, micro_batch_rows=21),
        optimizer=LARGE,
        schedule=_cosine(1e-4, decay_steps=175_000, warmup_steps=7000, min_lr_ratio=0.1),
    )  # fmt: skip


def glm_10b_zh() -> RunConfig:
    """GLM-10B-Chinese, 9.9 B: 21 rows on each GPU; of 192 GPUs here."""
    return RunConfig(
        model=_glm(50048, 48, 4096, max_position=1024),
        objective=MIXTURES["glm-10b-512"],
        train=TrainConfig(steps=150_000, batch_rows=4032, micro_batch_rows=21),
        optimizer=LARGE,
        schedule=_cosine(1e-4, decay_steps=120_000, warmup_steps=4800, min_lr_ratio=0.1),
    )  # fmt: skip


def glm_130b() -> RunConfig:
    """GLM-130B, 128.7 B: DeepNorm, GeGLU, one-dimensional RoPE, embedding-gradient shrink.

    Published in samples, here in steps of the full batch: warm-up over 1,098,632 rows, decay until
    197,753,905, the end at 195.6 million. Not said: the batch's growth from 192 rows over the first
    5,493,164; the 5 % of instruction rows, which are a store of pairs among a run's data; what was
    changed by hand on the way (the rate halved at step 26,000, its floor lowered at 42,700, the
    shrink raised to 1 and taken back, its reach into the head from May 29th on, batches left out
    after spikes).
    """
    return RunConfig(
        model=ModelConfig(
            vocab_size=150528, hidden_size=12288, num_layers=70, num_heads=96, ffn_size=32768,
            deepnorm="su", positions="rope_1d", dropout=0.1, embedding_gradient_shrink=0.1,
        ),
        objective=MIXTURES["glm-130b"],
        train=TrainConfig(steps=46_307, row_length=2048, batch_rows=4224, micro_batch_rows=1),
        optimizer=LARGE,
        schedule=_cosine(8e-5, decay_steps=46_817, warmup_steps=260, min_lr_ratio=0.1),
    )  # fmt: skip


def chatglm_6b() -> RunConfig:
    """ChatGLM-6B with the vocabulary of its second release, 6.7 B; its recipe was not published.

    This is GLM-130B's on two-dimensional positions. Angles are float32, as new training should
    have them; the released weights expect model.rope_angles=float16.
    """
    published = glm_130b()
    return dataclasses.replace(
        published,
        model=_chatglm(130528),
        objective=dataclasses.replace(published.objective, positions="corrupted"),
        train=dataclasses.replace(published.train, micro_batch_rows=16),
    )


def chatglm_6b_v0() -> RunConfig:
    """ChatGLM-6B with the vocabulary of its first release, image tokens included, 6.9 B."""
    return dataclasses.replace(chatglm_6b(), model=_chatglm(150528))


PUBLISHED: Final[dict[str, Callable[[], RunConfig]]] = {
    "glm-base": glm_base,
    "glm-large": glm_large,
    "glm-roberta": glm_roberta,
    "glm-large-zh": glm_large_zh,
    "glm-410m": glm_410m,
    "glm-515m": glm_515m,
    "glm-2b": glm_2b,
    "glm-10b": glm_10b,
    "glm-10b-zh": glm_10b_zh,
    "glm-130b": glm_130b,
    "chatglm-6b": chatglm_6b,
    "chatglm-6b-v0": chatglm_6b_v0,
}
"""Every published model by the name that the command line takes."""


def _glm(
    vocab_size: int,
    num_layers: int,
    hidden_size: int,
    *,
    num_heads: int | None = None,
    max_position: int = 512,
) -> ModelConfig:
    """GLM up to 10B: Pre-LN, learned 2D positions, tanh GeLU of four times the width."""
    return ModelConfig(
        vocab_size=vocab_size, hidden_size=hidden_size, num_layers=num_layers,
        num_heads=num_heads or hidden_size // 64, ffn_size=4 * hidden_size, block="pre_ln",
        activation="gelu_tanh", positions="learned_2d", max_position=max_position, dropout=0.1,
    )  # fmt: skip


def _chatglm(vocab_size: int) -> ModelConfig:
    """ChatGLM-6B: DeepNorm, two-dimensional RoPE, tanh GeLU, a head of its own."""
    return ModelConfig(
        vocab_size=vocab_size, hidden_size=4096, num_layers=28, num_heads=32, ffn_size=16384,
        deepnorm="su", activation="gelu_tanh", tie_head=False,
    )  # fmt: skip


def _cosine(
    peak_lr: float, *, decay_steps: int, warmup_steps: int, min_lr_ratio: float = 0.05
) -> ScheduleConfig:
    """GLM's cosine, to 5 % where nothing else is said."""
    return ScheduleConfig(
        kind="glm_cosine", peak_lr=peak_lr, decay_steps=decay_steps, warmup_steps=warmup_steps,
        min_lr_ratio=min_lr_ratio,
    )  # fmt: skip
