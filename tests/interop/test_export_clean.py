"""Exports in environments that have transformers and not blankfill; minutes, so marked slow.

BLANKFILL_HF4 and BLANKFILL_HF5 name a Python each that has torch, transformers (4.57 and 5.x),
sentencepiece and safetensors.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from blankfill.api import export
from blankfill.generate import fill_texts
from blankfill.train import load_run
from interop.runs import make_run

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("clean_environment.py")
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
    loaded = load_run(run)
    items = fill_texts(
        loaded.model, loaded.tokenizer, PROMPTS, scheme=scheme, max_new_tokens=48
    )  # fmt: skip
    # transformers counts the tokens of all blanks of a row together, blankfill those of each.
    kept = [
        item for item in items
        if all(blank.ended for blank in item.blanks)
        and sum(len(blank.tokens) + 2 for blank in item.blanks) <= 48
    ]  # fmt: skip
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


@pytest.mark.parametrize(
    ("variable", "version"), [("BLANKFILL_HF4", "4."), ("BLANKFILL_HF5", "5.")]
)
def test_an_export_works_where_only_transformers_is(exported, variable, version, tmp_path):
    python = python_of(variable)
    folder, expected = exported
    environment = {
        "PATH": os.environ.get("PATH", ""), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [python, "-I", str(SCRIPT), str(folder), str(expected)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["transformers"].startswith(version)
    assert told["prompts"] >= 5
