"""A process takes the best form that its own processor has, whatever others left in the cache."""

import os
import re
import shutil
import stat
import subprocess

import pytest
import torch

from blankfill.kernels import forms, native
from kernels.native_forms import FORMS, native_form
from model.attention_cases import require_native

AVX2 = {"avx2", "fma", "bmi2"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
WIDER = {"avx512-bf16": "none", "avx512": "dpbf16", "avx2": "zmm|dpbf16", "x86-64": "[yz]mm|dpbf16"}
"""What stands in no instruction of a form."""


def write_cpuinfo(path, features, *, name="a processor", machine="x86_64", monkeypatch):
    """Emulate a processor: what Linux says of it, and of a second core."""
    core = f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: fpu {' '.join(sorted(features))}\n"
    path.write_text(f"{core}\n{core.replace(': 0', ': 1')}\n")
    monkeypatch.setattr(forms, "CPUINFO", path)
    monkeypatch.setattr(forms.platform, "machine", lambda: machine)
    monkeypatch.setattr(forms, "cpu_name", lambda: name)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load as another process would, with a cache of this test."""
    require_native()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return native.load_native.__wrapped__


@pytest.mark.parametrize(("features", "best"), [
    (AVX512 | {"avx512_bf16", "amx_bf16"}, "avx512-bf16"),
    (AVX512, "avx512"),
    ((AVX512 | {"avx512_bf16"}) - {"avx512vl"}, "avx2"),  # not all that it needs
    (AVX2 | {"avx512f", "avx512cd"}, "avx2"),
    (AVX2, "avx2"),
    (AVX2 - {"fma"}, "x86-64"),
    ({"sse4_2"}, "x86-64"),
    (set(), "x86-64"),
])  # fmt: skip
def test_the_best_form_is_the_first_whose_instructions_are_all_here(
    features, best, tmp_path, monkeypatch
):
    write_cpuinfo(tmp_path / "cpuinfo", features, monkeypatch=monkeypatch)
    names = [form.name for form in forms.forms_here()]
    assert names == FORMS[FORMS.index(best) :]


def test_without_cpuinfo_only_what_every_processor_has_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "CPUINFO", tmp_path / "nothing")
    monkeypatch.setattr(forms.platform, "machine", lambda: "x86_64")
    assert [form.name for form in forms.forms_here()] == ["x86-64"]


def test_another_architecture_is_left_to_the_compiler(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    write_cpuinfo(path, AVX512, machine="aarch64", monkeypatch=monkeypatch)
    assert [form.name for form in forms.forms_here()] == ["native", "plain"]
    path.write_text("processor : 0\nFeatures : fp asimd\nCPU part : 0xd0c\n")
    first = forms.processor()
    path.write_text("processor : 0\nFeatures : fp asimd sve\nCPU part : 0xd40\n")
    assert forms.processor() != first


def test_a_library_that_comes_from_a_better_processor_is_not_loaded(load, tmp_path, monkeypatch):
    best = load()
    features = AVX2 if best.form != "avx2" else set()
    here = {path.name for path in (tmp_path / "cache").rglob("*.so")}
    write_cpuinfo(tmp_path / "cpuinfo", features, monkeypatch=monkeypatch)
    assert load().form == ("avx2" if features else "x86-64")
    both = {path.name for path in (tmp_path / "cache").rglob("*.so")}
    assert len(here) == 1
    assert here < both
    assert load("avx512-bf16") is None  # by name neither
    assert {path.name for path in (tmp_path / "cache").rglob("*.so")} == both


def test_a_library_that_another_model_tuned_is_built_anew(load, tmp_path, monkeypatch):
    for name in ("one", "another", "one"):
        write_cpuinfo(tmp_path / "cpuinfo", set(), name=name, monkeypatch=monkeypatch)
        assert load().form == "x86-64"
    assert len([*(tmp_path / "cache").rglob("*.so")]) == 2


@pytest.mark.parametrize("name", FORMS)
def test_a_form_holds_no_instruction_that_it_does_not_name(name, load, tmp_path):
    if shutil.which("objdump") is None:
        pytest.skip("no objdump here")
    native_form(name)
    assert load(name).form == name
    (library,) = (tmp_path / "cache").rglob("*.so")
    assert library.name.startswith(f"kernels-{name}-")
    text = subprocess.run(
        ["objdump", "-d", str(library)], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(r"\bv?mulps\b", text)
    assert not re.search(WIDER[name], text)
    assert ("dpbf16" in text) == (name == "avx512-bf16")


def test_a_compiler_that_does_not_know_the_best_form_builds_the_next(load, tmp_path, monkeypatch):
    native_form("avx512")
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *bf16*) echo "unknown option" >&2; exit 1;; esac\n'
        f'exec {shutil.which("cc")} "$@"\n'
    )
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{compiler.parent}{os.pathsep}{os.environ['PATH']}")
    assert load().form == "avx512"
    gate = torch.tensor([0.5, -1.0]).bfloat16()
    assert load().gate(torch.ones_like(gate), gate).shape == (2,)
