"""A model in use: what it says of itself is what its run says."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from blankfill.errors import CheckpointError
from blankfill.generate import LanguageModel, fill_tokens
from blankfill.model.glm import GLM
from blankfill.runs import newest_checkpoint, read_run
from blankfill.runs.parts import load_weights
from blankfill.text.tokenizer import Tokenizer
from conftest import language_model
from interop.runs import make_run


@pytest.fixture
def run(tmp_path, tokenizer_folder):
    return make_run(tmp_path / "run", tokenizer_folder, "ours", "linear")


def test_what_is_loaded_is_what_the_run_holds(run, tokenizer_folder):
    lm = LanguageModel.load(run)
    assert lm.cfg == read_run(run).config
    assert (lm.path, lm.step, lm.scheme, lm.dtype) == (run, 0, "linear", torch.float32)
    assert lm.ids == Tokenizer.load(tokenizer_folder).ids
    assert lm.sentinel_position is None
    assert not lm.model.training
    alone = GLM(lm.cfg.model)
    load_weights(alone, newest_checkpoint(run).path)
    weights = lm.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in alone.state_dict().items())


def test_another_tokenizer_than_the_run_s_is_refused(run):
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    info["tokenizer"]["fingerprint"] = "0" * 64
    (run / "run.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not the tokenizer"):
        LanguageModel.load(run)


def test_fills_obey_the_scheme_and_the_sentinels_that_the_model_was_trained_with(run):
    lm = LanguageModel.load(run)
    ids = dataclasses.replace(lm.ids, mask_sentinels=(20, 21), sop_sentinels=(22, 23))
    prompt = [np.array([30, ids.mask, 40, ids.mask], np.int32)]

    def logprobs(lm):
        return [blank.logprob for blank in fill_tokens(lm, prompt, max_new_tokens=4)[0].blanks]

    plain = language_model(lm.model, ids)
    other = language_model(lm.model, ids, scheme="linear")
    objective = dataclasses.replace(plain.cfg.objective, sentinels=2)
    named = dataclasses.replace(plain, cfg=dataclasses.replace(plain.cfg, objective=objective))
    assert named.sentinel_position == plain.cfg.train.row_length
    assert len({tuple(logprobs(one)) for one in (plain, other, named)}) == 3
