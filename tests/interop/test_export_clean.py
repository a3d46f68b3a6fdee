"""Exports in environments that have transformers and not blankfill; minutes, so marked slow.

BLANKFILL_HF4 and BLANKFILL_HF5 name a Python each that has torch, transformers (4.57 and 5.x),
sentencepiece and safetensors; and accelerate, for what trains.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from blankfill.api import export
from blankfill.generate import LanguageModel, fill_texts
from interop.published import KINDS, MORE_PROMPTS, make_published_run, make_vocabulary
from interop.published import PROMPTS as PUBLISHED_PROMPTS
from interop.published import TEXTS as PUBLISHED_TEXTS
from interop.runs import make_run

pytestmark = pytest.mark.slow

TEXTS = [
    "the old fox reads books.\n", " two  spaces\t\ttab\r\nlines\n\n\n", "\u2581 mark \u2581\u2581.",
    "[S] [E] <0x41> [PAD] <unk>", "\u4eba\u5c71\u6c34\u706b\uff0c\u6728\u3002", "", "   ",
    "\u00e9\U0001f388\u200b", " leading", "trailing ", "\u0000\u0001", "x" * 300,
]  # fmt: skip
PROMPTS = [
    "The [MASK] fox jumps over the [MASK] dog.", "[MASK]", "Once upon a time[gMASK]", "[gMASK]",
    "\u4eba\u5c71[MASK]\u6c34\u706b[sMASK]\u3002", "the [MASK] and [MASK] and [MASK]x[MASK]",
    "a [MASK]", "the old dog sees [MASK] in the town", "[MASK] [MASK]", "\u65e5 [MASK] \u6708",
    "books [MASK] water [MASK]", "she sells [sMASK] bread", "river[gMASK]", "young [MASK]\ntown",
]  # fmt: skip


def python_of(variable):
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} does not name a Python that has transformers")
    return python


def is_whole(item, limit):
    """Whether every blank ended within the tokens that transformers counts for all of a row."""
    return all(blank.ended for blank in item.blanks) and (
        sum(len(blank.tokens) + 2 for blank in item.blanks) <= limit
    )


@pytest.fixture(scope="module", params=[
    ("ours", "corrupted"), ("ours", "original"), ("glm-10b", "corrupted"),
    ("glm-130b", "linear"), ("chatglm-6b", "corrupted"), ("paper", "linear"),
    ("sandwich", "original"), ("post-ln", "corrupted"),
], ids="-".join)  # fmt: skip
def exported(request, tmp_path_factory, tokenizer_folder):
    """An export, sharded, and the file that tells what blankfill computes."""
    folder = tmp_path_factory.mktemp("clean")
    architecture, scheme = request.param
    run = make_run(folder / "run", tokenizer_folder, architecture, scheme)
    export(run, to="hf", out=folder / "my.export-1", max_shard_gb=5e-5)
    loaded = LanguageModel.load(run)
    items = fill_texts(loaded, PROMPTS, max_new_tokens=48)
    # transformers counts the tokens of all blanks of a row together, blankfill those of each.
    kept = [item for item in items if is_whole(item, 48)]
    assert sum(len(item.blanks) > 1 for item in kept) >= 1
    pieces = {loaded.tokenizer.token(i): i for i in range(loaded.tokenizer.vocab_size)}
    expected = {
        "texts": [(text, loaded.tokenizer.encode(text).tolist()) for text in TEXTS],
        "prompts": [item.prompt for item in kept],
        "filled": [
            {"text": item.text,
             "fills": [[pieces[token] for token in blank.tokens] for blank in item.blanks]}
            for item in kept
        ],
    }  # fmt: skip
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
    return folder / "my.export-1", folder / "expected.json"


VERSIONS = pytest.mark.parametrize(
    ("variable", "version"), [("BLANKFILL_HF4", "4."), ("BLANKFILL_HF5", "5.")]
)


def run_clean(script, variable, cache, *arguments):
    """Run a script of this folder by a Python that has transformers, and give its last line."""
    environment = {
        "PATH": os.environ.get("PATH", ""), "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled",
    }  # fmt: skip
    done = subprocess.run(
        [python_of(variable), "-I", str(Path(__file__).with_name(script)), *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@VERSIONS
def test_an_export_works_where_only_transformers_is(exported, variable, version, tmp_path):
    told = json.loads(run_clean("clean_environment.py", variable, tmp_path, *exported))
    assert told["transformers"].startswith(version)
    assert told["prompts"] >= 5


@VERSIONS
def test_every_way_to_generate_gives_what_each_text_gives_alone(
    exported, variable, version, tmp_path
):
    told = run_clean("clean_generation.py", variable, tmp_path, exported[0])
    assert told.startswith(version)


@VERSIONS
def test_small_batches_that_are_added_up_train_as_a_large_one(
    exported, variable, version, tmp_path
):
    told = run_clean("clean_training.py", variable, tmp_path, exported[0])
    if told == "accelerate is not installed":
        pytest.skip(f"{variable}: {told}, which Trainer needs")
    assert told.startswith(version)


@VERSIONS
@pytest.mark.parametrize("kind", KINDS)
def test_a_published_vocabulary_works_where_only_transformers_is(kind, variable, version, tmp_path):
    python_of(variable)
    vocabulary = make_vocabulary(kind, tmp_path / "vocabulary")
    loaded = LanguageModel.load(make_published_run(tmp_path / "run", vocabulary))
    export(loaded.path, to="hf", out=tmp_path / "out")
    asked = PUBLISHED_PROMPTS + ([] if kind in ("wordpiece", "roberta") else MORE_PROMPTS)
    items = fill_texts(loaded, asked, max_new_tokens=48)
    expected = {
        "texts": [
            (text, ids.tolist(), vocabulary.decode(ids))
            for text, ids in ((text, vocabulary.encode(text)) for text in PUBLISHED_TEXTS)
        ],
        "prompts": [
            (item.prompt, vocabulary.encode_with_blanks(item.prompt.replace(" [", "[")).tolist(),
             item.text if is_whole(item, 48) else None)
            for item in items
        ],
    }  # fmt: skip
    assert sum(text is not None for _, _, text in expected["prompts"]) >= 3
    (tmp_path / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
    told = run_clean(
        "clean_vocabulary.py", variable, tmp_path / "hf", tmp_path / "out",
        tmp_path / "expected.json",
    )  # fmt: skip
    assert told.startswith(version)
