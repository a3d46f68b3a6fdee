"""The house's floors: a package imports only from lower ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "blankfill"

FLOORS = {
    "errors": 0, "results": 0, "config": 0,
    "atomic": 1, "disk": 1, "processes": 1, "rng": 1, "runtime": 1, "progress": 1,
    "objective": 1, "text": 1.5,
    "kernels": 1.5, "data": 2, "model": 2,
    "optim": 3, "runs": 3, "metrics": 3,
    "engine": 3.5, "guard": 3.7, "parallel": 3.7,
    "train": 4, "generate": 4,
    "interop": 4.3,
    "prepare": 4.5,
    "evaluate": 5, "plan": 5, "report": 5, "demo": 5,
    "probe": 5.5,
    "api": 6,
    "cli": 7,
}  # fmt: skip
# Every neighbour may see the addressed randomness, the progress bar and the ways to write a file;
# errors is seen by config.
NEIGHBOURS = {"atomic", "disk", "rng", "progress", "errors"}


def room(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            if path.parent.name == "hf_files" and node.level == 1:
                continue  # these are copied, and find each other where they are copied to
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "blankfill":
                names = [f"blankfill.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "blankfill" and len(parts) > 1 and parts[1] != "__version__":
                rooms.add(parts[1])
    return rooms


def upward_imports(path: Path) -> list[str]:
    own = room(path)
    return [
        f"{path.relative_to(SOURCE)} imports {other}"
        for other in sorted(imported_rooms(path) - {own})
        if FLOORS[other] >= FLOORS[own] and other not in NEIGHBOURS
    ]


def modules() -> list[Path]:
    return [p for p in sorted(SOURCE.rglob("*.py")) if p.parent != SOURCE or room(p) in FLOORS]


def test_no_package_imports_upward_or_sideways():
    assert [line for path in modules() for line in upward_imports(path)] == []


def test_an_upward_import_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "model").mkdir()
    module = tmp_path / "model" / "glm.py"
    module.write_text("def f():\n    from blankfill.train import Trainer\n    return Trainer\n")
    assert upward_imports(module) == ["model/glm.py imports train"]


def test_every_package_has_a_floor():
    assert {room(path) for path in modules()} <= set(FLOORS)


def test_no_module_is_far_above_400_lines():
    long = {
        str(path.relative_to(SOURCE)): count
        for path in modules()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 430
    }
    assert long == {}


@pytest.mark.parametrize(
    "package", ["objective", "text", "data", "data.rows", "plan.search", "api", "cli.main"]
)
def test_light_packages_never_load_torch(package):
    code = f"import sys, blankfill.{package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_never_imports_torch_distributed():
    for path in (SOURCE / "model").rglob("*.py"):
        assert "torch.distributed" not in path.read_text(encoding="utf-8")
