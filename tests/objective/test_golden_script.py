"""`scripts/golden` knows a right folder, a wrong number and a folder of another format."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(folder):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/golden"), str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(ROOT / "tests/golden", tmp_path / "golden"))


def test_every_group_passes(folder):
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == 4


@pytest.mark.parametrize("field", ["tokens", "targets", "position_ids"])
def test_a_wrong_number_fails(folder, field):
    path = folder / "objective_cases.jsonl"
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    values = cases[0]["output"][field]
    values = values[0] if field == "position_ids" else values
    values[-1] += 1
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    done = run(folder)
    assert done.returncode == 1
    assert f"FAILED: {cases[0]['id']}" in done.stdout


def test_another_folder_is_not_of_the_format(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2
    assert "not of the format" in done.stderr
    assert "Traceback" not in done.stderr
