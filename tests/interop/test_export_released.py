"""Where the released code computes something else than the run, an export says so, and how far."""

import dataclasses
import functools
import json

import pytest
import torch

from blankfill.api import export
from blankfill.cli.main import main
from blankfill.generate import LanguageModel
from blankfill.interop import export as exports
from blankfill.interop.export_parity import compare, draw_rows, reference_logits
from blankfill.model import GLM
from interop.runs import make_run

ERF, TANH = "computes the erf form of GeLU, this run the tanh", "computes the tanh form of GeLU"
SANDWICH = {"positions": "learned_2d", "pb_relax": 0.0}
CHATGLM = {"residual_scale": 0.0, "deepnorm": "su"}

DIFFERENT = [
    ("glm", "glm-10b", {}, {"activation": "gelu"}, [ERF]),
    ("sat", "glm-10b", {"activation": "gelu"}, {"activation": "gelu_tanh"}, [TANH]),
    ("sat", "sandwich", SANDWICH | {"activation": "gelu"}, {"activation": "gelu_tanh"}, [TANH]),
    ("glm", "glm-10b", {"activation": "gelu", "norm_eps": 0.01}, {"norm_eps": 1e-5},
     ["takes 1e-05 for the epsilon of every LayerNorm, this run 0.01"]),
    ("glm", "glm-10b", {"norm_eps": 0.01}, {"activation": "gelu", "norm_eps": 1e-5},
     [ERF, "epsilon"]),
    ("sat", "chatglm-6b", CHATGLM, {"rope_angles": "float32"}, ["RoPE to float16"]),
    ("sat", "chatglm-6b", CHATGLM | {"activation": "gelu", "rope_angles": "float32"},
     {"activation": "gelu_tanh"}, [TANH]),
]  # fmt: skip
ALIKE = [
    ("glm", "glm-10b", {"activation": "gelu"}), ("sat", "glm-10b", {}),
    ("sat", "glm-10b", {"norm_eps": 0.01}), ("hf", "glm-10b", {}), ("hf", "chatglm-6b", {}),
    ("sat", "chatglm-6b", CHATGLM | {"rope_angles": "float32"}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def fewer_prompts(monkeypatch):
    """The proof on 4 prompts in place of 100: what is tried here stands beside it."""
    monkeypatch.setattr(exports, "compare", functools.partial(compare, num_prompts=4))


@pytest.mark.parametrize(("to", "architecture", "options", "theirs", "words"), DIFFERENT)
def test_a_difference_stands_beside_the_proof(
    to, architecture, options, theirs, words, tmp_path, tokenizer_folder, capsys
):
    run = make_run(tmp_path / "run", tokenizer_folder, architecture, **options)
    out = tmp_path / "out"
    assert main(["export", str(run), "--to", to, "--out", str(out)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    kept = json.loads((out / "blankfill_export.json").read_text(encoding="utf-8"))["released"]
    assert len(kept["notes"]) == len(words)
    for word in words:
        assert word in told
        assert word in (out / "README.md").read_text(encoding="utf-8")
        assert any(word in note for note in kept["notes"])

    loaded = LanguageModel.load(run)
    other = GLM(dataclasses.replace(loaded.cfg.model, **theirs)).eval()
    other.load_state_dict(loaded.model.state_dict())
    released = dataclasses.replace(loaded, model=other)
    ids = loaded.tokenizer.ids
    with torch.inference_mode():
        wanted = max(
            float((reference_logits(released, row) - reference_logits(loaded, row)).abs().max())
            for row in draw_rows(ids, loaded.tokenizer.vocab_size, 128, count=20)
        )  # fmt: skip
    assert wanted > 0
    assert kept["max_logit_difference"] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    assert f"logits are up to {wanted:.2g}"[:22] in told


@pytest.mark.parametrize(("to", "architecture", "options"), ALIKE)
def test_where_there_is_no_difference_none_is_said(
    to, architecture, options, tmp_path, tokenizer_folder, capsys
):
    run = make_run(tmp_path / "run", tokenizer_folder, architecture, **options)
    result = export(run, to=to, out=tmp_path / "out")
    assert result.notes == []
    assert result.released_logit_difference == 0
    assert "computes something else" not in (tmp_path / "out" / "README.md").read_text()


def test_the_note_is_part_of_the_answer_for_programs(tmp_path, tokenizer_folder, capsys):
    run = make_run(tmp_path / "run", tokenizer_folder, "glm-10b")
    arguments = ["export", str(run), "--to", "glm", "--out", str(tmp_path / "out"), "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert ERF in told["notes"][0]
    assert told["parity"]["max_logit_difference"] == 0  # the tensors themselves come back
    assert told["released_logit_difference"] > 1e-4
