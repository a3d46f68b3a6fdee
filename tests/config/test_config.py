import dataclasses
import json

import pytest

from blankfill.config.model import ModelConfig
from blankfill.config.presets import PRESETS, preset
from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.config.train import TrainConfig
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
    # tyro shows the string under each field as the option's help.
    import inspect

    for cls in (ModelConfig, TrainConfig):
        source = inspect.getsource(cls)
        for field in dataclasses.fields(cls):
            after = source.split(f"    {field.name}: ", 1)[1].split("\n", 1)[1]
            assert after.lstrip(' )"\n').strip(), field.name
            assert after.strip().startswith('"""'), field.name
