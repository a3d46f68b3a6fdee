"""Tasks: what their items become, which are told to be bad, and that every one has its wording."""

import json

import pytest

from blankfill.errors import ConfigError, DataError
from blankfill.evaluate.catalogue import TASKS
from blankfill.evaluate.protocol import PROTOCOLS
from blankfill.evaluate.task_files import find_task_files, read_task
from shared import shared_path
from task_items import ITEMS, write_items

CLOZE, ENGLISH = PROTOCOLS["cloze"], PROTOCOLS["glm-130b"]


def asked(folder, name, protocol=CLOZE, items=None, **options):
    ((task, path),) = find_task_files([str(write_items(folder, name, items))], None)
    return read_task(task, path, protocol, **options)


def test_every_task_has_items_here():
    assert ITEMS.keys() == TASKS.keys()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize("name", TASKS)
def test_every_item_of_every_task_can_be_asked(tmp_path, name, protocol):
    found = asked(tmp_path, name, protocol)
    assert found.bad == ()
    assert found.questions
    assert found.numbers == tuple(sorted(set(found.numbers)))
    for question, texts in zip(found.questions, found.texts, strict=True):
        assert all(texts)
        if found.task.metric == "accuracy":
            assert 0 <= question.answer < len(question.candidates)
        else:
            assert question.candidates == ()
            assert question.before
            assert bool(question.answers) == (found.task.metric != "bits per byte")
        assert "{" not in question.before + question.after
        if protocol.is_english and found.task.language == "zh" and found.task.labels:
            assert all(map(str.isascii, question.candidates))


def questions(found):
    return [(q.before, q.candidates, q.after, q.answer) for q in found.questions]


EXPECTED = {
    "sst2": ("dull It was", (" terrible", " great"), ".", 0),
    "cloth": ("The", (" dog", " fox", " cow", " cat"), " ran to the river .", 1),
    "gaokao_english_fill_in_blanks": (
        "It was a", (" red", " busy", " low", " odd"), " day and the fox ran home.", 1
    ),
    "superglue_copa": (
        "The man opened the tap so", (" the sky fell", " water flowed"), ".", 1
    ),
    "superglue_boolq": (
        "Foxes sleep. Question: do foxes sleep? Answer:", (" no", " yes"), ".", 1
    ),
    "fewclue_chid": (
        "\u5927", ("\u98ce\u548c\u65e5\u4e3d", "\u4e09\u5fc3\u4e8c\u610f"), "\u5c0f", 1
    ),
    "cmrc2019": ("\u72d0\u72f8", ("\u8dd1\u4e86", "\u98de\u4e86", "\u5403\u9c7c"),
                 "\uff0c\u8dd1\u4e86\u3002", 2),
    "cft": ("\u72d0\u72f8\u5403\u9c7c\u3002\u72d0\u72f8\u8dd1\u4e86\u3002\n",
            ("\u72d0\u72f8", "\u5403", "\u9c7c", "\u8dd1", "\u4e86"), "\u6e38\u4e86\u3002", 2),
    "cmrc2017_cloze": ("\u72d0\u72f8\u5403\u9c7c\u3002\u72d0\u72f8",
                       ("\u72d0\u72f8", "\u5403", "\u9c7c", "\u4e86", "\u5b83", "\u8dd1"),
                       "\u4e86\u3002\u5b83\u8dd1", 5),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_the_first_item_is_put_in_these_words(tmp_path, name):
    assert questions(asked(tmp_path, name))[0] == EXPECTED[name]


def test_other_blanks_of_a_passage_are_filled_with_their_right_words(tmp_path):
    second = questions(asked(tmp_path, "cloth"))[1]
    assert second == ("The fox ran to the", (" river", " town", " sea", " moon"), " .", 0)


def test_items_of_one_passage_are_one_cluster_and_paradigms_are(tmp_path):
    assert len({q.cluster for q in asked(tmp_path, "cloth").questions}) == 1
    assert {q.cluster for q in asked(tmp_path, "blimp").questions} == {"island"}


def test_a_saying_stands_among_others_and_always_the_same(tmp_path):
    first, again = (questions(asked(tmp_path, "xiehouyu")) for _ in range(2))
    assert first == again
    for _, candidates, _, answer in first:
        assert len(set(candidates)) == len(candidates) == 4
        assert "\uff1b" not in candidates[answer]
    assert len({answer for *_, answer in first}) > 1


def test_examples_are_not_asked_and_stand_before_the_items(tmp_path):
    found = asked(tmp_path, "superglue_boolq", shots=1)
    assert len(found.questions) == 2
    assert set(found.examples) == {("A Question: is it? Answer: yes.",)}
    assert asked(tmp_path, "superglue_boolq").examples == ()
    many = asked(tmp_path, "sst2", PROTOCOLS["few-shot"], items=[
        {"sentence": f"number {k}", "label": k % 2} for k in range(40)
    ])  # fmt: skip
    for question, examples in zip(many.questions, many.examples, strict=True):
        assert len(set(examples)) == 4
        assert not any(example.startswith(question.before) for example in examples)


def test_fewer_items_are_drawn_with_their_whole_passages_and_in_order(tmp_path):
    items = [{**ITEMS["cloth"][0], "article": f"The {k} _ ran to the _ ."} for k in range(30)]
    whole, some = asked(tmp_path, "cloth", items=items), asked(
        tmp_path, "cloth", items=items, max_items=7
    )  # fmt: skip
    assert len(some.questions) == 14
    assert list(some.numbers) == sorted(some.numbers)
    assert {whole.numbers.index(n) for n in some.numbers} <= set(range(60))
    for question, number in zip(some.questions, some.numbers, strict=True):
        assert question == whole.questions[whole.numbers.index(number)]


GOOD = [{"sentence": "fine", "label": 1}, {"sentence": "dull", "label": 0}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"sentence": "so"}, "no field 'label'"),
        ({"label": 1}, "no field 'sentence'"),
        ({"sentence": ["so"], "label": 1}, "'sentence' is no text"),
        ({"sentence": "so", "label": 7}, "answer 7 is none of 0, 1"),
        ({"sentence": "so \ud800", "label": 1}, "not valid Unicode"),
        ("a text", "no JSON object"),
        ([1], "no JSON object"),
    ],
)
def test_a_bad_item_among_good_ones_is_named_and_the_others_are_asked(tmp_path, line, said):
    path = write_items(tmp_path, "sst2", [GOOD[0], line, GOOD[1]])
    found = read_task(TASKS["sst2"], path, CLOZE)
    assert len(found.questions) == 2
    (reason,) = found.bad
    assert reason.startswith("line 2: ")
    assert said in reason


def test_a_line_that_is_cut_off_is_named(tmp_path):
    path = write_items(tmp_path, "sst2", GOOD)
    path.write_bytes(path.read_bytes() + b'{"sentence": "so')
    assert read_task(TASKS["sst2"], path, CLOZE).bad == ("line 3: it is not JSON",)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "no item of it can be asked"),
        ([{"text": "so"}], "no field 'sentence'"),
        ([{"sentence": "so", "label": "7"}], "none of 0, 1"),
        ([{"sentence": "so", "label": 1}] * 2, "have the same answer"),
    ],
)
def test_a_file_of_which_nothing_can_be_learnt_is_refused(tmp_path, items, said):
    with pytest.raises(DataError, match=said):
        read_task(TASKS["sst2"], write_items(tmp_path, "sst2", items), CLOZE)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("cloth", {"answers": ["B", "E"]}, "letter of no option"),
        ("cloth", {"article": "The _ ran."}, "1 blanks, 2 lists"),
        ("gaokao_english_fill_in_blanks", {"answer": ["A"]}, "2 lists of options"),
        ("c3", {"questions": [{"question": "?", "choice": ["a", "b"], "answer": "c"}]},
         "not among its 2"),
        ("cmrc2019", {"answers": [2, 9]}, "none of its choices"),
        ("cmrc2019", {"answers": [2]}, "not numbered"),
        ("cft", {"answer": "\u6708"}, "not among its 5"),
        ("fewclue_chid", {"content": "\u5927"}, "not one #idiom#"),
        ("superglue_copa", {"question": "why"}, "neither cause nor effect"),
        ("fewclue_csl", {"keyword": []}, "no list in its field 'keyword'"),
        ("xquad_en", {"qas": [1]}, "something else than questions"),
        ("fewclue_cluewsc", {"target": 3}, "no field 'target'"),
        ("blimp", {"sentence_bad": ITEMS["blimp"][0]["sentence_good"]}, "no two different"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_item_is_said(tmp_path, name, change, said):
    wrong = {**ITEMS[name][0], **change}
    found = asked(tmp_path, name, items=[*ITEMS[name], wrong])
    assert any(said in reason for reason in found.bad)
    assert found.questions == asked(tmp_path, name).questions


def test_tasks_are_found_by_name_by_file_and_in_folders(tmp_path):
    for language in ("en", "zh"):
        for name, task in TASKS.items():
            if task.language == language:
                write_items(tmp_path / language, name, packed=language == "zh")
    (tmp_path / "README.md").write_text("# no items")
    assert {task.name for task, _ in find_task_files([str(tmp_path)], None)} == {*TASKS}
    assert find_task_files(["sst2"], tmp_path)[0][1] == tmp_path / "en" / "sst2.jsonl"
    assert find_task_files(["c3"], tmp_path)[0][1] == tmp_path / "zh" / "c3.jsonl.gz"
    for words, said in [
        (["sst3"], "is sst2 meant"), (["no-such"], "no task of this name"),
        (["sst2", str(tmp_path / "en" / "sst2.jsonl")], "named twice"),
        ([str(tmp_path / "README.md")], "holds no item"),
    ]:  # fmt: skip
        with pytest.raises((ConfigError, DataError), match=said):
            find_task_files(words, tmp_path)
    with pytest.raises(ConfigError, match="--items"):
        find_task_files(["sst2"], None)
    with pytest.raises(ConfigError, match="holds no file lambada"):
        find_task_files(["lambada"], tmp_path / "zh")
    write_items(tmp_path / "zh", "sst2", packed=True)
    with pytest.raises(ConfigError, match="several files of sst2"):
        find_task_files(["sst2"], tmp_path)


def test_glm_130b_items_are_read_as_they_are(tmp_path):
    choices = [
        {"inputs_pretokenized": "The sky is [MASK] today.", "label": 1,
         "choices_pretokenized": ["red", "blue"]},
        {"inputs_pretokenized": "Is it so? ", "choices_pretokenized": ["no", "yes"], "label": 0},
        {"inputs_pretokenized": "Is it so?", "choices_pretokenized": ["no", "yes"], "label": 2},
        {"inputs_pretokenized": "[MASK] and [MASK]", "choices_pretokenized": ["no", "yes"],
         "label": 1},
    ]  # fmt: skip
    path = write_items(tmp_path, "my own", choices)
    ((task, found),) = find_task_files([str(path)], None)
    assert (task.name, found) == ("my own", path)
    read = read_task(task, path, ENGLISH)
    assert questions(read) == [
        ("The sky is", (" red", " blue"), " today.", 1), ("Is it so?", (" no", " yes"), "", 0),
    ]  # fmt: skip
    assert [reason.partition(": ")[0] for reason in read.bad] == ["line 3", "line 4"]
    written = [{"inputs_pretokenized": "Who? [gMASK]", "targets_pretokenized": ["a fox", "fox"]}]
    path = write_items(tmp_path, "written", written)
    ((task, _),) = find_task_files([str(path)], None)
    (question,) = read_task(task, path, ENGLISH).questions
    assert (question.before, question.answers) == ("Who?", ("a fox", "fox"))
    chinese = [
        {"inputs_pretokenized": "\u8c01\u8dd1\u4e86\uff1f", "targets_pretokenized": "\u72d0"}
    ]
    ((task, path),) = find_task_files([str(write_items(tmp_path, "zh", chinese))], None)
    assert task.language == "zh"
    assert read_task(task, path, CLOZE).questions[0].answers == ("\u72d0",)
    with pytest.raises(DataError, match="not those of GLM-130B's"):
        find_task_files([str(write_items(tmp_path, "other", [{"inputs": [1]}]))], None)


def test_all_real_files_are_read_and_almost_all_items_asked():
    folder = shared_path("data/eval")
    files = {task.name: (task, path) for task, path in find_task_files([str(folder)], None)}
    assert files.keys() == TASKS.keys()
    counts = {}
    for name in ("cloth", "cmrc2019", "superglue_copa", "fewclue_cluewsc", "xquad_zh", "c3",
                 "gaokao_english_fill_in_blanks", "fewclue_eprstmt", "sst2"):  # fmt: skip
        found = read_task(*files[name], CLOZE)
        counts[name] = (len(found.questions), len(found.bad))
    assert counts["superglue_copa"] == (100, 0)
    assert counts["sst2"] == (872, 0)
    assert counts["fewclue_eprstmt"] == (770, 0)
    assert all(bad <= 3 for _, bad in counts.values()), json.dumps(counts)
