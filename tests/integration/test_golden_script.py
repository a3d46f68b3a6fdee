"""`scripts/golden` knows right folders, wrong numbers, wrong models and other formats."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_groups import GROUPS, generation, logits, rope
from safetensors.torch import load_file, save_file

from script_files import load_script

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
SCRIPT = load_script("golden")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GOLDEN, tmp_path / "golden"))


@pytest.fixture(autouse=True)
def fresh_models():
    """Models are kept between groups; a test may have changed one."""
    logits._load.cache_clear()
    yield
    logits._load.cache_clear()


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def largest(cases):
    return max(value for _, value in cases if not isinstance(value, str))


def tolerance(name):
    return next(group.tolerance for group in GROUPS if group.name == name)


def test_every_group_passes(capsys):
    assert SCRIPT.main([str(GOLDEN)]) == 0
    out = capsys.readouterr().out
    assert out.count("passed") == len(GROUPS) - 1  # no case is of an unknown group
    assert "absent" not in out


def test_it_is_a_command(tmp_path):
    shutil.copy(GOLDEN / "lr_schedule.json", tmp_path)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/golden"), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("passed") == 1


@pytest.mark.parametrize("field", ["tokens", "targets", "position_ids"])
def test_a_wrong_number_of_the_objective_fails(folder, capsys, field):
    path = folder / "objective_cases.jsonl"
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    values = cases[0]["output"][field]
    values = values[0] if field == "position_ids" else values
    values[-1] += 1
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    for name in ("logits", "span_statistics.json"):  # what is not there costs no time
        shutil.rmtree(folder / name) if name == "logits" else (folder / name).unlink()
    assert SCRIPT.main([str(folder)]) == 1
    assert f"FAILED: {cases[0]['id']}" in capsys.readouterr().out


def add(name, amount):
    def change(tensors):
        if name == "incremental_logits_row0":  # of which Part B alone is compared
            tensors[name][0, :, 0] += amount
        else:
            tensors[name].flatten()[0] += amount

    return change


@pytest.mark.parametrize(
    ("group", "run", "name"),
    [
        ("logits", logits.scores, "logits"),
        ("packed_logits", logits.packed_scores, "logits"),
        ("cached_logits", logits.cached_scores, "incremental_logits_row0"),
        ("hidden_states", logits.hidden_states, "hidden_after_layer_1"),
        ("losses", logits.losses, "loss"),
        ("gradient_norms", logits.gradient_norms,
         "grad_norm/transformer.layers.0.mlp.dense_h_to_4h.bias"),
        ("gradient_entries", logits.gradient_entries,
         "grad_head/transformer.layers.0.attention.query_key_value.weight"),
    ],
)  # fmt: skip
def test_a_wrong_number_of_a_model_fails(folder, group, run, name):
    for path in (folder / "logits").iterdir():
        if path.name != "glm_d_1d_positions":
            shutil.rmtree(path)
    assert largest(run(folder)) <= tolerance(group)
    edit(folder / "logits/glm_d_1d_positions/outputs.safetensors", add(name, 2e-3))
    logits._load.cache_clear()
    assert largest(run(folder)) > tolerance(group)


def swap_halves(monkeypatch):
    from blankfill.model.mlp import GatedMLP

    def forward(self, x):
        return self.down(self.gate(x) * self.activation(self.up(x)))

    monkeypatch.setattr(GatedMLP, "forward", forward)


def tanh_for_erf(monkeypatch):
    monkeypatch.setitem(
        sys.modules["blankfill.model.mlp"].ACTIVATIONS, "geglu",
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    )  # fmt: skip


def erf_for_tanh(monkeypatch):
    from blankfill.model.mlp import ACTIVATIONS

    monkeypatch.setitem(ACTIVATIONS, "gelu_tanh", torch.nn.functional.gelu)


def positions_off_by_one(monkeypatch):
    from blankfill.model.embedding import Embedding

    right = Embedding.forward
    monkeypatch.setattr(
        Embedding, "forward",
        lambda self, tokens, positions, *rest: right(
            self, tokens, (positions - 1).clamp(min=0), *rest
        ),
    )  # fmt: skip


def positions_swapped(monkeypatch):
    from blankfill.model.glm import GLM

    right = GLM.rotation
    monkeypatch.setattr(
        GLM, "rotation", lambda self, positions, dtype: right(self, positions.flip(1), dtype)
    )


def thirds_for_heads(monkeypatch):
    from blankfill.interop.keymap import Tensor

    read = Tensor.read
    monkeypatch.setattr(
        Tensor, "read",
        lambda entry, *given: read(dataclasses.replace(entry, layout="same"), *given),
    )  # fmt: skip


@pytest.mark.parametrize(
    "mistake",
    [swap_halves, tanh_for_erf, erf_for_tanh, positions_off_by_one, positions_swapped,
     thirds_for_heads],
)  # fmt: skip
def test_a_wrong_model_fails(monkeypatch, mistake):
    mistake(monkeypatch)
    assert largest(logits.scores(GOLDEN)) > 4 * tolerance("logits")


def test_generation_positions_that_are_off_by_one_fail(monkeypatch):
    right = generation.generation_positions
    monkeypatch.setattr(
        generation, "generation_positions",
        lambda prompt, blank, k, fills, scheme: right(prompt, blank, k + 1, fills, scheme=scheme),
    )  # fmt: skip
    assert largest(generation.positions("glm", GOLDEN)) == 1
    assert largest(generation.positions("chatglm", GOLDEN)) == 1


def test_angles_of_float32_are_not_those_of_the_released_float16(monkeypatch):
    right = rope.rotation_of
    monkeypatch.setattr(
        rope, "rotation_of",
        lambda *args, angles: right(*args, angles="float32"),
    )  # fmt: skip
    assert largest(rope.far(GOLDEN)) > tolerance("rope_far")


def test_what_a_folder_lacks_is_said_and_the_rest_runs(folder, capsys):
    shutil.rmtree(folder / "logits")
    for name in ("objective_cases.jsonl", "span_statistics.json", "special_ids.json"):
        (folder / name).unlink()
    assert SCRIPT.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "absent: no logits" in out
    assert "absent: no special_ids.json" in out
    assert out.count("passed") == 5


def test_a_model_of_an_unknown_family_is_counted_and_named(folder, capsys):
    shutil.rmtree(folder / "logits/glm_d_1d_positions")
    path = folder / "logits/sat_glm_b_sandwich/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"family": "mamba"}))
    assert largest(logits.scores(folder)) <= tolerance("logits")
    assert ("sat_glm_b_sandwich", "family mamba") in list(logits.scores(folder))


@pytest.mark.parametrize("content", ["", "text", "rope"])
def test_another_folder_is_not_of_the_format(tmp_path, capsys, content):
    if content == "text":
        (tmp_path / "notes.txt").write_text("no vectors")
    if content == "rope":
        (tmp_path / "rope.npz").write_text("not an archive")
    assert SCRIPT.main([str(tmp_path)]) == 2
    assert "not of the format" in capsys.readouterr().err


def test_a_model_without_its_weights_is_not_of_the_format(tmp_path, capsys):
    shutil.copytree(GOLDEN / "logits/sat_glm_b_sandwich", tmp_path / "logits/some")
    (tmp_path / "logits/some/model.safetensors").write_bytes(b"short")
    assert SCRIPT.main([str(tmp_path)]) == 2
    assert "not of the format" in capsys.readouterr().err
