"""A recipe whose numbers stand at the ends of their ranges trains, or says why it cannot."""

import dataclasses
import logging

import pytest
import torch

from blankfill.config.ranges import numbers_of
from blankfill.config.train import TrainConfig
from blankfill.errors import ConfigError, TrainingError
from blankfill.optim import lr_at
from blankfill.runtime import available_cores, set_threads
from train.conftest import CFG

RATES = [
    name
    for name, number in numbers_of(TrainConfig).items()
    if number.kind is float and name != "forgetting_limit"
]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("name", [*RATES, "all"])
def test_a_recipe_at_the_ends_of_its_ranges_trains_or_says_why_not(
    make_trainer, tmp_path, name, end, optimizer
):
    names = RATES if name == "all" else [name]
    values = {each: getattr(numbers_of(TrainConfig)[each].range, end) for each in names}
    if "weight_decay" not in values:
        values["weight_decay"] = 0.0
    elif end == "high":  # its product with the learning rates must stay below 1
        values |= {"peak_lr": 9e-3, "embedding_lr_ratio": 1.0}
    cfg = dataclasses.replace(CFG, train=dataclasses.replace(
        CFG.train, steps=3, optimizer=optimizer, **values,
    ))  # fmt: skip
    trainer = make_trainer(tmp_path / "run", cfg)
    refused = ""
    try:
        assert trainer.fit()
    except TrainingError as error:
        refused = str(error)
    finite = all(
        bool(value.isfinite().all()) for value in trainer.engine.model.state_dict().values()
    )
    assert "not finite" in refused if refused else finite


@pytest.mark.parametrize("wanted", [0, 1, 1024])
def test_there_are_never_more_threads_than_cores(wanted, caplog):
    caplog.set_level(logging.INFO)
    assert set_threads(wanted) == torch.get_num_threads() == min(wanted or 10**9, available_cores())
    assert ("train.threads=1024 is more than" in caplog.text) == (wanted == 1024)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_grad_norm": -1.0}, "max_grad_norm=-1.0"),
        ({"weight_decay": 50.0, "peak_lr": 0.02}, "weight_decay=50 takes 1 of each weight"),
        ({"weight_decay": 0.5, "peak_lr": 1.0, "embedding_lr_ratio": 2.0}, "embedding_lr_ratio=2"),
        ({"schedule": "glm_linear", "steps": 500, "decay_steps": 110, "warmup_steps": 10},
         "falls below 0"),
    ],
)  # fmt: skip
def test_a_recipe_that_would_climb_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**wrong)


def test_the_released_line_may_fall_to_nothing_but_not_below():
    recipe = {"schedule": "glm_linear", "decay_steps": 110, "warmup_steps": 10, "min_lr_ratio": 0.2}
    cfg = TrainConfig(steps=136, **recipe)  # 125 steps behind the warm-up it is 0
    assert lr_at(135, cfg) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ConfigError, match="falls below 0"):
        TrainConfig(steps=137, **recipe)
