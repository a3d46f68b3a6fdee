"""Vocabulary growth: kept rows bit for bit, new ones from their pieces, special tokens by role."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from blankfill.api import fill, resize
from blankfill.cli.main import main
from blankfill.errors import ConversionError, OutputError
from blankfill.generate import LanguageModel
from blankfill.interop.resize import plan_rows
from blankfill.objective.special import DISPLAY
from blankfill.text.tokenizer import Tokenizer
from blankfill.text.train_tokenizer import train_tokenizer
from conftest import small_corpus
from interop.runs import make_run

MATRICES = ("embed.word.weight", "head.weight")


@pytest.fixture(scope="module")
def grown_folder(tmp_path_factory):
    """A tokenizer with more pieces than the small one, of text with other words too."""
    folder = tmp_path_factory.mktemp("grown")
    words = " ".join(f"{a}{b}" for a in ("moon", "sun", "wind") for b in ("light", "rise", "fall"))
    text = "\n\n".join([*small_corpus(), *[words + "."] * 60])
    (folder / "corpus.txt").write_text(text, encoding="utf-8")
    train_tokenizer([folder / "corpus.txt"], folder / "tok", vocab_size=530)
    return folder / "tok"


@pytest.fixture(scope="module", params=["ours", "chatglm-6b"])
def resized(request, tmp_path_factory, tokenizer_folder, grown_folder):
    """A tied and an untied run, resized: the old one, the new one, and what was told."""
    folder = tmp_path_factory.mktemp("resize")
    make_run(folder / "old", tokenizer_folder, request.param)
    result = resize(folder / "old", tokenizer=grown_folder, out=folder / "new")
    return LanguageModel.load(folder / "old"), LanguageModel.load(folder / "new"), result


def matrices(run):
    return {name: t for name, t in run.model.state_dict().items() if name in MATRICES}


def test_known_pieces_keep_their_rows_bit_for_bit(resized):
    old, new, _ = resized
    known = {p: i for i, p in enumerate(old.tokenizer.pieces)}
    common = [(i, known[p]) for i, p in enumerate(new.tokenizer.pieces) if p in known]
    assert len(common) > 300
    for name, matrix in matrices(new).items():
        for i, j in common:
            assert torch.equal(matrix[i], old.model.state_dict()[name][j])


def test_a_new_piece_starts_as_the_mean_of_its_old_pieces(resized):
    old, new, result = resized
    known = set(old.tokenizer.pieces)
    fresh = [i for i, p in enumerate(new.tokenizer.pieces) if p not in known]
    assert len(fresh) == result.num_mean > 5
    for name, matrix in matrices(new).items():
        for i in fresh:
            pieces = old.tokenizer.encode(new.tokenizer.decode([i]))
            rows = old.model.state_dict()[name][torch.from_numpy(pieces).long()]
            # float32 sums of a few rows against a mean in float64
            torch.testing.assert_close(matrix[i], rows.mean(0), rtol=0, atol=1e-6)


def test_special_tokens_are_found_by_role_wherever_they_stand(resized):
    old, new, _ = resized
    for name, matrix in matrices(new).items():
        for role in DISPLAY:
            row = old.model.state_dict()[name][getattr(old.tokenizer.ids, role)]
            assert torch.equal(matrix[getattr(new.tokenizer.ids, role)], row)


def test_rows_are_a_multiple_of_64_and_padding_copies_pad(resized):
    old, new, result = resized
    size = new.tokenizer.vocab_size
    assert new.cfg.model.vocab_size == result.num_rows[1] == -(-size // 64) * 64
    assert new.cfg.model.vocab_size > size
    for name, matrix in matrices(new).items():
        pad = old.model.state_dict()[name][old.tokenizer.ids.pad]
        assert torch.equal(matrix[size:], pad.expand(len(matrix) - size, -1))


def test_all_other_weights_stay_and_the_head_stays_tied_or_not(resized):
    old, new, _ = resized
    before, after = old.model.state_dict(), new.model.state_dict()
    assert set(before) == set(after)
    for name in set(before) - set(MATRICES):
        assert torch.equal(before[name], after[name])
    assert (new.model.head.weight is None) == (old.model.head.weight is None)
    assert new.cfg.model.tie_head == old.cfg.model.tie_head


def test_text_of_known_pieces_has_the_old_logits(resized):
    """The same pieces through both models: equal logits on the pieces that both know."""
    from blankfill.interop.export_parity import Row, reference_logits

    old, new, _ = resized
    known = {p: i for i, p in enumerate(new.tokenizer.pieces)}
    both = [(i, known[p]) for i, p in enumerate(old.tokenizer.pieces) if p in known]
    there = dict(both)
    text = [i for i in old.tokenizer.encode("the old fox reads").tolist() if i in there]
    ids = old.tokenizer.ids
    prompt = [*text, ids.mask]
    rows = [
        Row(prompt=np.array(p, np.int32), fills=(np.array(f, np.int32),))
        for p, f in ((prompt, text[:2]), ([there[i] for i in prompt], [there[i] for i in text[:2]]))
    ]
    a = reference_logits(old, rows[0])
    b = reference_logits(new, rows[1])
    columns = torch.tensor(both)
    assert torch.equal(a[:, columns[:, 0]], b[:, columns[:, 1]])


def test_the_same_tokenizer_changes_nothing(tmp_path, tokenizer_folder):
    make_run(tmp_path / "old", tokenizer_folder)
    result = resize(tmp_path / "old", tokenizer=tokenizer_folder, out=tmp_path / "new")
    size = LanguageModel.load(tmp_path / "old").tokenizer.vocab_size
    assert (result.num_mean, result.num_dropped, result.num_kept) == (0, 0, size)
    before = LanguageModel.load(tmp_path / "old").model.state_dict()
    for name, after in LanguageModel.load(tmp_path / "new").model.state_dict().items():
        rows = size if name in MATRICES else len(after)
        assert torch.equal(after[:rows], before[name][:rows])


def test_a_smaller_vocabulary_drops_rows(tmp_path, tokenizer_folder, grown_folder):
    make_run(tmp_path / "old", grown_folder)
    result = resize(tmp_path / "old", tokenizer=tokenizer_folder, out=tmp_path / "new")
    assert result.num_dropped > 0
    assert result.num_tokens[1] < result.num_tokens[0]


def test_the_resized_run_fills_and_the_old_one_is_not_touched(
    tmp_path, tokenizer_folder, grown_folder, capsys
):
    old = make_run(tmp_path / "old", tokenizer_folder)
    files = {p: hashlib.sha256(p.read_bytes()).digest() for p in old.rglob("*") if p.is_file()}
    command = ["resize", str(old), "--tokenizer", str(grown_folder), "--out", str(tmp_path / "new")]
    assert main(command) == 0
    assert "from the mean of their pieces" in capsys.readouterr().out
    item = fill(tmp_path / "new", ["the [MASK] moonlight [MASK]."], max_new_tokens=8).items[0]
    assert len(item.blanks) == 2
    assert main(["info", str(tmp_path / "new")]) == 0
    assert files == {
        p: hashlib.sha256(p.read_bytes()).digest() for p in old.rglob("*") if p.is_file()
    }
    info = json.loads((tmp_path / "new" / "run.json").read_text())
    assert info["resized"]["step"] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("architecture", ["ours", "chatglm-6b"])
def test_given_rows_are_taken(architecture, tmp_path, tokenizer_folder, grown_folder):
    make_run(tmp_path / "old", tokenizer_folder, architecture)
    plan = plan_rows(Tokenizer.load(tokenizer_folder), Tokenizer.load(grown_folder))
    ids = torch.tensor(plan.new[:3])
    given = {"ids": ids, "embed.word.weight": torch.randn(3, 32)}
    if architecture == "chatglm-6b":
        given["head.weight"] = torch.randn(3, 32)
    save_file(given, tmp_path / "rows.safetensors")
    result = resize(
        tmp_path / "old", tokenizer=grown_folder, out=tmp_path / "new",
        embeddings=tmp_path / "rows.safetensors",
    )  # fmt: skip
    assert (result.num_from_file, result.num_mean) == (3, len(plan.new) - 3)
    for name, matrix in matrices(LanguageModel.load(tmp_path / "new")).items():
        assert torch.equal(matrix[ids], given[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("ids"), "no tensor ids"),
        (lambda g: g["ids"].fill_(0), "whose piece is not new"),
        (lambda g: g.update({"embed.word.weight": torch.zeros(3, 31)}), r"\[3, 31\]"),
        (lambda g: g["embed.word.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_given_rows_that_do_not_fit_are_refused(
    change, message, tmp_path, tokenizer_folder, grown_folder
):
    make_run(tmp_path / "old", tokenizer_folder)
    plan = plan_rows(Tokenizer.load(tokenizer_folder), Tokenizer.load(grown_folder))
    given = {"ids": torch.tensor(plan.new[:3]), "embed.word.weight": torch.randn(3, 32)}
    change(given)
    save_file(given, tmp_path / "rows.safetensors")
    with pytest.raises(ConversionError, match=message):
        resize(
            tmp_path / "old", tokenizer=grown_folder, out=tmp_path / "new",
            embeddings=tmp_path / "rows.safetensors",
        )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_no_safetensors_and_a_taken_folder_are_refused(
    tmp_path, tokenizer_folder, grown_folder
):
    make_run(tmp_path / "old", tokenizer_folder)
    (tmp_path / "rows").write_text("no tensors")
    with pytest.raises(ConversionError, match="not a safetensors file"):
        resize(tmp_path / "old", tokenizer=grown_folder, out=tmp_path / "new",
               embeddings=tmp_path / "rows")  # fmt: skip
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "precious").write_text("x")
    with pytest.raises(OutputError, match="already holds something"):
        resize(tmp_path / "old", tokenizer=grown_folder, out=tmp_path / "new")
