"""`blankfill plan`: the answer, and every mistake in one sentence."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest

from blankfill import api
from blankfill.api import plan
from blankfill.cli.main import main
from blankfill.errors import ConfigError
from blankfill.objective.render import is_picture
from blankfill.plan import compute, memory, step

PUBLISHED = {
    "parallel.tensor": 4, "parallel.pipeline": 8, "parallel.shard": 24, "parallel.schedule": "1f1b",
    "train.recompute": "full", "train.micro_batch_rows": 1,
}  # fmt: skip
"""GLM-130B's own layout."""


def glm_130b(**options):
    return plan("glm-130b", **({"gpu": "A100-40", "nodes": 96} | options))


def test_the_published_layout_of_glm_130b_fits_and_takes_about_as_long():
    (one,) = glm_130b(changes=PUBLISHED).layouts
    assert one.spare_bytes > 0
    # Another program than theirs: fused kernels, gradients in float32.
    assert one.step_seconds == pytest.approx(88.5, rel=0.15)
    assert (one.replicate, one.micro_batches, one.blocks[0]) == (1, 176, 8)


def test_the_figures_of_a_layout_follow_from_each_other():
    result = plan("glm-10b", gpu="H100", nodes=4, tokens=100e9, price=2.5, budget=10_000)
    assert len(result.layouts) == 10
    for one in result.layouts:
        parts = (one.compute_seconds, one.communication_seconds, one.bubble_seconds)
        assert one.step_seconds == pytest.approx(sum(parts) + one.fixed_seconds)
        assert one.memory_bytes == pytest.approx(sum(one.memory_by_kind.values()))
        assert one.replicate * one.shard * one.tensor * one.pipeline == 32
        assert one.tokens_per_day * one.days == pytest.approx(100e9)
        assert one.cost == pytest.approx(2.5 * 32 * 24 * one.days)
        assert one.gpu_energy_mwh == pytest.approx(32 * 700 * 24 * one.days / 1e6)
        assert one.energy_mwh == pytest.approx(4 * 10_200 * 24 * one.days / 1e6)
        assert 0.1 < one.mfu < 0.6
    of_budget = 10_000 / result.layouts[0].cost * 100e9
    assert result.budget_tokens == pytest.approx(of_budget)


def test_without_tokens_the_presets_steps_are_planned():
    assert plan("glm-10b", gpu="H100", nodes=4).tokens == 250_000 * 4032 * 512


def test_a_batch_that_grows_takes_longer_for_the_same_tokens():
    grown = glm_130b(
        changes=PUBLISHED | {"train.ramp_from_rows": 192, "train.ramp_rows": 5_493_164}
    )
    whole = glm_130b(changes=PUBLISHED)
    assert grown.layouts[0].step_seconds == whole.layouts[0].step_seconds
    # 2.5 % of the rows, whose 8 to 176 micro-batches wait for the same bubble each.
    assert 1.0 < grown.layouts[0].days / whole.layouts[0].days < 1.02
    assert "grows from 192 to 4,224" in " ".join(grown.notes)


def test_rows_that_the_presets_micro_batch_does_not_divide_are_planned():
    changes = {"train.batch_rows": 2048, "train.ramp_from_rows": 64, "train.ramp_rows": 10_000}
    result = plan("glm-10b", gpu="H100", nodes=4, changes=changes)
    assert result.batch_tokens == 2048 * 512


def test_own_figures_take_the_place_of_the_table():
    table = plan("glm-10b", gpu="H100", nodes=4)
    double = plan("glm-10b", gpu="H100", nodes=4, tflops=2 * 989)
    assert double.layouts[0].step_seconds < table.layouts[0].step_seconds
    assert "your own: peak flops" in double.gpu_source
    figures = {
        "tflops": 989, "memory_gb": 80, "memory_gb_per_second": 3350, "link_gb_per_second": 450,
        "network_gigabits": 400, "watts": 700,
    }  # fmt: skip
    mine = plan("glm-10b", gpu="X1", nodes=4, **figures)
    assert mine.gpu == "X1"
    assert mine.layouts[0].step_seconds == table.layouts[0].step_seconds
    slow = plan("glm-10b", gpu="H100", nodes=4, network_gigabits=1)
    assert slow.layouts[0].step_seconds > table.layouts[0].step_seconds


def test_what_can_be_started_now_has_two_stages_in_a_rank_at_most():
    found = plan("glm-large", gpu="A100", nodes=2)
    assert found.today == found.layouts[0]
    deep = plan("glm-130b", gpu="A100-40", nodes=96, changes={"parallel.schedule": "interleaved"})
    assert deep.layouts[0].stages_per_rank > 2
    assert deep.today.stages_per_rank == 2
    assert deep.today.step_seconds >= deep.layouts[0].step_seconds


def test_float32_weights_take_more_memory_and_time_and_recomputing_less_memory():
    def best(**changes):
        fields = {"parallel.tensor": 1, "parallel.pipeline": 1, "train.micro_batch_rows": 4}
        return plan("glm-10b", gpu="H200", nodes=4, changes=fields | changes).layouts[0]

    narrow, wide = best(), best(**{"parallel.weights": "float32"})
    assert wide.step_seconds > narrow.step_seconds
    assert wide.memory_by_kind["weights"] > narrow.memory_by_kind["weights"]
    sizes = [
        best(**{"train.recompute": kind}).memory_by_kind["activations"]
        for kind in ("none", "selective", "full")
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_fields_of_the_preset_may_be_changed_and_wishes_are_kept():
    result = plan(
        "glm-10b", gpu="H100", nodes=8,
        changes={"parallel.tensor": 2, "parallel.schedule": "interleaved", "optimizer.kind": "muon",
                 "model.num_layers": 24, "train.micro_batch_rows": 2},
    )  # fmt: skip
    for one in result.layouts:
        assert (one.tensor, one.schedule, one.micro_batch_rows) == (2, "interleaved", 2)
        assert sum(one.blocks) == 24
    assert "Muon" in " ".join(result.notes)
    config = api.PlanConfig(
        **{part: getattr(api_preset("glm-10b"), part) for part in ("model", "train", "optimizer")},
        parallel=api_layout(tensor=2),
    )
    assert {one.tensor for one in plan("glm-10b", gpu="H100", nodes=8, config=config).layouts} == {
        2
    }


def api_preset(name):
    from blankfill.config.presets import preset

    return preset(name)


def api_layout(**axes):
    from blankfill.config.layout import LayoutConfig

    return LayoutConfig(**axes)


WRONG = {
    "--parallel.tensor 8 --model.num-heads 12": "parallel.tensor=8 must divide model.num_heads=12; "
    "take parallel.tensor=4",
    "--parallel.tensor 8 --model.vocab-size 150529": "must divide model.vocab_size=150,529",
    "--parallel.tensor 8 --model.ffn-size 32769": "must divide model.ffn_size=32,769",
    "--nodes 128 --parallel.pipeline 128": "parallel.pipeline=128 is more stages than "
    "model.num_layers=70",
    "--parallel.pipeline 64 --parallel.schedule zbv": "parallel.pipeline=64 of 2 stages each under "
    "zbv is more stages than model.num_layers=70; take parallel.pipeline=35",
    "--parallel.pipeline 1 --parallel.schedule interleaved": "parallel.schedule=interleaved needs "
    "a pipeline",
    "--parallel.pipeline 16 --parallel.tensor 8 --train.batch-rows 8": "parallel.pipeline=16 needs "
    "at least 16 micro-batches, and 8 rows",
    "--parallel.pipeline 8 --parallel.tensor 8 --parallel.schedule interleaved --nodes 8 "
    "--train.batch-rows 9": "in multiples of parallel.pipeline=8, and a step has 9",
    "--parallel.shard 3": "parallel.shard=3, which does not divide the 128 GPUs",
    "--parallel.shard 2 --parallel.replicate 2 --parallel.tensor 2 --parallel.pipeline 2": "is 16, "
    "which is not the 128 GPUs",
    "--train.batch-rows 1": "glm-130b has steps of 1 rows, too few for 128 GPUs",
    "--parallel.replicate 128 --train.batch-rows 64": "each need 128 rows, and a step has 64",
    "--gpu H100O": "did you mean H100?",
    "--gpu mine": "is not in the table of GPUs",
    "--gpu mine --tflops 100": "--memory-gb --memory-gb-per-second",
    "--price -1": "price=-1.0 must be a number from 0",
    "--price nan": "price",
    "--nodes 0": "nodes=0 must be",
    "--tokens 0": "tokens=0.0 must be",
    "--budget 5": "--budget 5 needs --price",
    "--price 0 --budget 5": "--budget 5 needs --price",
    "--parallel.schedule gpipe": "it is not one of: 1f1b, interleaved, zbv",
    "--train.recompute all": "none, selective, full",
    "--parallel.tensor 0": "parallel.tensor=0",
    "--memory-gb -3": "memory_gb=-3.0",
    "--nodes 1": "GB too much",
    "--picture plan.jpg": "must end in .png",
    "--model.hidden-size 100": "must divide model.hidden_size",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = words.split()
    if "--gpu" not in given:
        given += ["--gpu", "H100"]
    if "--nodes" not in given:
        given += ["--nodes", "16"]
    assert main(["plan", "glm-130b", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert WRONG[words] in err
    assert err.strip().count("\n") == 0
    assert not [*tmp_path.iterdir()]


def test_an_unknown_preset_or_field_is_named(capsys):
    assert main(["plan", "glm-131b", "--gpu", "H100", "--nodes", "1"]) == 2
    assert "glm-130b" in capsys.readouterr().err
    for field in ("parallel.data", "train.nothing"):
        with pytest.raises(ConfigError, match=field):
            plan("glm-10b", gpu="H100", nodes=1, changes={field: 1})
    with pytest.raises(ConfigError, match=r"parallel\.tensor"):
        plan("glm-10b", gpu="H100", nodes=1, changes={"parallel.tensor": "two"})


def test_of_a_schedule_that_no_pipeline_can_have_the_first_pipelines_reason_is_given():
    changes = {
        "parallel.schedule": "interleaved",
        "train.micro_batch_rows": 4,
        "parallel.tensor": 2,
    }
    with pytest.raises(ConfigError, match=r"parallel\.pipeline=2, and a step has 63"):
        plan("glm-10b", gpu="H100", nodes=8, changes=changes | {"model.num_layers": 24})


def test_what_a_plan_that_fits_nowhere_names_does_fit():
    with pytest.raises(ConfigError, match=r"--nodes (\d+)") as caught:
        plan("glm-130b", gpu="H100", nodes=1)
    nodes = int(str(caught.value).split("--nodes ")[1].split(",")[0].split()[0])
    assert plan("glm-130b", gpu="H100", nodes=nodes).layouts
    with pytest.raises(ConfigError, match="GB too much"):
        plan("glm-130b", gpu="H100", nodes=nodes // 2)
    with pytest.raises(ConfigError, match="--gpu H200"):
        plan("glm-10b", gpu="A100-80", nodes=1, gpus_per_node=1,
             changes={"model.num_layers": 24, "train.micro_batch_rows": 1})  # fmt: skip


def test_json_has_every_figure(capsys):
    assert main(["plan", "glm-10b", "--gpu", "H100", "--nodes", "2", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert [*got] == [field.name for field in dataclasses.fields(api.PlanResult)]
    assert len(got["layouts"]) == 10
    assert {*got["layouts"][0]["memory_by_kind"]} == {
        "weights", "gradients", "optimizer", "activations", "receive buffers",
        "unsharded gradients",
    }  # fmt: skip


def test_the_table_says_what_it_is_of(capsys):
    words = ["--gpu", "H100", "--nodes", "16", "--tokens", "400e9", "--price", "2"]
    assert main(["plan", "glm-130b", *words]) == 0
    out = capsys.readouterr().out
    for said in (
        "glm-130b, 128.70 B parameters, on 16 x 8 H100 (128), 400 B tokens", "unsharded gradients",
        "faster, and too large", "MWh", "can be started now", "not modelled:", "rules out fused",
        "data sheets of H100", "cost",
    ):  # fmt: skip
        assert said in out


@pytest.mark.parametrize(
    "words", ["", "--parallel.pipeline 4 --parallel.schedule 1f1b",
              "--parallel.pipeline 8 --parallel.schedule zbv"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture_is_drawn_whole(words, kind, tmp_path, capsys):
    path = tmp_path / f"plan.{kind}"
    given = ["plan", "glm-10b", "--gpu", "H100", "--nodes", "2", "--picture", str(path)]
    assert main([*given, *words.split()]) == 0
    assert is_picture(path)
    assert f"drawn: {path}" in capsys.readouterr().out
    path.write_text("a user's")
    assert main([*given, *words.split()]) == 2
    assert path.read_text() == "a user's"


def test_a_plan_takes_less_than_a_second_of_a_core():
    for cached in (step._passes, compute.block_time, compute.head_time, memory._distinct_ranks,
                   memory.activation_bytes):  # fmt: skip
        cached.cache_clear()
    begun = time.process_time()
    glm_130b()
    assert time.process_time() - begun < 1.0


def test_a_plan_never_loads_torch_nor_numpy():
    code = (
        "import sys\nfrom blankfill.cli.main import main\n"
        "assert main(['plan', 'glm-130b', '--gpu', 'H100', '--nodes', '16']) == 0\n"
        "sys.exit(10 * ('torch' in sys.modules) + 20 * ('matplotlib' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
