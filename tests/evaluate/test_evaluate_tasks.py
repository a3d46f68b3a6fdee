"""`blankfill evaluate --tasks`, `--compare` and `--seen`: what is recorded, printed and refused."""

import dataclasses
import json
import shutil

import pytest

from blankfill import api
from blankfill.cli.main import main
from blankfill.errors import CheckpointError
from blankfill.runs.tasks import TaskAnswers, TaskRecord, read_tasks, write_tasks
from conftest import small_corpus
from interop.runs import make_run
from task_items import ITEMS, write_items

LABELS = [{"sentence": f"the {k} fox reads", "label": k % 2} for k in range(20)]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer_folder):
    """A run and files of items."""
    folder = tmp_path_factory.mktemp("evaluate tasks")
    make_run(folder / "run", tokenizer_folder)
    for name in ITEMS:
        write_items(folder / "items", name, LABELS if name == "sst2" else None)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """The same in a place that a test may change."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def test_all_tasks_are_asked_recorded_and_printed(folder, capsys):
    words = ["evaluate", str(folder / "run"), "--tasks", str(folder / "items")]
    assert main([*words, "--protocol", "glm-130b"]) == 0
    told = capsys.readouterr()
    for name in ITEMS:
        assert name in told.out
    for said in ("protocol glm-130b", "\u00b1", "95 % interval", "random", "majority", "passages"):
        assert said in told.out
    record = read_tasks(folder / "run")
    metrics = {(each.score.task, each.score.metric) for each in record.tasks}
    assert len(metrics) == len(record.tasks) == len(ITEMS) + 3  # three have an F1 beside
    for each in record.tasks:
        score = each.score
        assert score.num_items == len(each.values) == len(set(each.numbers))
        assert score.num_clusters == len(set(each.clusters))
        assert score.protocol == "glm-130b"
        if score.metric == "accuracy":
            assert 0 < score.random <= 0.5
            assert score.score.value == pytest.approx(sum(each.values) / len(each.values))
    by_name = {each.score.task: each.score for each in record.tasks}
    assert by_name["sst2"].majority == 0.5
    assert by_name["blimp"].majority is None
    assert by_name["cloth"].num_clusters == 1
    assert by_name["cloth"].score.standard_error is None
    # Asked again under another protocol, both stand; under the same, the last.
    assert main([*words[:3], str(folder / "items" / "sst2.jsonl"), "--json"]) == 0
    (score,) = json.loads(capsys.readouterr().out)["tasks"][0]["scores"]
    assert (score["task"], score["protocol"]) == ("sst2", "cloze")
    assert len(read_tasks(folder / "run").tasks) == len(record.tasks) + 1
    assert main([*words[:3], str(folder / "items" / "sst2.jsonl"), "--max-items", "6"]) == 0
    again = read_tasks(folder / "run")
    assert len(again.tasks) == len(record.tasks) + 1
    assert again.tasks[-1].score.num_items == 6


def test_tasks_by_name_and_held_out_text_go_together(folder, tokenizer_folder, capsys):
    lines = [json.dumps({"text": text}) for text in small_corpus(20, 7)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    api.data_build(folder / "text.jsonl", tokenizer=tokenizer_folder, out=folder / "store")
    result = api.evaluate(
        folder / "run", data=folder / "store", tasks="sst2", items=folder / "items", max_blanks=2,
        baselines=False, shots=2,
    )  # fmt: skip
    assert len(result.runs) == len(result.tasks) == 1
    assert result.tasks[0].scores[0].shots == 2
    assert api.evaluate(folder / "run", data=folder / "store", max_blanks=2).tasks == []


def test_a_bad_item_among_good_ones_is_named_counted_and_left_out(folder, capsys):
    path = write_items(
        folder / "bad", "sst2",
        [*LABELS, {"sentence": "so"}, {"sentence": "a", "label": 9}, {"sentence": "", "label": 1},
         {"sentence": "b", "label": 5}],
    )  # fmt: skip
    assert main(["evaluate", str(folder / "run"), "--tasks", str(path)]) == 0
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert "3 items are left out: line 21: it has no field 'label'; line 22" in text
    (answers,) = read_tasks(folder / "run").tasks
    assert (answers.score.num_items, answers.score.num_bad) == (21, 3)


def refused(words, capsys, monkeypatch):
    monkeypatch.setattr(
        "blankfill.generate.LanguageModel.load", lambda *_1, **_2: pytest.fail("loaded")
    )
    assert main(["evaluate", *map(str, words)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()[-1:]
    assert sentence.startswith("blankfill: ")
    return sentence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--tasks", "sst2"], "--items"),
        (["run", "--tasks", "sst9"], "is sst2 meant"),
        (["run", "--tasks", "sst2", "--items", "nowhere"], "no folder nowhere"),
        (["run", "--tasks", "run"], "holds no file of a task"),
        (["run", "--tasks", "run/run.json"], "holds no item: line 1: it is not JSON"),
        (["run", "--tasks", "one.jsonl"], "not those of GLM-130B's"),
        (["run", "--tasks", "bad/sst2.jsonl"], "have the same answer"),
        (["run", "--tasks", "fields/sst2.jsonl"], "no field 'sentence'"),
        (["run", "--tasks", "empty/sst2.jsonl"], "no item of it can be asked"),
        (["run", "--tasks", "long/fewclue_chid.jsonl"], "too many for rows of 128 positions"),
        (["run", "--tasks", "items/sst2.jsonl", "--protocol", "cloce"], "--protocol"),
        (["run", "--tasks", "items/sst2.jsonl", "--max-items", "0"], "max_items"),
        (["run", "--tasks", "items/sst2.jsonl", "--shots", "-1"], "shots"),
        (["run", "--tasks", "items/sst2.jsonl", "--seen", "nowhere"], "no token store"),
        (["run", "nowhere", "--tasks", "items/sst2.jsonl"], "nowhere"),
        (["run"], "--data"),
        (["--compare", "run"], "two are compared"),
        (["--compare", "run", "nowhere"], "no such folder"),
        (["run", "--tasks", "items", "--compare", "run", "nowhere"], "no such folder"),
        (["--compare", "run", "items"], "no run in it has"),
    ],
)
def test_what_cannot_be_asked_is_said_before_a_model_is_loaded(
    folder, capsys, monkeypatch, words, said
):
    monkeypatch.chdir(folder)
    write_items(folder, "one", [{"inputs": [1, 2]}])
    write_items(folder / "bad", "sst2", LABELS[::2])
    write_items(folder / "fields", "sst2", [{"text": "a"}] * 3)
    write_items(folder / "empty", "sst2", [])
    write_items(folder / "long", "fewclue_chid",
                [{**ITEMS["fewclue_chid"][0], "candidates": ["a", "fox " * 900]}])  # fmt: skip
    record = TaskRecord(tasks=())
    write_tasks(folder / "run", record)
    sentence = refused(words, capsys, monkeypatch)
    assert said in sentence
    assert read_tasks(folder / "run") == record


def test_a_foreign_tasks_json_is_refused_and_kept(folder, capsys, monkeypatch):
    path = folder / "run" / "tasks.json"
    for text in ("{}", '{"format": "another", "version": 1}', "[", '{"version": 1, "tasks": [1]}'):
        path.write_text(text)
        words = [folder / "run", "--tasks", folder / "items" / "sst2.jsonl"]
        assert "tasks.json is not what" in refused(words, capsys, monkeypatch)
        assert path.read_text() == text


def answered(folder, name, values, **changes):
    """A run's folder with made-up answers to sst2."""
    (folder / name).mkdir(parents=True)
    one = read_tasks(folder / "run").tasks[0]
    score = dataclasses.replace(one.score, **changes)
    answers = TaskAnswers(
        score=score, fingerprint=one.fingerprint, step=1, weights="last",
        numbers=tuple(range(len(values))), values=tuple(map(float, values)),
        clusters=tuple(range(len(values))),
    )  # fmt: skip
    write_tasks(folder / name, TaskRecord(tasks=(answers,)))
    return folder / name


@pytest.fixture
def asked(folder):
    api.evaluate(folder / "run", tasks=folder / "items" / "sst2.jsonl")
    return folder


def test_two_runs_are_compared_item_by_item(asked, capsys):
    better = answered(asked, "better", [1] * 16 + [0] * 4)
    worse = answered(asked, "worse", [0] * 12 + [1] * 6)
    assert main(["evaluate", "--compare", str(better), str(worse)]) == 0
    told = capsys.readouterr().out
    for said in ("exact McNemar", "+55.6 %", "p, Holm", "2 items are left out"):
        assert said in told
    (one,) = api.evaluate(compare=[better, worse]).comparison
    assert (one.difference.num_items, one.num_left_out, one.num_seeds) == (18, 2, (1, 1))
    assert one.difference.p == one.p_holm == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    result = api.evaluate(asked / "run", tasks=asked / "items" / "sst2.jsonl",
                          compare=[asked / "run", worse])  # fmt: skip
    assert len(result.tasks) == len(result.comparison) == 1


def test_seeds_of_a_run_count_as_one(asked, capsys):
    for seed in range(3):
        answered(asked, f"first/{seed}", [(k + seed) % 3 != 0 for k in range(20)])
        answered(asked, f"second/{seed}", [(k * (seed + 1)) % 2 for k in range(20)])
    words = ["evaluate", "--compare", str(asked / "first"), str(asked / "second")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "3 and 3 seeds" in told
    assert "standard deviation over seeds" in told
    (one,) = api.evaluate(compare=[asked / "first", asked / "second"]).comparison
    assert one.difference.test == "paired cluster bootstrap"
    assert one.difference.first == pytest.approx(
        sum((k + seed) % 3 != 0 for k in range(20) for seed in range(3)) / 60
    )
    assert one.num_seeds == (3, 3)


def test_runs_that_were_asked_other_things_are_not_compared(asked):
    own = asked / "run"
    other = answered(asked, "other", [1] * 20, protocol="glm-130b")
    with pytest.raises(CheckpointError, match="no task alike"):
        api.evaluate(compare=[own, other])
    changed = answered(asked, "changed", [1] * 20)
    (one,) = read_tasks(changed).tasks
    write_tasks(changed, TaskRecord(tasks=(dataclasses.replace(one, fingerprint="x"),)))
    with pytest.raises(CheckpointError, match="the files differ"):
        api.evaluate(compare=[own, changed])
    write_tasks(changed, TaskRecord(tasks=(dataclasses.replace(one, numbers=(99,) * 20),)))
    with pytest.raises(CheckpointError, match="no item of sst2 alike"):
        api.evaluate(compare=[own, changed])
    write_tasks(changed, TaskRecord(tasks=(dataclasses.replace(one, numbers=(1,)),)))
    with pytest.raises(CheckpointError, match="not as many answers"):
        api.evaluate(compare=[own, changed])


def test_items_that_a_store_has_seen_are_counted_and_scored_apart(folder, tokenizer_folder, capsys):
    words = "river stone fox bread market lantern winter garden sleeps walks behind before tall"
    items = [{"sentence": f"{words} {k}", "label": k % 2} for k in range(6)]
    items += [{"sentence": " ".join(reversed(words.split())), "label": k % 2} for k in range(4)]
    items += [{"sentence": "short", "label": 1}]
    path = write_items(folder / "seen", "sst2", items)
    (folder / "text.txt").write_text(f"It was: {words.upper()}, and so on.")
    api.data_build(folder / "text.txt", tokenizer=tokenizer_folder, out=folder / "store")
    command = ["evaluate", str(folder / "run"), "--tasks", str(path), "--seen"]
    assert main([*command, str(folder / "store")]) == 0
    told = capsys.readouterr().out
    assert "seen" in told
    assert "without" in told
    (answers,) = read_tasks(folder / "run").tasks
    seen = answers.score.seen
    assert (seen.num_seen, seen.num_short) == (6, 1)
    assert seen.without.value == pytest.approx(sum(answers.values[6:]) / 5)
