"""Models of ours in the lm-evaluation-harness: what they answer, and that nothing is fetched."""

import json
import math
import socket
from types import SimpleNamespace

import numpy as np
import pytest

import blankfill
from blankfill import api
from blankfill.cli.main import main
from blankfill.errors import RequestError
from generate.brute_force import known_by_one_pass
from interop.runs import make_run
from task_items import write_items

MODES = ["bidirectional", "unidirectional", "mask"]
CONTEXTS = [("the old", " fox reads"), ("the old", " dog"), ("", "the young fox"),
            ("\u4eba\u5c71", "\u6c34\u706b"), ("a river ", "sees"), ("the old", " a")]  # fmt: skip


def requests(*arguments):
    return [SimpleNamespace(args=each) for each in arguments]


@pytest.fixture(scope="module")
def harness():
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (the extra `eval`)")
    from blankfill.evaluate import harness

    return harness


@pytest.fixture(
    scope="module",
    params=[("ours", "corrupted"), ("glm-130b", "linear"), ("glm-10b", "corrupted"),
            ("chatglm-6b", "original")],
    ids=lambda p: p[0],
)  # fmt: skip
def run(request, tmp_path_factory, tokenizer_folder):
    return make_run(tmp_path_factory.mktemp("harness") / "run", tokenizer_folder, *request.param)


@pytest.fixture(scope="module")
def lm(run):
    return blankfill.load(run)


def by_one_pass(lm, mode, context, continuation):
    encode, ids = lm.tokenizer.encode, lm.ids
    bare = context.rstrip(" ")
    tokens = encode(context[len(bare) :] + continuation).tolist()
    read = encode(bare).tolist()
    if mode == "unidirectional":
        values = known_by_one_pass(lm, np.array([ids.gmask]), [read + tokens], ends=False)
        return math.fsum(values[len(read) :])
    mask = ids.mask if mode == "mask" and read else ids.gmask
    return math.fsum(known_by_one_pass(lm, np.array([*read, mask]), [tokens], ends=False))


@pytest.mark.parametrize("mode", MODES)
def test_likelihoods_are_those_of_one_pass_over_everything_in_any_batch(harness, lm, mode):
    model = harness.HarnessModel(lm, mode=mode)
    together = model.loglikelihood(requests(*CONTEXTS))
    for arguments, (value, _) in zip(CONTEXTS, together, strict=True):
        assert value == pytest.approx(by_one_pass(lm, mode, *arguments), abs=1e-5)
        ((alone, _),) = model.loglikelihood(requests(arguments))
        assert alone == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_greedy_is_what_the_model_would_write(harness, lm, mode):
    model = harness.HarnessModel(lm, mode=mode)
    (written,) = model.generate_until(requests(("the old", {"until": [], "max_gen_toks": 3})))
    tokens = lm.tokenizer.encode(written).tolist()
    if tokens and lm.tokenizer.decode(tokens) == written:
        best = by_one_pass(lm, mode, "the old", written)
        others = [by_one_pass(lm, mode, "the old", lm.tokenizer.decode([t])) for t in (300, 301)]
        (value, greedy), (_, other) = model.loglikelihood(
            requests(("the old", written), ("the old", " sells town"))
        )
        assert value == pytest.approx(best, abs=1e-5)
        assert greedy or max(others) > best
        assert not other or written == " sells town"


OWN = {"bidirectional": "bidirectional", "unidirectional": "one-way", "mask": "bidirectional"}


@pytest.mark.parametrize("mode", MODES)
def test_rolling_scores_each_token_once_in_the_mode(harness, lm, mode):
    model = harness.HarnessModel(lm, mode=mode)
    texts = ["the old fox reads the books. " * 10, "\u4eba\u5c71", ""]
    found = model.loglikelihood_rolling(requests(*((text,) for text in texts)))
    assert found[:2] == [lm.score(text, mode=OWN[mode]).logprob for text in texts[:2]]
    assert found[2] == 0


def test_answers_end_before_the_first_stop_and_each_has_its_own_options(harness, lm):
    model = harness.HarnessModel(lm)
    whole, short, stopped = model.generate_until(requests(
        ("the old", {"until": [], "max_gen_toks": 6}), ("the old", {"max_gen_toks": 2}),
        ("the old", {"until": "", "max_gen_toks": 6}),
    ))  # fmt: skip
    assert whole == lm.generate("the old", max_new_tokens=6).blanks[0].text == stopped
    assert whole.startswith(short)
    if len(whole) > 3:
        (cut,) = model.generate_until(
            requests(("the old", {"until": [whole[2:3], "zzz"], "max_gen_toks": 6}))
        )
        assert cut == whole[: whole.find(whole[2:3])]
    drawn = {"do_sample": True, "temperature": 0.7, "max_gen_toks": 4}
    assert len(model.generate_until(requests(("a", drawn), ("b", drawn)))) == 2


def test_long_contexts_lose_their_beginning_and_long_continuations_are_refused(harness, lm):
    model = harness.HarnessModel(lm)
    long = "the fox " * 300 + "the old"
    ((value, _),) = model.loglikelihood(requests((long, " fox")))
    kept = lm.tokenizer.encode(long).tolist()[-(lm.row_length - 3) :]
    exact = known_by_one_pass(
        lm, np.array([*kept, lm.ids.gmask]), [lm.tokenizer.encode(" fox").tolist()], ends=False
    )
    assert value == pytest.approx(math.fsum(exact), abs=1e-4)
    with pytest.raises(RequestError, match="too many for rows of 128"):
        model.loglikelihood(requests(("a", long)))
    with pytest.raises(RequestError, match="no token"):
        model.loglikelihood(requests(("a", "")))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        pytest.fail("the network was asked for something")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


NAMES = ("sst2", "superglue_copa", "fewclue_chid", "blimp", "zhoblimp", "cloth", "fewclue_tnews")


@pytest.mark.filterwarnings("ignore")  # the harness's own
@pytest.mark.parametrize("mode", ["bidirectional", "unidirectional"])
def test_a_run_has_the_same_score_through_evaluate_and_through_the_harness(
    harness, run, tmp_path, mode, no_network, capsys
):
    files = [str(write_items(tmp_path, name)) for name in (*NAMES, "wikitext2")]
    own = api.evaluate(run, tasks=files, protocol=mode).tasks[0].scores
    found = api.evaluate(run, harness=files, harness_mode=mode).harness
    values = {score.task: score for score in found if score.metric in ("acc", "bits_per_byte")}
    for score in own:
        other = values[f"blankfill_{score.task}"]
        assert other.value == pytest.approx(score.score.value, abs=1e-9)
        assert other.num_items == score.num_items
        assert other.mode == mode
    command = ["evaluate", str(run), "--harness", files[0], "--harness-mode", mode, "--json"]
    capsys.readouterr()
    assert main(command) == 0
    (first, *_) = json.loads(capsys.readouterr().out)["harness"]
    assert (first["task"], first["mode"]) == ("blankfill_sst2", mode)


@pytest.mark.filterwarnings("ignore")
def test_simple_evaluate_takes_the_model_and_its_results_name_the_mode(
    harness, run, tmp_path, no_network, monkeypatch
):
    import datasets
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    items = tmp_path / "items.jsonl"
    items.write_text('{"q": "the old", "c": [" fox", " dog"], "a": 1}\n')
    (tmp_path / "mine.yaml").write_text(json.dumps({
        "task": "mine", "dataset_path": "json", "test_split": "test", "doc_to_text": "q",
        "dataset_kwargs": {"data_files": {"test": str(items)}, "cache_dir": str(tmp_path / "c")},
        "output_type": "multiple_choice", "doc_to_choice": "c", "doc_to_target": "a",
        "target_delimiter": "", "metric_list": [{"metric": "acc", "aggregation": "mean",
                                                 "higher_is_better": True}],
    }))  # fmt: skip
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    model = harness.HarnessModel(blankfill.load(run), mode="mask")
    found = lm_eval.simple_evaluate(model=model, tasks=["mine"], task_manager=manager)
    assert found["config"]["blankfill_mode"] == "mask"
    assert found["results"]["mine"]["acc,none"] in (0, 1)


def never_loaded(monkeypatch):
    monkeypatch.setattr(
        "blankfill.generate.LanguageModel.load", lambda *_1, **_2: pytest.fail("loaded")
    )


@pytest.mark.parametrize(("words", "said"), [
    (["no-such-task"], "knows no task of this name"), (["no.yaml"], "there is no file no.yaml"),
])  # fmt: skip
def test_a_task_that_is_not_there_is_said_before_a_model_is_loaded(
    harness, run, words, said, capsys, monkeypatch
):
    never_loaded(monkeypatch)
    assert main(["evaluate", str(run), "--harness", *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_harness_that_is_not_installed_is_said_before_a_model_is_loaded(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    never_loaded(monkeypatch)
    path = str(write_items(tmp_path, "sst2"))
    assert main(["evaluate", str(run), "--harness", path]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()[-1:]
    assert "pip install 'blankfill[eval]'" in sentence
