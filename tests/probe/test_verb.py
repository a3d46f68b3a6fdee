"""`blankfill probe` as it is called: the right states, one page, bad input in a sentence."""

import json
import shlex
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("statsmodels")

import blankfill
from blankfill.api import probe
from blankfill.cli.main import main
from blankfill.errors import BlankfillError
from blankfill.generate.scores import banned_tokens
from blankfill.probe import kept, states
from blankfill.probe.notes import notes_of
from blankfill.probe.page import build_page
from blankfill.probe.represent import encode_items, represent, untrained
from blankfill.probe.words import WORDS
from conftest import small_corpus
from docs_blocks import DOCS, blocks, commands
from generate.brute_force import known_by_one_pass
from interop.runs import make_run
from script_files import load_script


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return make_run(tmp_path_factory.mktemp("probe") / "run", tokenizer_folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def items(tmp_path):
    """Sixty sentences, with targets that a state of the last token holds in part."""
    rng = np.random.default_rng(0)
    rows = []
    for number, text in enumerate(small_corpus(60)):
        text = text[:60]
        rows.append({
            "text": text, "binary": "yes" if text[0] < "s" else "no", "count": text.count(" "),
            "fold": f"f{number // 2 % 3}",
            "real": len(text) + rng.normal(), "doc": f"d{number // 2}",
            "same": 1, "level": ["low", "mid", "high"][number % 3], "size": 1 + number % 5,
        })  # fmt: skip
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def call(run, items, tmp_path, target, **options):
    options = {"folds": 3, "seeds": 1, "layer": 1, "at": "last", "fit": "predict"} | options
    return probe(run, data=items, target=target, out=tmp_path / "page.html", **options)


def states_of(lm, text, at):
    (item,), _ = encode_items([text], ["p"], lm.tokenizer, lm.cfg, at)
    return represent(lm.model, [item])[:, 0]


@pytest.mark.parametrize(
    "kind", [("ours", "corrupted"), ("glm-130b", "linear"), ("chatglm-6b", "original")]
)
def test_a_state_does_not_follow_from_its_neighbours(kind, tmp_path, tokenizer_folder):
    lm = blankfill.load(make_run(tmp_path / "run", tokenizer_folder, *kind))
    texts = ["the old fox [MASK] bread", "a dog [MASK]", "人山 [MASK] 水火 the river"]
    for at in ("blank", "mean", "first", "last", "1", "-2"):
        together, _ = encode_items(texts, ["p"] * 3, lm.tokenizer, lm.cfg, at)
        found = represent(lm.model, together)
        assert found.shape == (lm.cfg.model.num_layers + 1, 3, lm.cfg.model.hidden_size)
        for number, text in enumerate(texts):
            assert np.abs(found[:, number] - states_of(lm, text, at)).max() < 1e-4


def test_the_state_of_a_blank_scores_its_first_token(run):
    lm = blankfill.load(run)
    text = "the old [MASK] reads"
    scores = lm.model.logits(torch.from_numpy(states_of(lm, text, "blank")[-1])).detach()
    part_a = lm.tokenizer.encode_with_blanks(text)
    span = lm.tokenizer.encode("fox")
    (first, *_) = known_by_one_pass(lm, part_a, [span])
    scores = scores.double().masked_fill(banned_tokens(lm), -torch.inf)
    assert float(scores.log_softmax(0)[int(span[0])]) == pytest.approx(first, abs=1e-5)


def test_states_are_those_of_the_layers(run):
    lm = blankfill.load(run)
    found = states_of(lm, "the old fox", "first")
    tokens = lm.tokenizer.encode("the old fox")
    word = lm.model.embed.word.weight[int(tokens[0])].detach().numpy()
    if lm.model.cfg.positions.startswith("rope"):
        assert np.abs(found[0] - word).max() < 1e-5
    assert not np.allclose(found[0], found[1])
    other = represent(untrained(lm.cfg, 7), encode_items(
        ["the old fox"], ["p"], lm.tokenizer, lm.cfg, "first")[0])[:, 0]  # fmt: skip
    assert not np.allclose(found, other)


def test_states_are_kept_and_are_those_of_the_weights(run, items, tmp_path, monkeypatch):
    first = call(run, items, tmp_path, "binary")
    counts = []
    monkeypatch.setattr(states, "represent", lambda *args: counts.append(args))
    assert call(run, items, tmp_path, "binary").score == first.score
    assert counts == []
    lm = blankfill.load(run)
    texts = encode_items(["a b"], ["p"], lm.tokenizer, lm.cfg, "mean")[0]
    names = {kept.name_of({"model": one}, of) for one in ("1", "2") for of in (texts, texts * 2)}
    assert len(names) == 4
    broken = next((tmp_path / "cache").rglob("*.npy"))
    broken.write_bytes(b"x")
    assert kept.kept(broken.stem, 1) is None


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("binary", {"fit": "both", "group": "doc"}),
        ("count", {"family": "poisson", "exposure": "size", "fit": "both"}),
        ("level", {"family": "ordinal", "order": ["low", "mid", "high"]}),
        ("real", {"fold_by": "fold", "group": "doc", "fit": "both", "at": "mean"}),
    ],
)
def test_a_probe_is_one_page_and_the_same_twice(run, items, tmp_path, target, options):
    found = call(run, items, tmp_path, target, **options)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html><!-- blankfill probe -->")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "nan" not in page.lower().split("<script")[0].split("</style>")[1]
    assert {score.name for score in found.beside} == {
        "untrained", "words", "length", "control", "permuted"
    }  # fmt: skip
    chinese = build_page(found, "zh")
    assert "探针" in chinese
    assert "解释的偏差" in chinese
    json.dumps(found.to_dict(), allow_nan=False)
    assert call(run, items, tmp_path, target, **options) == found


def test_the_command_prints_scores_and_json(run, items, tmp_path, capsys):
    words = ["probe", str(run), "--data", str(items), "--target", "binary", "--folds", "3",
             "--seeds", "1", "--layer", "1", "--out", str(tmp_path / "p.html")]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "representation" in printed
    assert "p.html" in printed
    assert main([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["family"] == "binomial"
    assert value["families"]
    assert value["classes"] == ["no", "yes"]


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ("nothing", {}, "no row of"),
        ("same", {}, "is 1 in every row"),
        ("binary", {"folds": 60}, "too few for 60 folds"),
        ("binary", {"family": "poisson"}, "poisson takes numbers"),
        ("binary", {"family": "gaussian", "link": "logit"}, "--link logit is none of gaussian's"),
        ("binary", {"link": "logit"}, "is of a family"),
        ("real", {"family": "gaussian", "exposure": "size"}, "--exposure is for counts"),
        ("count", {"family": "poisson", "exposure": "same"}, "is 1 in every row"),
        ("real", {"family": "gaussian", "order": "a"}, "--order is for levels"),
        ("level", {"order": ["low", "low"]}, "names a level twice"),
        ("level", {"order": ["low", "high"]}, "not among --order"),
        ("binary", {"at": "somewhere"}, "at='somewhere' must be"),
        ("binary", {"at": "blank"}, "the text has no blank"),
        ("binary", {"at": "blank", "text": "{text}"}, "--at blank needs a blank"),
        ("binary", {"at": "90"}, "reads one that is not there"),
        ("binary", {"layer": 99}, "--layer 99 is not there"),
        ("binary", {"at": "blank", "text": "{text} [MASK]", "layer": 0}, "is the same for every"),
        ("binary", {"group": "doc", "fold_by": "size"}, "is in two folds"),
        ("binary", {"text": "{text} " * 40}, "a row of this model holds"),
        ("binary", {"fold_by": "same"}, "names one fold"),
        ("text", {}, "stands in 1 row, fewer than the 3 folds"),
    ],
)
def test_bad_input_is_one_sentence_before_the_long_work(
    run, items, tmp_path, target, options, told, monkeypatch
):
    if told != "is the same for every":
        monkeypatch.setattr(states, "represent", None)  # would be called by long work
    with pytest.raises(BlankfillError) as caught:
        call(run, items, tmp_path, target, **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_long_texts_are_left_out_where_that_is_asked_for(run, items, tmp_path):
    rows = items.read_text(encoding="utf-8") + "\n" + json.dumps(
        {"text": "a b c " * 400, "binary": "yes"})  # fmt: skip
    items.write_text(rows, encoding="utf-8")
    with pytest.raises(BlankfillError, match=r"items.jsonl:61: the text has .* --skip-long"):
        call(run, items, tmp_path, "binary")
    found = call(run, items, tmp_path, "binary", skip_long=True)
    assert found.cleaning.too_long == 1
    assert "items.jsonl:61" in found.cleaning.first[-1]


def test_perfect_separation_is_refused_and_the_penalised_fit_still_there(run, tmp_path):
    rows = [{"text": f"{'the old fox' if k % 2 else '人山水火'}", "y": k % 2, "n": k}
            for k in range(2)]  # fmt: skip
    rows = [{"text": row["text"] + tail, "y": row["y"]}
            for tail in ("", " a", " the", " b", " town", " dog") for row in rows]  # fmt: skip
    path = tmp_path / "apart.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = {"text": "text", "at": "first", "layer": 0}
    for family in ("binomial", "auto"):
        with pytest.raises(BlankfillError, match=r"separated perfectly .* --fit predict"):
            call(run, path, tmp_path, "y", fit="both", family=family, **given)
    found = call(run, path, tmp_path, "y", fit="predict", family="binomial", **given)
    assert found.score.value == 1.0
    assert found.explained is None


def test_where_every_text_begins_alike_there_is_no_selectivity(run, items, tmp_path, capsys):
    words = ["probe", str(run), "--data", str(items), "--target", "binary", "--folds", "3",
             "--seeds", "1", "--layer", "1", "--text", "fox {text}", "--fit", "predict",
             "--out", str(tmp_path / "p.html"), "--json"]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["selectivity"] is None
    assert "control" not in {score["name"] for score in found["beside"]}


def test_a_foreign_file_is_not_replaced(run, items, tmp_path):
    (tmp_path / "page.html").write_text("a user's")
    with pytest.raises(BlankfillError, match="is not a report of a probe"):
        call(run, items, tmp_path, "binary")


def test_a_missing_library_is_named(run, items, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(BlankfillError, match=r"pip install 'blankfill\[probe\]'"):
        call(run, items, tmp_path, "binary")


def test_every_word_is_there_in_both_languages():
    for key, (english, chinese) in WORDS.items():
        assert english.count("{}") == chinese.count("{}"), key
        assert english
        assert chinese


def test_notes_say_what_a_probe_does_not_show(run, items, tmp_path):
    found = call(run, items, tmp_path, "binary")
    assert tuple(notes_of(found, "en")) == found.notes
    assert any("not that the model" in note for note in found.notes)
    assert any("only 60 items" in note for note in found.notes)


def test_the_commands_of_the_page_run(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    rng = np.random.default_rng(0)
    words = ["old", "fox", "dog", "river", "town", "reads", "sees", "bread", "books", "water"]

    def sentence():
        drawn = rng.choice(words, int(rng.integers(11, 15))).tolist()
        return f"The {drawn[0]}{',' * int(rng.integers(4))} {' '.join(drawn[1:])}."

    texts = [sentence() for _ in range(40)]
    files = {
        "sst2": [{"sentence": text, "label": k % 2} for k, text in enumerate(texts)],
        "boolq": [{"passage": texts[k // 2], "question": f"is it {words[k % 10]}",
                   "label": "fox" in texts[k // 2]} for k in range(40)],
        "documents": [{"text": " ".join(sentence() for _ in range(5 + k % 4))} for k in range(16)],
    }  # fmt: skip
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    script = load_script("probe-items")
    (block,) = [b for b in blocks(DOCS / "probe.md") if "scripts/probe-items" in b]
    asked = shlex.split(block.splitlines()[0])
    monkeypatch.setattr(sys, "argv", asked)
    script.main()
    found = commands(DOCS / "probe.md")
    assert len(found) == 5
    small = ["--folds", "3", "--seeds", "1", "--layer", "1", "--fit", "predict"]
    for number, line in enumerate(found):
        assert main([*shlex.split(line)[1:], *small, "--out", f"{number}.html"]) == 0, line
    assert "place: ordinal" in capsys.readouterr().out


def test_items_are_counted_in_documents():
    script = load_script("probe-items")
    first = "One, two three four five, six seven eight nine ten eleven. "
    document = first + "Short. " + "A b c d e f g h i j k. " * 3
    sentences, passages = script.items([document])
    assert [row["commas"] for row in sentences] == [2, 0, 0, 0]
    assert [row["place"] for row in sentences] == [1, 3, 4, 5]
    assert sentences[0]["words"] == 11
    assert sentences[0]["bare"] == "One two three four five six seven eight nine ten eleven."
    assert passages == [
        {"text": first.strip(), "characters": len(document), "document": "document 0"}
    ]
