import dataclasses
import json
import math
import typing

import pytest

from blankfill.config.model import ModelConfig
from blankfill.config.presets import PRESETS, preset
from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.config.train import TrainConfig
from blankfill.config.validation import ValidationConfig
from blankfill.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    cfg = preset(name)
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(cfg)))) == cfg


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'tinny'.*demo, tiny"):
        preset("tinny")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"hidden": 3}}, "model.hidden"),
        ({"train": {"steps": "many"}}, "train.steps"),
        ({"train": {"steps": True}}, "train.steps"),
        ({"model": {"block": "sideways"}}, "model.block"),
    ],
)
def test_a_bad_field_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(RunConfig, values)


@pytest.mark.parametrize(
    "change", [{"num_heads": 5}, {"num_layers": 0}, {"dropout": 1.0},
               {"hidden_size": 18, "num_heads": 9}]
)  # fmt: skip
def test_impossible_models_are_refused(change):
    with pytest.raises(ConfigError, match=r"model\."):
        ModelConfig(**change)


def test_micro_batches_must_divide_the_batch():
    with pytest.raises(ConfigError, match="micro_batch_rows=5"):
        TrainConfig(batch_rows=16, micro_batch_rows=5)


def test_a_row_must_fit_the_positions():
    with pytest.raises(ConfigError, match="row_length=4096"):
        RunConfig(train=TrainConfig(row_length=4096))


def test_every_field_has_a_doc_with_content():
    # The string under each field is the option's help.
    import inspect

    for cls in (RunConfig, *typing.get_type_hints(RunConfig).values()):
        source = inspect.getsource(cls)
        for field in dataclasses.fields(cls):
            after = source.split(f"    {field.name}: ", 1)[1].split("\n", 1)[1]
            assert after.lstrip(' )"\n').strip(), field.name
            assert after.strip().startswith('"""'), field.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "pre_ln", "residual_scale": 2.0}, "residual_scale=2.0 needs block=deepnorm"),
        ({"residual_scale": -1.0}, "residual_scale=-1.0"),
        ({"pb_relax": 0.5}, "pb_relax=0.5"),
        ({"positions": "none", "rope_angles": "float16"}, "rope_angles=float16 needs"),
        ({"tie_head": False, "shrink_head": True}, "shrink_head=True needs tie_head"),
        ({"attention_dropout": 1.0}, "attention_dropout=1.0"),
        ({"embedding_dropout": -0.1}, "embedding_dropout=-0.1"),
        ({"norm_eps": 0.0}, "norm_eps=0.0"),
    ],
)
def test_options_that_would_be_ignored_or_break_the_model_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**change)


def test_dropout_rates_that_are_not_given_are_the_common_one():
    cfg = ModelConfig(dropout=0.2, attention_dropout=0.0)
    assert (cfg.attention_dropout_rate, cfg.embedding_dropout_rate) == (0.0, 0.2)


def test_an_optional_number_is_checked_when_read():
    assert from_dict(ModelConfig, {"attention_dropout": None}).attention_dropout is None
    assert from_dict(ModelConfig, {"attention_dropout": 0}).attention_dropout == 0.0
    with pytest.raises(ConfigError, match="attention_dropout='much'"):
        from_dict(ModelConfig, {"attention_dropout": "much"})


@pytest.mark.parametrize(
    ("steps", "every"),
    [(1, 100), (99, 100), (100, 100), (1000, 100), (1001, 101), (2000, 200), (10**12, 10**11)],
)
def test_a_run_is_validated_ten_times_and_at_most_every_hundred_steps(steps, every):
    cfg = RunConfig().changed({"train.steps": steps})
    assert cfg.validation.every == "auto"
    assert cfg.validate_every == every
    for given in (0, 7):
        assert cfg.changed({"validation.every": given}).validate_every == given
    assert from_dict(RunConfig, to_dict(cfg)) == cfg


@pytest.mark.parametrize("value", ["never", "Auto", "", -1, 1.5, True, None, math.nan])
def test_the_steps_between_validations_are_auto_or_a_number(value):
    with pytest.raises(ConfigError, match="every"):
        RunConfig().changed({"validation.every": value})
    with pytest.raises(ConfigError, match="every"):
        ValidationConfig(every=value)
    values = to_dict(RunConfig())
    values["validation"]["every"] = value
    with pytest.raises(ConfigError, match="every"):
        from_dict(RunConfig, values)
