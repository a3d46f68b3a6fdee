"""What may change on resume is said where a field is, and that is what happens."""

import copy

import pytest

from blankfill.config.on_resume import OnResume, on_resume
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError
from blankfill.prepare.resume import changes_on_resume
from conftest import run_record

MAY = on_resume(RunConfig)
OF_TRAIN = (
    "train.device", "train.threads", "train.log_every", "train.wandb", "train.recompute",
)  # fmt: skip


def described(**changed):
    """A run's record with other values of some fields, whatever their types."""
    config = copy.deepcopy(RunConfig())
    for dotted, value in changed.items():
        section, name = dotted.split(".")
        object.__setattr__(getattr(config, section), name, value)
    return run_record(config)


def test_every_field_says_whether_it_may_change():
    fields = [*RunConfig().values()]
    assert list(MAY) == fields


def test_what_may_change_is_what_the_page_says():
    free = {name for name, may in MAY.items() if may is OnResume.FREE}
    of_machine = {n for n in MAY if n.startswith(("validation.", "checkpoint.", "parallel."))}
    assert free == {*OF_TRAIN} | of_machine - {"parallel.weights"}
    never = {name for name, may in MAY.items() if may is OnResume.NEVER}
    of_training = {name for name in never if not name.startswith(("model.", "objective."))}
    assert of_training == {"train.row_length", "train.seed"}
    assert {name for name in MAY if name.startswith("objective.")} < never
    assert {name for name in MAY if name.startswith("model.")} - never == {
        "model.dropout", "model.attention_dropout", "model.embedding_dropout",
        "model.embedding_gradient_shrink", "model.pb_relax",
    }  # fmt: skip


@pytest.mark.parametrize("name", MAY)
def test_a_field_changes_as_it_says(name):
    old, new = described(), described(**{name: "another value"})
    if MAY[name] is OnResume.FREE:
        (change,) = changes_on_resume(old, new)
        assert (change.name, change.after) == (name, "another value")
        return
    with pytest.raises(ConfigError, match=name) as refused:
        changes_on_resume(old, new)
    named = f"--allow-change {name}" in str(refused.value)
    assert named == (MAY[name] is OnResume.BY_NAME)
    if named:
        (change,) = changes_on_resume(old, new, allow=[name])
        assert change.name == name
    else:
        assert f"{name} cannot change in a run" in str(refused.value)
        with pytest.raises(ConfigError, match=f"--allow-change {name}"):
            changes_on_resume(old, new, allow=[name])


def test_a_field_may_be_allowed_by_its_short_name_and_a_misspelt_one_is_guessed():
    old, new = described(), described(**{"schedule.peak_lr": 0.5})
    (change,) = changes_on_resume(old, new, allow=["lr"])
    assert change.name == "schedule.peak_lr"
    with pytest.raises(ConfigError, match=r"did you mean schedule\.peak_lr\? these may"):
        changes_on_resume(old, new, allow=["schedule.peek_lr"])
