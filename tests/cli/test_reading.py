"""From words to values: the rules of every command line."""

import functools
import itertools
import json

import pytest

from blankfill.cli import main as module
from blankfill.cli.main import VERBS, main
from blankfill.cli.reading import read
from blankfill.cli.signature import parameters_of
from blankfill.config.run import RunConfig, to_dict
from blankfill.errors import ConfigError

COMMANDS = {verb: module._load("blankfill.api", where.function) for verb, where in VERBS.items()}
LISTS = [
    (verb, option)
    for verb, command in COMMANDS.items()
    for option in parameters_of(command)[1]
    if option.takes == "many"
]


def reading(verb, *words):
    return read(verb, COMMANDS[verb], words)


@pytest.fixture
def called(monkeypatch):
    """What `main` calls the function of a verb with, which is not called."""
    calls = []
    load = module._load

    def stub(package, path):
        if package == "blankfill.cli":
            return lambda result, console: None
        function = load(package, path)

        return functools.wraps(function)(lambda *a, **options: calls.append((a, options)))

    monkeypatch.setattr(module, "_load", stub)
    return calls


PARTS = (["--out", "tiny"], ["base"], ["--data", "small"], ["--train.steps=7"], ["--quiet"])


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(PARTS)))))
def test_the_preset_is_found_in_any_order_or_refused(order, called, capsys):
    words = list(itertools.chain(*(PARTS[i] for i in order)))
    after_data = [PARTS[i] for i in order][order.index(2) + 1 :]
    code = main(["pretrain", *words])
    if after_data[:1] == [["base"]] and len(after_data) > 1:
        assert code == 2
        assert "--data takes every word up to the next option" in capsys.readouterr().err
        return
    assert code == 0
    ((arguments, options),) = called
    assert arguments == ("base",)
    assert (options["out"], options["data"]) == ("tiny", ("small",))
    assert (options["config"].model.hidden_size, options["config"].train.steps) == (768, 7)


@pytest.mark.parametrize(("verb", "option"), LISTS, ids=lambda v: getattr(v, "spelled", v))
def test_a_list_that_is_given_again_adds_up(verb, option):
    name, under = option.spelled, "--" + option.spelled[2:].replace("-", "_")
    required = len([p for p in parameters_of(COMMANDS[verb])[0] if p.required])
    first = ["x"] * required
    others = [
        word
        for other in parameters_of(COMMANDS[verb])[1]
        if other.required and other.name != option.name
        for word in (other.spelled, "y")
    ]
    for words in (
        [name, "a", "b", "c"], [name, "a", name, "b", name, "c"], [f"{name}=a", "b", f"{under}=c"],
        [name, "a", "b", under, "c"],
    ):  # fmt: skip
        assert reading(verb, *first, *words, *others).options[option.name] == ("a", "b", "c")


def test_there_are_lists_to_try():
    assert {(verb, option.name) for verb, option in LISTS} == {
        ("explain", "spans"), ("pretrain", "data"), ("pretrain", "validation"),
        ("pretrain", "allow_change"), ("pretrain", "replay"), ("pretrain", "objective.by_source"),
        ("pretrain", "train.skip_steps"), ("evaluate", "data"),
    }  # fmt: skip


def test_a_list_at_the_end_leaves_the_arguments_that_are_needed():
    assert reading("evaluate", "--data", "a", "b", "run").arguments == ["run"]
    assert reading("evaluate", "--data", "a", "b", "--", "run").options["data"] == ("a", "b")
    assert reading("evaluate", "run", "--data", "a", "b").options["data"] == ("a", "b")


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--", "--json"], ("--json",)),
        (["--", "-x", "--quiet", "--", "--max-new-tokens"], ("-x", "--quiet", "--",
                                                             "--max-new-tokens")),
        (["-5 degrees", "- item", "-", "-1", "-.5", "-inf"], ("-5 degrees", "- item", "-", "-1",
                                                              "-.5", "-inf")),
        (["", " "], ("", " ")),
        (["--seed", "3", "a"], ("a",)),
        (["a", "--seed=3", "b"], ("a", "b")),
        (["-say [MASK]", "[MASK] --json"], ("-say [MASK]", "[MASK] --json")),
    ],
)  # fmt: skip
def test_what_no_option_can_be_is_text(words, texts):
    assert reading("fill", "run", *words).arguments == ["run", texts]


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("fill", ["r", "--seed", "1", "--seed", "2", "t"], "--seed is given twice"),
        ("pretrain", ["tiny", "--resume", "--no-resume"], "--resume is given twice"),
        ("fill", ["r", "t", "--seed"], "--seed lacks its value"),
        ("fill", ["r", "t", "--seed", "--json"], "--seed lacks its value"),
        ("evaluate", ["r", "--data"], "--data lacks its value"),
        ("evaluate", ["r", "--data", "--json"], "--data lacks its value"),
        ("fill", ["r", "t", "--json=yes"], "--json takes no value"),
        ("pretrain", ["tiny", "--resume=yes"], "--resume takes no value"),
        ("fill", ["r", "t", "--max-new-token", "3"], "did you mean --max-new-tokens?"),
        ("pretrain", ["tiny", "--train.peak-lr", "3"], "did you mean --schedule.peak-lr?"),
        ("pretrain", ["tiny", "--steps", "3"], "did you mean --train.steps?"),
        ("pretrain", ["tiny", "--train.minutes", "3"], "did you mean --minutes?"),
        ("fill", ["r", "-hello"], "-- before a text"),
        ("info", ["a", "b"], "no place for the argument 'b'"),
        ("info", [], "info lacks PATH"),
        ("fill", ["r"], "fill lacks TEXTS"),
        ("pretrain", ["tiny"], "pretrain lacks --data, --out"),
        ("pretrain", ["tiny", "--out", "", "--data", "x"], "--out is empty"),
        ("fill", ["", "t"], "RUN is empty"),
        ("fill", ["r", "t", "--seed", "x"], "--seed 'x' is not a whole number"),
        ("fill", ["r", "t", "--seed", ""], "--seed '' is not a whole number"),
        ("fill", ["r", "t", "--top-p", "9" * 9 + "x"], "is not a number"),
        ("fill", ["r", "t", "--device", "tpu"], "is not one of: auto, cpu, cuda"),
        ("explain", ["t", "--lang", "\udcd6"], "'\\udcd6' is not one of"),
    ],
)
def test_a_mistake_is_a_sentence_that_names_the_word(verb, words, message):
    with pytest.raises(ConfigError) as caught:
        reading(verb, *words)
    assert message in str(caught.value)


def test_every_field_of_a_configuration_is_an_option():
    options = {option.name: option for option in parameters_of(COMMANDS["pretrain"])[1]}
    for section, fields in to_dict(RunConfig()).items():
        for field, default in fields.items():
            option = options[f"{section}.{field}"]
            assert option.spelled == f"--{section}.{field.replace('_', '-')}"
            assert (option.takes == "none") == isinstance(default, bool)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_lists_the_options_that_are_read(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*verb.split(), "--help"]) == 0
    shown = set(capsys.readouterr().out.replace(",", " ").split())
    arguments, options = parameters_of(COMMANDS[verb])
    assert {option.spelled for option in options} <= shown
    assert all(any(argument.spelled in word for word in shown) for argument in arguments)


def test_the_help_of_a_preset_shows_its_values(capsys):
    assert main(["pretrain", "--out", "r", "base", "--help"]) == 0
    assert "768" in capsys.readouterr().out


def test_flags_of_every_verb_may_stand_before_it(capsys):
    assert main(["--json", "--quiet", "info", "tiny"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "preset"


def test_a_folder_with_the_name_of_a_preset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert main(["info", "tiny"]) == 0
    told = capsys.readouterr()
    assert "preset tiny" in told.out
    assert "the folder of that name" in told.err
    assert main(["info", "./tiny"]) == 2
    assert "./tiny is not a tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["30%", "x", "-1", "1.5.2", ""])
def test_a_share_that_is_no_number_is_shown_how(share, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    words = ["pretrain", "tiny", "--data", f"store:{share}", "--out", "r"]
    assert main(words) == 2
    assert "store:0.3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "pretrain tiny --data README.md --out r", "data info README.md", "explain --data README.md",
        "tokenizer encode README.md x", "explain x --tokenizer README.md",
    ],
)  # fmt: skip
def test_a_file_in_the_place_of_a_folder_is_called_a_file(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("# Data\n")
    assert main(command.split()) == 2
    assert "README.md is a file, and a" in capsys.readouterr().err
