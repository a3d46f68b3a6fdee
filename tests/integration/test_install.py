"""Setting up says when gigabytes are about to come, and nothing otherwise."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def install(folder, lines, code=0):
    """Run scripts/install with an interpreter that prints what pip would."""
    python = folder / "python"
    shown = "\n".join(lines)
    python.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/asked\ncat <<END\n{shown}\nEND\nexit {code}\n'
    )
    python.chmod(0o755)
    return subprocess.run(
        [ROOT / "scripts/install", python, "-c", "constraints.txt", "torch"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("package", ["nvidia-cublas==13.1.1.3", "cuda-toolkit==13.0.3.0"])
def test_cuda_packages_are_announced_once_with_the_way_around(tmp_path, package):
    lines = ["Collecting torch", f"Collecting {package} (from torch)"] + [
        "Collecting nvidia-nccl"
    ] * 9
    done = install(tmp_path, lines)
    assert done.returncode == 0
    assert done.stdout.count("several gigabytes") == 1
    assert "TORCH_INDEX=..., with the CPU index" in done.stdout
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("-m pip install ")
    assert asked.endswith("-c constraints.txt torch\n")


def test_without_them_nothing_is_said_and_a_failure_stays_one(tmp_path):
    lines = ["Collecting torch==2.13.0", "Collecting sympy (from torch)", "Installed torch"]
    done = install(tmp_path, lines, code=3)
    assert (done.returncode, done.stdout) == (3, "")


def test_what_is_large_is_named_while_it_is_fetched(tmp_path):
    lines = [
        "Collecting torch==2.13.0",
        "  Downloading https://there/torch-2.13.0%2Bcpu-cp311.whl.metadata (29 kB)",
        "Downloading https://there/whl/torch-2.13.0%2Bcpu-cp311.whl (191.4 MB)",
        "Downloading nvidia_cublas-13.whl (1.2 GB)",
        "Downloading numpy-2.whl (18 MB)",
        "Downloading sympy-1.14.0-py3-none-any.whl (6.3 MB)",
    ]
    assert install(tmp_path, lines).stdout.splitlines() == [
        "   fetching torch-2.13.0%2Bcpu-cp311.whl, 191.4 MB",
        "   fetching nvidia_cublas-13.whl, 1.2 GB",
        "   fetching numpy-2.whl, 18 MB",
    ]


def test_make_takes_torch_alone_from_the_index_that_it_is_given():
    lines = subprocess.run(
        ["make", "-n", "-W", "constraints.txt", "check", "TORCH_INDEX=https://there"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (taken,) = re.findall(r"scripts/install.*\n?.*--index-url.*", lines)
    assert "--no-deps" in taken  # the index has no other package of constraints.txt
    assert '--index-url "https://there"' in taken
