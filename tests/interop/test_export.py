"""Exports: the files compute what the run computes, whatever its architecture; read back bit-equal.

What needs transformers runs where it is installed; without it the plain torch files of an export
are loaded alone. The whole of an export in a clean environment is in test_export_clean.py.
"""

import ast
import dataclasses
import functools
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from blankfill.api import export, fill
from blankfill.cli.main import main
from blankfill.errors import ConversionError, OutputError
from blankfill.generate import LanguageModel
from blankfill.interop import export as exports
from blankfill.interop.export_hf import CODE_FILES, read_hf, write_hf, write_shards
from blankfill.interop.export_parity import Row, compare, draw_rows, fill_rows, reference_logits
from blankfill.interop.export_reload import ReloadedByTorch, reload_hf
from blankfill.interop.keymap import to_ours
from blankfill.objective.blank import build_prompt, generation_positions
from blankfill.objective.mask import visible
from blankfill.objective.special import SpecialIds
from interop.runs import ARCHITECTURES, make_run

SCHEMES = ("corrupted", "linear", "original")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return LanguageModel.load(make_run(tmp_path_factory.mktemp("run") / "r", tokenizer_folder))


def written(run, folder):
    folder.mkdir()
    write_hf(folder, run, max_shard_bytes=10**9)
    return folder


@pytest.mark.parametrize(
    ("architecture", "scheme"),
    [*((a, SCHEMES[i % 3]) for i, a in enumerate(ARCHITECTURES)), ("ours", "original"),
     ("glm-10b", "corrupted"), ("glm-130b", "linear")],
)  # fmt: skip
def test_an_export_computes_what_the_run_does(architecture, scheme, tmp_path, tokenizer_folder):
    run = LanguageModel.load(make_run(tmp_path / "run", tokenizer_folder, architecture, scheme))
    reloaded = ReloadedByTorch(written(run, tmp_path / "out"), run.tokenizer.ids)
    parity = compare(run, reloaded, num_prompts=24)
    assert parity.num_different_tokens == 0
    assert parity.max_logit_difference <= parity.tolerance
    assert parity.tolerance < 2.5e-4  # 1e-4 for logits up to 10
    assert parity.num_greedy_tokens > 40


def test_fills_of_several_blanks_are_among_what_is_compared(run):
    rows = draw_rows(run.tokenizer.ids, run.tokenizer.vocab_size, 128, count=20)
    fills = fill_rows(run, [row.prompt for row in rows], 16)
    assert sum(run.tokenizer.ids.sop in row for row in fills) >= 5
    assert any(run.tokenizer.ids.gmask in row.prompt for row in rows)
    assert all(
        len(row.fills) == np.isin(row.prompt, [run.tokenizer.ids.mask, run.tokenizer.ids.gmask])
        .sum() for row in rows
    )  # fmt: skip


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_positions_and_masks_are_read_off_padded_tokens(run, tmp_path, scheme, side):
    ids = run.tokenizer.ids
    lay_out = ReloadedByTorch(written(run, tmp_path / "out"), ids)._lay_out
    rows = draw_rows(ids, run.tokenizer.vocab_size, 128, count=30)
    width = max(len(row.tokens(ids)) for row in rows)
    roles = ("mask", "smask", "gmask", "sop", "eop", "eos", "pad")
    by_role = {role: getattr(ids, role) for role in roles}
    padded = torch.full((len(rows), width), ids.pad)
    places = []
    for i, row in enumerate(rows):
        tokens = torch.from_numpy(row.tokens(ids)).long()
        start = width - len(tokens) if side == "left" else 0
        padded[i, start : start + len(tokens)] = tokens
        places.append(torch.from_numpy(start + row.inputs()).long())
    layout = lay_out(padded, torch.ones_like(padded, dtype=torch.bool), by_role, scheme)
    seen = layout.visible()
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        prompt = build_prompt(row.prompt, ids)
        expected = [prompt.positions]
        for blank, own in enumerate(row.fills):
            earlier = [len(x) for x in row.fills[:blank]]
            expected += [
                generation_positions(prompt, blank, n, earlier, scheme=scheme)[:, None]
                for n in range(1 + len(own))
            ]
        expected = np.concatenate(expected, axis=1)
        assert layout.positions[i][:, place].tolist() == expected.tolist()
        part_b = np.arange(len(place)) >= len(row.prompt)
        wanted = visible(np.zeros(len(place), np.int32), part_b)
        assert seen[i][place][:, place].tolist() == wanted.tolist()
        others = torch.ones(width, dtype=torch.bool)
        others[place] = False  # padding and end tokens: seen by nobody
        assert not seen[i][place][:, others].any()


@pytest.mark.parametrize("max_bytes", [10**9, 60_000])
def test_what_was_exported_reads_back_bit_equal(run, tmp_path, max_bytes):
    (tmp_path / "out").mkdir()
    weights = run.model.state_dict()
    write_hf(tmp_path / "out", run, max_shard_bytes=max_bytes)
    cfg, tokenizer, back = read_hf(tmp_path / "out")
    assert cfg == run.cfg
    assert tokenizer.fingerprint == run.tokenizer.fingerprint
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert (len(list((tmp_path / "out").glob("model*.safetensors"))) > 1) == (max_bytes < 10**9)


def test_shards_stay_below_their_size_and_the_index_names_each_tensor(tmp_path):
    weights = {f"t{i}": torch.full((i + 1, 10), float(i)) for i in range(9)}
    names = write_shards(tmp_path, weights, max_bytes=800)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(4 * t.numel() for t in weights.values())
    assert set(index["weight_map"]) == set(weights)
    for name in names:
        held = load_file(tmp_path / name)
        assert sum(4 * t.numel() for t in held.values()) <= 800
        assert all(index["weight_map"][key] == name for key in held)


def test_a_missing_shard_is_named(run, tmp_path):
    (tmp_path / "out").mkdir()
    write_hf(tmp_path / "out", run, max_shard_bytes=60_000)
    sorted((tmp_path / "out").glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(ConversionError, match="model-00002-of"):
        read_hf(tmp_path / "out")


def test_an_export_of_an_earlier_format_is_told_from_a_damaged_one(run, tmp_path):
    path = written(run, tmp_path / "out") / "blankfill_export.json"
    told = json.loads(path.read_text("utf-8"))
    assert told["version"] == 2
    path.write_text(json.dumps(told | {"version": 1}), "utf-8")
    with pytest.raises(ConversionError, match=r"earlier blankfill, in format 1 .* export the run"):
        read_hf(tmp_path / "out")
    for damaged in ("{", "[]", json.dumps(told | {"version": 99}), json.dumps({"version": 2})):
        path.write_text(damaged, "utf-8")
        with pytest.raises(ConversionError, match="not an export of blankfill, or a damaged one"):
            read_hf(tmp_path / "out")


def test_a_damaged_shard_is_named(run, tmp_path):
    path = written(run, tmp_path / "out") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConversionError, match=r"model\.safetensors"):
        read_hf(tmp_path / "out")


def test_the_command_prints_parity_and_leaves_only_the_folder(run, tmp_path, capsys):
    assert main(["export", str(run.path), "--to", "hf", "--out", str(tmp_path / "x" / "out")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "largest |difference of logits| on 100 prompts" in told
    assert "greedy tokens equal" in told
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["out"]
    held = {path.name for path in (tmp_path / "x" / "out").iterdir()}
    assert {*CODE_FILES, "config.json", "model.safetensors", "tokenizer.model"} <= held
    assert "tokenizer.json" not in held  # transformers would take it for one of its own


def test_an_export_that_differs_is_refused_and_removed(run, tmp_path, monkeypatch, capsys):
    def spoil(folder, ids):
        weights = load_file(folder / "model.safetensors")
        weights["network.blocks.1.mlp.down.bias"][0] += 0.1
        save_file(weights, folder / "model.safetensors")
        return reload_hf(folder, ids)

    monkeypatch.setattr(exports, "reload_hf", spoil)
    assert main(["export", str(run.path), "--to", "hf", "--out", str(tmp_path / "out")]) == 2
    assert "logits differ by up to" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(run, tmp_path):
    class Broken:
        through = "nothing"

        def logits(self, rows):
            return [torch.full_like(reference_logits(run, row), float("nan")) for row in rows]

        def greedy(self, prompts, max_new_tokens):
            return fill_rows(run, prompts, max_new_tokens)

    with pytest.raises(ConversionError, match="differ by up to inf"):
        compare(run, Broken(), num_prompts=2)


def test_an_existing_folder_is_not_touched(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(OutputError, match="already holds something"):
        export(run.path, to="hf", out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.parametrize("name", CODE_FILES)
def test_the_code_of_an_export_needs_nothing_of_blankfill(name, run, tmp_path):
    tree = ast.parse((written(run, tmp_path / "out") / name).read_text(encoding="utf-8"))
    allowed = {"torch", "transformers", "sentencepiece", "tokenizers", *sys.stdlib_module_names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] in allowed
        if isinstance(node, ast.ImportFrom) and node.level:
            # transformers copies what a file that config.json names imports, not what that imports.
            assert name in ("modeling_blankfill.py", "tokenization_blankfill.py")


@pytest.mark.parametrize(
    ("to", "architecture", "scheme", "options"),
    [("glm", "glm-10b", "corrupted", {}), ("sat", "glm-10b", "corrupted", {}),
     ("sat", "glm-130b", "linear", {}),
     ("sat", "chatglm-6b", "corrupted", {"residual_scale": 0.0, "deepnorm": "su"}),
     ("sat", "sandwich", "corrupted",
      {"positions": "learned_2d", "activation": "gelu", "pb_relax": 0.0})],
)  # fmt: skip
def test_the_released_names_read_back_bit_equal(
    to, architecture, scheme, options, tmp_path, tokenizer_folder, monkeypatch
):
    monkeypatch.setattr(exports, "compare", functools.partial(compare, num_prompts=8))
    run = make_run(tmp_path / "run", tokenizer_folder, architecture, scheme, **options)
    result = export(run, to=to, out=tmp_path / "out")
    assert result.parity.max_logit_difference == 0
    assert result.parity.num_different_tokens == 0
    weights = LanguageModel.load(run).model.state_dict()
    cfg = LanguageModel.load(run).cfg.model
    if to == "glm":
        family, foreign = "hf_glm", load_file(tmp_path / "out" / "model.safetensors")
        sizes = json.loads((tmp_path / "out" / "config.json").read_text())
        assert "glm.transformer.layers.0.attention.query_key_value.weight" in foreign
    else:
        rank = tmp_path / "out" / "1" / "mp_rank_00_model_states.pt"
        foreign = torch.load(rank, weights_only=True)["module"]
        sizes = json.loads((tmp_path / "out" / "model_config.json").read_text())
        family = {"glm-130b": "glm130b", "chatglm-6b": "chatglm_sat"}.get(architecture, "sat_glm")
        assert (tmp_path / "out" / "latest").read_text().strip() == "1"
    assert sizes["num_attention_heads"] == cfg.num_heads
    back = to_ours(family, foreign, cfg)
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("to", "architecture", "scheme", "options", "reason"),
    [("glm", "ours", "corrupted", {}, "block=pre_ln"),
     ("glm", "glm-10b", "linear", {}, "position scheme corrupted"),
     ("glm", "glm-10b", "corrupted", {"qk_norm": True}, "no qk_norm"),
     ("sat", "glm-130b", "linear", {"deepnorm": "unit_gain"}, "residual scale of 2 "),
     ("sat", "post-ln", "corrupted", {}, "block=")],
)  # fmt: skip
def test_what_the_released_code_does_not_compute_is_refused_by_name(
    to, architecture, scheme, options, reason, tmp_path, tokenizer_folder
):
    run = make_run(tmp_path / "run", tokenizer_folder, architecture, scheme, **options)
    with pytest.raises(ConversionError, match=reason):
        export(run, to=to, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_through_transformers_where_it_is_installed(run, tmp_path):
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import blankfill.interop.hf  # noqa: F401  # registers the classes

    result = export(run.path, to="hf", out=tmp_path / "out")
    assert result.parity.through.startswith("transformers ")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompts = ["The [MASK] fox.", "the old [MASK] sees [MASK] bread", "river[gMASK]"]
    inputs = tokenizer(prompts, padding=True, return_tensors="pt")
    rows = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    ours = fill(run.path, prompts).items
    for text, item in zip(tokenizer.fill(rows), ours, strict=True):
        if all(blank.ended for blank in item.blanks):
            assert text == item.text


def test_a_row_joins_its_fills_in_the_form_of_generated_rows(ids):
    row = Row(prompt=np.array([9, 1, 1], np.int32),
              fills=(np.array([20], np.int32), np.array([30, 31], np.int32)))  # fmt: skip
    assert row.tokens(ids).tolist() == [9, 1, 1, 4, 20, 5, 4, 30, 31, 5]
    assert row.inputs().tolist() == [0, 1, 2, 3, 4, 6, 7, 8]


def test_small_positions_leave_room_for_the_prompts(tokenizer_folder, tmp_path):
    run = LanguageModel.load(
        make_run(tmp_path / "run", tokenizer_folder, "glm-10b", max_position=128, num_layers=1)
    )
    for max_position in (8, 16, 40):
        rows = draw_rows(run.tokenizer.ids, run.tokenizer.vocab_size, max_position, count=50)
        assert max(len(row.prompt) for row in rows) <= max_position // 2 + 1


class Published:
    """A vocabulary like the published ones: `eos` pads, `[gMASK]` and `eop` share an id."""

    fingerprint = ""
    vocab_size = 500

    def __init__(self):
        self.ids = SpecialIds(
            mask=490, smask=491, gmask=492, sop=493, eop=492, eos=494, pad=494, dblock=495,
            shared=("gmask", "eop", "eos", "pad"),
        )  # fmt: skip


def test_a_published_vocabulary_with_shared_ids_is_exported_without_its_tokenizer(run, tmp_path):
    vocabulary = Published()
    published = dataclasses.replace(run, tokenizer=vocabulary)
    (tmp_path / "out").mkdir()
    write_hf(tmp_path / "out", published, max_shard_bytes=10**9)
    assert not list((tmp_path / "out").glob("*token*"))
    assert read_hf(tmp_path / "out")[1] is None
    reloaded = reload_hf(tmp_path / "out", vocabulary.ids)
    prompt = np.array([3, 490, 7, 494], np.int32)  # closed by eos, which is also padding
    long = np.array([*range(20, 40), 490], np.int32)
    rows = [Row(prompt=p, fills=(np.array([8], np.int32),)) for p in (prompt, long)]
    for row, theirs in zip(rows, reloaded.logits(rows), strict=True):
        ours = reference_logits(published, row)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)  # float32, as an export
    prompts = [prompt, np.array([5, 6, 490, 9, 490, 11, 494], np.int32)]
    wanted = fill_rows(published, prompts, 8)
    for ours, theirs in zip(wanted, reloaded.greedy(prompts, 8), strict=True):
        common = ours[:8]
        assert theirs[: len(common)] == common


def test_a_run_trained_with_sentinels_is_refused(run):
    cfg = dataclasses.replace(
        run.cfg, objective=dataclasses.replace(run.cfg.objective, sentinels=4)
    )
    with pytest.raises(ConversionError, match=r"objective\.sentinels=4"):
        exports.export_hf(
            dataclasses.replace(run, cfg=cfg), run.path.parent / "none", max_shard_bytes=10**9
        )
    assert not (run.path.parent / "none").exists()
