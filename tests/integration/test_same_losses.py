"""The script that holds a refactor to bit-equal losses: it must see a difference."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from script_files import SCRIPTS, load_script


@pytest.fixture(scope="module")
def script():
    return load_script("same-losses")


def write_run(folder, losses, tensors):
    checkpoint = folder / "checkpoints" / "step-00000020"
    checkpoint.mkdir(parents=True)
    rows = [{"step": i, "loss_nats": x, "grad_norm": 1.0} for i, x in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_file(tensors, checkpoint / "model.safetensors")
    return folder


def test_the_last_bit_of_a_loss_and_of_a_weight_is_seen(script, tmp_path):
    weights = torch.arange(1.0, 7.0)
    near = torch.nextafter(weights, weights + 1)
    a = write_run(tmp_path / "a", [2.0, 1.5], {"w": weights})
    b = write_run(tmp_path / "b", [2.0, 1.5 + 2**-52], {"w": near})
    assert script.losses_differ(a, a) == script.weights_differ(a, a) == 0
    assert script.losses_differ(a, b) > 0
    assert script.weights_differ(a, b) > 0


def test_runs_of_different_steps_are_not_the_same(script, tmp_path):
    a = write_run(tmp_path / "a", [2.0, 1.5], {"w": torch.ones(2)})
    b = write_run(tmp_path / "b", [2.0], {"w": torch.ones(2)})
    assert script.losses_differ(a, b) == float("inf")


def test_parts_of_a_fused_matrix_are_compared_as_the_whole(script, tmp_path):
    whole = torch.randn(6, 4)
    q, k, v = (part.clone() for part in whole.chunk(3))
    a = write_run(tmp_path / "a", [1.0], {"blocks.0.attention.qkv.weight": whole})
    names = {f"blocks.0.attention.{n}.weight": t for n, t in (("q", q), ("k", k), ("v", v))}
    b = write_run(tmp_path / "b", [1.0], names)
    assert script.weights_differ(a, b) == 0


@pytest.mark.slow
def test_a_commit_trains_as_itself():
    words = [sys.executable, str(SCRIPTS / "same-losses"), "HEAD", "--cases", "demo"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo-resumed" in done.stdout


def test_an_unknown_commit_is_one_sentence():
    words = [sys.executable, str(SCRIPTS / "same-losses"), "no-such-commit"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "git knows no commit no-such-commit" in done.stderr
