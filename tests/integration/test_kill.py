"""Real runs, killed with SIGKILL and compared with a twin that was left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill-test"


@pytest.mark.slow
def test_ten_kills_lose_nothing(tmp_path):
    words = [sys.executable, str(SCRIPT), "--kills", "10", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good: 10 kills" in done.stdout


@pytest.mark.slow
def test_killed_and_stopped_processes_lose_nothing_on_changing_layouts(tmp_path):
    words = [sys.executable, str(SCRIPT), "--ranks", "3", "--kills", "4", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good: 4 processes were killed or stopped" in done.stdout
