"""Texts that are too long, hostile, or full of blanks: read around their blanks, or told."""

import numpy as np
import pytest

import blankfill
from blankfill.cli.main import main
from blankfill.errors import BlankfillError
from blankfill.generate import fill_tokens
from interop.runs import make_run
from shared import shared_path

BEFORE = "".join(f"the old fox {n} reads books in the town, 人山水火. " for n in range(30))
AFTER = "".join(f" and sells bread {n} by the river, 看书." for n in range(30))


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return make_run(tmp_path_factory.mktemp("trim") / "run", tokenizer_folder)


@pytest.fixture(scope="module")
def lm(run):
    return blankfill.load(run)


@pytest.mark.parametrize("text", ["[MASK]" + AFTER, BEFORE + "[MASK]", BEFORE + "[MASK]" + AFTER,
                                  BEFORE + "[MASK] fox [sMASK]" + AFTER])  # fmt: skip
def test_what_is_around_the_blanks_is_read_and_the_answer_has_all_of_the_text(text, lm):
    item = lm.fill(text, max_new_tokens=5, trim=True)
    encoded = lm.tokenizer.encode_with_blanks(text.replace(" [MASK]", "[MASK]")
                                              .replace(" [sMASK]", "[sMASK]"))  # fmt: skip
    room = 96  # three quarters of a row
    assert item.trimmed == len(encoded) - room
    blanks = np.flatnonzero(np.isin(encoded, [lm.ids.mask, lm.ids.smask]))
    first = max(0, blanks[0] - (room - (blanks[-1] - blanks[0] + 1)) // 2)
    first = min(first, len(encoded) - room)
    (alone,) = fill_tokens(lm, [encoded[first : first + room]], max_new_tokens=5)
    for blank, other in zip(item.blanks, alone.blanks, strict=True):
        assert blank.tokens == tuple(map(lm.tokenizer.token, other.tokens.tolist()))
        assert item.text[blank.start : blank.start + len(blank.text)] == blank.text
    before, _, _ = text.partition("[")
    assert item.text.startswith(before.removesuffix(" "))
    assert item.text.endswith(text.rpartition("]")[2])
    assert item.prompt == text
    assert lm.fill(text, max_new_tokens=5, trim=True).text == item.text


def test_a_text_that_fits_is_not_cut(lm):
    text = "the old [MASK] reads"
    assert lm.fill(text, trim=True, max_new_tokens=3) == lm.fill(text, max_new_tokens=3)


def test_candidates_are_scored_in_what_is_around_the_blank(lm):
    (scored,) = lm.score(BEFORE + "[MASK]" + AFTER, ["fox"], trim=True).candidates
    (ranked,) = lm.rank(BEFORE + "[MASK]" + AFTER, ["fox"], trim=True).candidates
    assert scored == ranked
    with pytest.raises(BlankfillError, match="--trim"):
        lm.score(BEFORE + "[MASK]", ["fox"])


@pytest.mark.parametrize("verb", ["fill", "score", "rank"])
@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (BEFORE + "[MASK]", [], "with --trim"),
        ("[MASK]" + BEFORE + "[MASK]", ["--trim"], "tokens apart, and this model reads 96"),
        ("[MASK] " * 10_000, [], "this model reads 128"),
        ("[MASK] " * 10_000, ["--trim"], "tokens apart"),
    ],
)
def test_what_cannot_be_read_is_told_before_the_weights_are(
    verb, text, options, said, run, monkeypatch, capsys
):
    monkeypatch.setattr("blankfill.generate.language_model.load_weights", None)
    fills = [] if verb == "fill" else ["fox"] * text.count("MASK]")
    assert main([verb, str(run), *options, "--", text, *fills]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


HOSTILE = [
    b"", b"\x00", bytes(range(256)), b"\xff\xfe\x00\xd8", "\ud800".encode("utf-8", "surrogatepass"),
    b"\xed\xa0\x80 [MASK]", "\u202e\u2066\u200d".encode(), b"[MASK" * 50, b"]" * 100, b"\r\n\r\n",
    ("e" + "\u0301" * 90).encode(), b"\xe4\xb8", "\u2581\u2581".encode(), b"[S][E][MASK][gMASK]",
]  # fmt: skip


def check_every_verb(data, run, lm, capsys):
    """Exit 0, or 2 and sentences: nothing else."""
    text = data[:3000].decode("utf-8", "surrogateescape").replace("\x00", "")
    for words in (["fill", text + " [MASK]", "--trim", "--max-new-tokens=1"],
                  ["generate", text, "--max-new-tokens=1"], ["score", text],
                  ["surprise", text[:40]], ["rank", "a [MASK]", text[:200]]):  # fmt: skip
        verb, *rest = words
        options = [word for word in rest if word.startswith("--")]
        texts = [word for word in rest if word not in options]
        code = main([verb, str(run), *options, "--", *texts])
        told = capsys.readouterr().err
        assert code in (0, 2), words
        assert (code == 2) == ("blankfill: " in told), told
        assert "Traceback" not in told


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_texts_are_answered_or_told(data, run, lm, capsys):
    check_every_verb(data, run, lm, capsys)


@pytest.mark.slow
def test_hostile_files_are_answered_or_told_as_texts(run, lm, capsys):
    for path in sorted(shared_path("data/nasty").iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                check_every_verb(file.read(10_000), run, lm, capsys)
