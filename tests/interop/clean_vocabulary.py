"""The tokenizer of an export whose vocabulary is a published one, where blankfill is not.

    python -I clean_vocabulary.py EXPORT EXPECTED.json

EXPECTED holds texts with the ids and the texts that blankfill makes of them. Any difference is an
AssertionError.
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
import tempfile
import warnings

import torch


def main(folder, expected_path):
    with open(expected_path, encoding="utf-8") as file:
        expected = json.load(file)
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save_pretrained(saved)
        again = AutoTokenizer.from_pretrained(saved, trust_remote_code=True)
        copies = (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer)))
        for one in (tokenizer, again, *copies):
            check_texts(one, expected)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    prompts = [text for text, _, _ in expected["prompts"]]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        inputs = tokenizer(prompts, padding=True, return_tensors="pt")
        rows = model.generate(**inputs, do_sample=False, max_new_tokens=48)
        told = tokenizer.fill(rows)
        for text, (_, _, wanted) in zip(told, expected["prompts"], strict=True):
            assert wanted is None or text == wanted, (side, text, wanted)
    batch = tokenizer.training_inputs(prompts[:2], [[" x"], ["y"]])
    assert (batch["labels"] != -100).sum() > 0
    assert torch.isfinite(model(**batch).loss)
    print(transformers.__version__, len(prompts))


def check_texts(tokenizer, expected):
    """Ids are blankfill's, and so is what is decoded of them."""
    for text, ids, shown in expected["texts"]:
        assert tokenizer(text)["input_ids"] == ids, text
        assert tokenizer.decode(ids) == shown, text
    for text, ids, _ in expected["prompts"]:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
        assert tokenizer(text)["input_ids"] == [*ids, tokenizer.special["sop"]], text
    assert len(tokenizer) == tokenizer.vocab_size == len(tokenizer.get_vocab())


if __name__ == "__main__":
    warnings.simplefilter("default")
    main(sys.argv[1], sys.argv[2])
