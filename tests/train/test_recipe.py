"""A recipe whose numbers stand at the ends of their ranges trains, or says why it cannot."""

import logging
import typing

import pytest
import torch

from blankfill.config.ranges import numbers_of
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError, TrainingError
from blankfill.optim import lr_at
from blankfill.runtime import available_cores, set_threads
from train.conftest import CFG

RATES = {
    f"{section}.{name}": number.range
    for section, config in typing.get_type_hints(RunConfig).items()
    if section in ("train", "optimizer", "schedule", "guard")
    for name, number in numbers_of(config).items()
    if number.kind is float
}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("name", [*RATES, "all"])
def test_a_recipe_at_the_ends_of_its_ranges_trains_or_says_why_not(
    make_trainer, tmp_path, name, end, optimizer
):
    names = RATES if name == "all" else [name]
    values = {each: getattr(RATES[each], end) for each in names}
    if "optimizer.weight_decay" not in values:
        values["optimizer.weight_decay"] = 0.0
    elif end == "high":  # its product with the learning rates must stay below 1
        values |= {"schedule.peak_lr": 9e-3, "optimizer.embedding_lr_ratio": 1.0}
    cfg = CFG.changed({"train.steps": 3, "optimizer.kind": optimizer} | values)
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
        ({"optimizer.max_grad_norm": -1.0}, "max_grad_norm=-1.0"),
        ({"optimizer.weight_decay": 50.0, "schedule.peak_lr": 0.02},
         "optimizer.weight_decay=50 takes 1 of each weight"),
        ({"optimizer.weight_decay": 0.5, "schedule.peak_lr": 1.0,
          "optimizer.embedding_lr_ratio": 2.0}, "embedding_lr_ratio=2"),
        ({"schedule.kind": "glm_linear", "train.steps": 500, "schedule.decay_steps": 110,
          "schedule.warmup_steps": 10}, "falls below 0"),
        ({"checkpoint.keep_best": True, "validation.every": 0}, "keep_best=True needs validations"),
        ({"schedule.height": 1.0}, "no field 'schedule.height'"),
        ({"recipe.steps": 1}, "no field 'recipe.steps'"),
        ({"steps": 1}, "no field 'steps'"),
    ],
)  # fmt: skip
def test_a_recipe_that_would_climb_or_is_none_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig().changed(wrong)


def test_the_released_line_may_fall_to_nothing_but_not_below():
    cfg = RunConfig().changed({
        "train.steps": 136, "schedule.kind": "glm_linear", "schedule.decay_steps": 110,
        "schedule.warmup_steps": 10, "schedule.min_lr_ratio": 0.2,
    })  # fmt: skip
    # 125 steps after the warm-up it is 0.
    assert lr_at(135, cfg.schedule, 136) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ConfigError, match="falls below 0"):
        cfg.changed({"train.steps": 137})
