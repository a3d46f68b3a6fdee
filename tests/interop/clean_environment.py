"""What a user does with an export where blankfill is not: run by a Python that has transformers.

    python -I clean_environment.py EXPORT EXPECTED.json

EXPECTED holds what blankfill itself computed. Any difference is an AssertionError.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
import sys
import tempfile
import warnings

import torch

TOLERANCE = 1e-4  # float32, tens of roundings


def main(folder, expected_path):
    assert importlib.util.find_spec("blankfill") is None, "this environment has blankfill"
    with open(expected_path, encoding="utf-8") as file:
        expected = json.load(file)
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    check_tokenizer(tokenizer, expected["texts"])
    check_fixed_vocabulary(tokenizer, folder, AutoTokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    prompts = expected["prompts"]
    check_padding(tokenizer, model, prompts)
    check_generate(tokenizer, model, prompts, expected["filled"])
    check_refusals(tokenizer, model)
    base = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    inputs = tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = base(**inputs).last_hidden_state
        logits = model(**inputs).logits
    torch.testing.assert_close(model.network.logits(hidden), logits)
    check_training(tokenizer, model)
    check_round_trip(tokenizer, model, prompts, transformers)
    low = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype=torch.bfloat16
    ).eval()
    assert low.network.embed.word.weight.dtype == torch.bfloat16
    assert torch.isfinite(low(**inputs).logits).all()
    print(json.dumps({"transformers": transformers.__version__, "prompts": len(prompts)}))


def check_tokenizer(tokenizer, texts):
    """Ids are blankfill's; decoding gives the text back, character for character."""
    for text, ids in texts:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text, text
    batch = tokenizer([text for text, _ in texts])["input_ids"]
    assert batch == [ids for _, ids in texts]
    with_blank = tokenizer("a [MASK]")["input_ids"]
    assert tokenizer.decode(with_blank) == "a[MASK][S]"
    assert tokenizer.decode(with_blank, skip_special_tokens=True) == "a"


def check_fixed_vocabulary(tokenizer, folder, auto):
    """No token is added without a word; what the vocabulary has is taken as it is."""
    size, ids = len(tokenizer), tokenizer("a [MASK] x <new>")["input_ids"]
    assert size == tokenizer.vocab_size == len(tokenizer.get_vocab())
    for call in (
        lambda: tokenizer.add_tokens(["<new>"]),
        lambda: tokenizer.add_tokens("<new>"),
        lambda: tokenizer.add_tokens(["the", "<new>"], special_tokens=True),
        lambda: copy.deepcopy(tokenizer).add_special_tokens({"cls_token": "<new>"}),
        lambda: copy.deepcopy(tokenizer).add_special_tokens({"additional_special_tokens": ["<n>"]}),
        lambda: auto.from_pretrained(folder, trust_remote_code=True, pad_token="<new>"),
    ):
        refused(call, "blankfill resize")
    known = tokenizer.convert_ids_to_tokens(ids[0])
    assert tokenizer.add_tokens([known, "[MASK]"]) == 0
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "eos_token": "[E]"})
    refused(lambda: tokenizer.decode([3, -100]), "-100")
    refused(lambda: tokenizer.decode([size]), str(size))
    refused(lambda: tokenizer(["a", "[MASK]"], is_split_into_words=True), "whole texts")
    refused(lambda: tokenizer("a", "b"), "one text at a time")
    for one in (tokenizer, copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert len(one) == size
        assert one("a [MASK] x <new>")["input_ids"] == ids
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert tokenizer.convert_tokens_to_ids(pieces) == ids
    assert tokenizer.convert_tokens_to_string(pieces) == tokenizer.decode(ids)
    assert tokenizer.batch_decode([ids, ids[:2]]) == [tokenizer.decode(i) for i in (ids, ids[:2])]
    special = tokenizer("a [MASK]", return_special_tokens_mask=True)["special_tokens_mask"]
    assert special[-2:] == [1, 1]
    assert not any(special[:-2])
    for side in ("left", "right"):
        tokenizer.padding_side = side
        rows = tokenizer(["a [MASK]", "the old fox [MASK]"], padding=True)
        for row, seen in zip(rows["input_ids"], rows["attention_mask"], strict=True):
            assert (row[-1 if side == "right" else 0] == tokenizer.pad_token_id) == (0 in seen)
    tokenizer.padding_side = "left"


def check_padding(tokenizer, model, prompts):
    """Logits of a padded batch, on either side, are those of each row alone."""
    for side in ("left", "right"):
        tokenizer.padding_side = side
        inputs = tokenizer(prompts, padding=True, return_tensors="pt")
        with torch.no_grad():
            together = model(**inputs).logits
        for i, prompt in enumerate(prompts):
            with torch.no_grad():
                alone = model(**tokenizer(prompt, return_tensors="pt")).logits[0]
            kept = together[i][inputs["attention_mask"][i].bool()]
            assert (kept - alone).abs().max() < TOLERANCE, (side, prompt)
    tokenizer.padding_side = "left"


def check_generate(tokenizer, model, prompts, filled):
    """Greedy fills, cached and in one batch, are those of `blankfill fill`, blank by blank."""
    options = {"do_sample": False, "max_new_tokens": 48}
    inputs = tokenizer(prompts, padding=True, return_tensors="pt")
    together = model.generate(**inputs, **options)
    assert tokenizer.fill(together) == [item["text"] for item in filled]
    assert tokenizer.fills(together) == [item["fills"] for item in filled]
    uncached = model.generate(**inputs, **options, use_cache=False)
    assert uncached.tolist() == together.tolist()
    for prompt, item in zip(prompts, filled, strict=True):
        alone = model.generate(**tokenizer(prompt, return_tensors="pt"), **options)
        assert tokenizer.fill(alone) == [item["text"]], prompt
    beams = model.generate(**inputs, **options, num_beams=3)
    assert len(tokenizer.fill(beams)) == len(prompts)
    torch.manual_seed(0)
    drawn = model.generate(**inputs, do_sample=True, top_p=0.9, max_new_tokens=12)
    special = {v for k, v in tokenizer.special.items() if k not in ("sop", "eop", "eos", "pad")}
    assert not special & set(drawn[:, inputs["input_ids"].shape[1] :].flatten().tolist())
    ending = copy.deepcopy(tokenizer)
    ending.pad_token = ending.eos_token  # as many a script has it
    padded = model.generate(**ending(prompts, padding=True, return_tensors="pt"), **options,
                            pad_token_id=ending.pad_token_id)  # fmt: skip
    assert ending.fill(padded) == [item["text"] for item in filled]
    plain = model.generate(**inputs)  # the length is not given
    assert plain.shape[1] <= inputs["input_ids"].shape[1] + 64


def check_refusals(tokenizer, model):
    """Prompts that cannot be filled are named."""
    for text, add, word in (("no blank", True, "no blank"), ("a [MASK]", False, "[S]")):
        inputs = tokenizer(text, add_special_tokens=add, return_tensors="pt")
        refused(lambda inputs=inputs: model.generate(**inputs), word)


def refused(call, word):
    """Hold that a call raises a ValueError that has the word."""
    try:
        call()
    except ValueError as error:
        assert word in str(error), error  # noqa: PT017
    else:
        raise AssertionError(f"nothing was said of {word!r}")


def check_training(tokenizer, model):
    """Labels give a loss, gradient checkpointing the same gradients, and training lowers it."""
    batch = tokenizer.training_inputs(["a [MASK] c[MASK]", "[MASK]"], [[" b", " d"], ["x"]])
    assert (batch["labels"] != -100).sum() > 0
    assert batch["labels"].shape == batch["input_ids"].shape
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        model.train()
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        grads.append(model.network.embed.word.weight.grad.clone())
    model.gradient_checkpointing_disable()
    torch.testing.assert_close(grads[0], grads[1])
    assert grads[0].abs().max() > 0
    model.eval()
    model.zero_grad()


def check_round_trip(tokenizer, model, prompts, transformers):
    """What transformers saves, it loads: the same logits, the code files beside the weights."""
    inputs = tokenizer(prompts, padding=True, return_tensors="pt")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        again = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        words = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        assert words(prompts)["input_ids"] == tokenizer(prompts)["input_ids"]
        with torch.no_grad():
            assert torch.equal(again.eval()(**inputs).logits, model(**inputs).logits)


if __name__ == "__main__":
    warnings.simplefilter("default")
    main(sys.argv[1], sys.argv[2])
