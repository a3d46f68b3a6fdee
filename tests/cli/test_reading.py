"""From words to values: the rules of every command line."""

import functools
import itertools
import json
import typing

import pytest

from blankfill import __version__
from blankfill.cli import main as module
from blankfill.cli.main import VERBS, main
from blankfill.cli.reading import read
from blankfill.cli.signature import parameters_of
from blankfill.config.common import SHORT_NAMES
from blankfill.config.run import RunConfig, to_dict
from blankfill.errors import ConfigError

COMMANDS = {verb: module.load("blankfill.api", where.function) for verb, where in VERBS.items()}
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
    load = module.load

    def stub(package, path):
        if package == "blankfill.cli":
            return lambda result, console: None
        function = load(package, path)

        return functools.wraps(function)(lambda *a, **options: calls.append((a, options)))

    monkeypatch.setattr(module, "load", stub)
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
    assert options["changes"] == {"train.steps": 7}


@pytest.mark.parametrize(("verb", "option"), LISTS, ids=lambda v: getattr(v, "spelled", v))
def test_a_list_that_is_given_again_adds_up(verb, option):
    name, under = option.spelled, "--" + option.spelled[2:].replace("-", "_")
    required = len([p for p in parameters_of(COMMANDS[verb])[0] if p.required or p.unless])
    first = ["x"] * required
    others = [
        word
        for other in parameters_of(COMMANDS[verb])[1]
        if (other.required or other.unless) and other.name != option.name
        # Of what is no choice of words, one that is text, a path and a number.
        for word in (other.spelled, str((*typing.get_args(other.hint), "1")[0]))
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
        ("pretrain", "train.skip_steps"), ("plan", "train.skip_steps"), ("evaluate", "data"),
        ("fill", "files"), ("fill", "required"), ("fill", "forbidden"), ("fill", "allowed"),
        ("fill", "stop"), ("generate", "files"), ("generate", "stop"), ("quantize", "data"),
        ("probe", "order"),
        ("evaluate", "tasks"), ("evaluate", "seen"), ("evaluate", "compare"),
        ("evaluate", "harness"),
    }  # fmt: skip


def test_a_list_at_the_end_leaves_the_arguments_that_are_needed():
    assert reading("evaluate", "--data", "a", "b", "run").arguments == [("run",)]
    assert reading("evaluate", "--data", "a", "b", "--", "run").options["data"] == ("a", "b")
    assert reading("evaluate", "run", "--data", "a", "b").options["data"] == ("a", "b")


def test_a_list_that_stands_for_the_arguments_takes_all_words():
    found = reading("evaluate", "--compare", "a", "b")
    assert (found.arguments, found.options["compare"]) == ([], ("a", "b"))


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
        ("pretrain", ["tiny", "--no-resume=yes"], "--no-resume takes no value"),
        ("pretrain", ["tiny", "--resume="], "--resume is empty"),
        ("pretrain", ["--resume", "a", "--resume", "b"], "--resume is given twice"),
        ("pretrain", ["--config"], "--config lacks its value"),
        ("pretrain", ["--config", "a"], "pretrain lacks --out"),
        ("pretrain", [], "pretrain lacks PRESET"),
        ("fill", ["r", "t", "--max-new-token", "3"], "did you mean --max-new-tokens?"),
        ("pretrain", ["tiny", "--train.peak-lr", "3"], "did you mean --schedule.peak-lr?"),
        ("pretrain", ["tiny", "--micro-batch-rows", "3"], "did you mean --train.micro-batch-rows?"),
        ("pretrain", ["tiny", "--step", "3"], "did you mean --steps?"),
        ("pretrain", ["tiny", "--shcedule.peak-lr", "3"], "did you mean --schedule.peak-lr?"),
        ("pretrain", ["tiny", "--keep-bset"], "did you mean --checkpoint.keep-best?"),
        (
            "pretrain",
            ["tiny", "--steps", "3", "--train.steps", "4"],
            "--steps and --train.steps are the same option; give it once",
        ),
        (
            "pretrain",
            ["tiny", "--train.steps=3", "--steps=3"],
            "--train.steps and --steps are the same option",
        ),
        ("pretrain", ["tiny", "--lr", "1", "--lr", "1"], "--schedule.peak-lr is given twice"),
        ("pretrain", ["tiny", "--batch-rows"], "--batch-rows lacks its value"),
        ("fill", ["r", "--jsn", "t"], "did you mean --json?"),
        ("pretrain", ["tiny", "--train.minutes", "3"], "did you mean --minutes?"),
        ("fill", ["r", "-hello"], "-- before a text"),
        ("info", ["a", "b"], "no place for the argument 'b'"),
        ("info", [], "info lacks PATH"),
        ("fill", ["r"], "fill lacks TEXT..."),
        ("pretrain", ["tiny"], "pretrain lacks --data, --out"),
        ("pretrain", ["tiny", "--out", "", "--data", "x"], "--out is empty"),
        ("fill", ["", "t"], "RUN is empty"),
        ("fill", ["r", "t", "--seed", "x"], "--seed 'x' is not a whole number"),
        ("fill", ["r", "t", "--seed", ""], "--seed '' is not a whole number"),
        ("fill", ["r", "t", "--top-p", "9" * 9 + "x"], "is not a number"),
        ("fill", ["r", "t", "--device", "tpu"], "is not one of: auto, cpu, cuda"),
        ("fill", ["r", "t", "--device", "cdua"], "did you mean cuda? it is not one of"),
        ("explain", ["t", "--lang", "\udcd6"], "'\\udcd6': it is not one of"),
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


def page(capsys, *words):
    assert main([*words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("width", ["60", "80", "200"])
@pytest.mark.parametrize("verb", VERBS)
def test_the_help_lists_the_options_that_are_read(verb, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    short, every = (page(capsys, *verb.split(), way) for way in ("--help", "--help-all"))
    arguments, options = parameters_of(COMMANDS[verb])
    for shown, text in ((short, [o for o in options if o.common]), (every, options)):
        words = set(shown.replace(",", " ").split())
        assert {option.spelled for option in text} <= words
        assert {argument.spelled for argument in arguments} <= {w.strip("[]") for w in words}
    for line in short.splitlines():
        assert len(line) <= int(width), line


def test_the_help_shows_the_common_options_and_counts_the_rest(capsys):
    shown = page(capsys, "pretrain", "--help")
    assert "--steps, --train.steps INT" in shown
    assert "--lr, --schedule.peak-lr FLOAT" in shown
    assert "--model.norm-eps" not in shown
    options = parameters_of(COMMANDS["pretrain"])[1]
    hidden = sum(not option.common for option in options)
    assert 12 <= len(options) - hidden <= 24
    assert f"shows {hidden} more" in " ".join(shown.split())


def test_the_help_does_not_hide_behind_a_text(capsys):
    assert reading("fill", "run", "--", "--help-all").arguments == ["run", ("--help-all",)]


@pytest.mark.parametrize("short", SHORT_NAMES)
def test_a_short_name_is_its_field(short):
    words = ["tiny", "--data", "d", "--out", "r"]
    long = "--" + SHORT_NAMES[short].replace("_", "-")
    for name in (f"--{short}", f"--{short.replace('-', '_')}", long):
        assert reading("pretrain", *words, name, "1").options[SHORT_NAMES[short]] == 1
        assert reading("pretrain", *words, f"{name}=1").options[SHORT_NAMES[short]] == 1


def test_a_verbs_own_option_comes_before_a_short_name():
    assert reading("fill", "run", "text", "--seed", "3").options == {"seed": 3}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["pretrian"], "did you mean pretrain?"),
        (["Fill", "r"], "did you mean fill?"),
        (["data", "biuld"], "did you mean data build?"),
        (["tokenzier", "train"], "did you mean tokenizer train?"),
        (["eval", "r"], "did you mean evaluate?"),
        (["pretrain", "tinny", "--data", "x", "--out", "y"], "did you mean tiny?"),
        (["pretrain", "GLM-10b-zn", "--data", "x", "--out", "y"], "did you mean glm-10b-zh?"),
    ],
)
def test_the_closest_name_is_asked_for_first(words, meant, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert meant in said
    assert said.index(meant) < said.index("there are:")


def test_the_help_of_a_preset_shows_its_values(capsys):
    assert main(["pretrain", "--out", "r", "base", "--help"]) == 0
    assert "150000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--json", "--quiet", "info", "tiny"], ["--quiet", "info", "--json", "tiny"],
              ["info", "tiny", "--quiet", "--json"], ["--json", "--verbose", "info", "tiny"]]
)  # fmt: skip
def test_flags_of_every_verb_stand_before_or_after_it(words, capsys):
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "preset"


def test_quiet_and_verbose_contradict_each_other(capsys):
    assert main(["--quiet", "info", "tiny", "--verbose"]) == 2
    assert "--quiet and --verbose" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["-V", "--version"])
def test_the_version(name, capsys):
    assert main([name]) == 0
    assert capsys.readouterr().out == f"blankfill {__version__}\n"


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
