"""`generate()` and `forward()` of an export, asked in every way that transformers offers.

    python -I clean_generation.py EXPORT

Every check compares with the plain call, one text at a time; a difference is an AssertionError.
What an export cannot do is refused with a ValueError that says so.
"""

from __future__ import annotations

import copy
import sys
import warnings

import torch

TOLERANCE = 1e-4  # float32, tens of roundings
LIMIT = {"do_sample": False, "max_new_tokens": 40}
PROMPTS = ["a [MASK]", "The [MASK] fox jumps over the [MASK] dog and sees the old town.",
           "Once upon a time[gMASK]", "the [MASK] and [MASK] and [MASK] x [MASK]"]  # fmt: skip


def main(folder):
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    base = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    alone = [
        tokenizer.fill(model.generate(**tokenizer(p, return_tensors="pt"), **LIMIT))[0]
        for p in PROMPTS
    ]
    check_padding(tokenizer, model, alone)
    check_lengths(tokenizer, model, transformers)
    check_outputs(tokenizer, model, base)
    check_caches(tokenizer, model, alone, transformers)
    check_ways(tokenizer, model, alone)
    check_refusals(tokenizer, model)
    check_places(folder, tokenizer, model, AutoModelForCausalLM)
    print(transformers.__version__)


def texts(tokenizer, rows):
    return tokenizer.fill(rows)


def check_padding(tokenizer, model, alone):
    """Padding on the right, on the left, and wider than any text gives what each text gives alone.

    Each prompt beside each other one, as a batch of two, and all of them together.
    """
    for side in ("right", "left"):
        tokenizer.padding_side = side
        for width in (None, 48):
            options = {"padding": "max_length", "max_length": width} if width else {"padding": True}
            inputs = tokenizer(PROMPTS, return_tensors="pt", **options)
            rows = model.generate(**inputs, **LIMIT)
            assert texts(tokenizer, rows) == alone, (side, width, texts(tokenizer, rows), alone)
            bare = model.generate(inputs["input_ids"], **LIMIT)  # padding is told by its token
            assert texts(tokenizer, bare) == alone, (side, width)
            hints = {"num_beams": 2, "max_new_tokens": 12, "do_sample": False}
            both = [model.generate(**inputs, **hints)]
            tokenizer.padding_side = "left"
            both.append(
                model.generate(**tokenizer(PROMPTS, return_tensors="pt", **options), **hints)
            )
            assert texts(tokenizer, both[0]) == texts(tokenizer, both[1]), (side, width)
            tokenizer.padding_side = side
        for i, first in enumerate(PROMPTS):
            for j, second in enumerate(PROMPTS):
                inputs = tokenizer([first, second], padding=True, return_tensors="pt")
                rows = model.generate(**inputs, **LIMIT)
                assert texts(tokenizer, rows) == [alone[i], alone[j]], (side, first, second)
    tokenizer.padding_side = "left"


def check_lengths(tokenizer, model, transformers):
    """max_length, however it is given, is kept; so is max_new_tokens; else there are at most 64."""
    inputs = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    width = inputs["input_ids"].shape[1]
    full = model.generate(**inputs, **LIMIT).shape[1]
    assert full > width + 3
    for options in (
        {"max_length": width + 3}, {"max_new_tokens": 3},
        {"generation_config": transformers.GenerationConfig(
            max_length=width + 3, eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=model.generation_config.pad_token_id)},
        {"generation_config": transformers.GenerationConfig(max_new_tokens=3)},
    ):  # fmt: skip
        rows = model.generate(**inputs, do_sample=False, **options)
        assert rows.shape[1] == width + 3, (options, rows.shape, width)
    plain = model.generate(**inputs)
    assert full <= plain.shape[1] <= width + 64
    kept = copy.deepcopy(model.generation_config)
    model.generation_config.max_new_tokens = 2
    assert model.generate(**inputs).shape[1] == width + 2
    model.generation_config = kept


def check_outputs(tokenizer, model, base):
    """Hidden states and attentions are what the network computes; a tuple where one is wanted."""
    inputs = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    layers = model.config.num_hidden_layers
    rows, columns = inputs["input_ids"].shape
    with torch.no_grad():
        plain = model(**inputs)
        told = model(**inputs, output_hidden_states=True, output_attentions=True)
        inner = base(**inputs, output_hidden_states=True, output_attentions=True)
    assert plain.hidden_states is None
    assert plain.attentions is None
    torch.testing.assert_close(told.logits, plain.logits, rtol=0, atol=TOLERANCE)
    for output in (told, inner):
        assert len(output.hidden_states) == layers + 1
        assert len(output.attentions) == layers
        heads = model.config.num_attention_heads
        for weights in output.attentions:
            assert weights.shape == (rows, heads, columns, columns)
            torch.testing.assert_close(weights.sum(-1), torch.ones(rows, heads, columns))
    assert torch.equal(inner.last_hidden_state, inner.hidden_states[-1])
    torch.testing.assert_close(model.network.logits(told.hidden_states[-1]), told.logits)
    pads = ~inputs["attention_mask"].bool()
    unseen = told.attentions[0].masked_fill(~pads[:, None, None], 0)
    unseen.diagonal(dim1=2, dim2=3).zero_()
    assert not unseen.any()  # nobody but itself sees padding
    for call in (model, base):
        assert isinstance(call(**inputs, return_dict=False), tuple)
        call.config.return_dict = False
        assert isinstance(call(**inputs), tuple)
        assert len(call(**inputs, return_dict=True)) > 0
        assert model.generate(**inputs, **LIMIT).shape[0] == rows
        call.config.return_dict = True
    wanted = model.generate(
        **inputs, **LIMIT, return_dict_in_generate=True, output_scores=True, output_logits=True,
        output_hidden_states=True, output_attentions=True,
    )  # fmt: skip
    steps = wanted.sequences.shape[1] - columns
    for per_step in (wanted.scores, wanted.logits, wanted.hidden_states, wanted.attentions):
        assert len(per_step) == steps
    assert len(wanted.hidden_states[0]) == layers + 1
    assert wanted.attentions[1][0].shape[-1] == columns + 1
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert len(model(**inputs, output_hidden_states=True).hidden_states) == layers + 1
    refused(lambda: model(**inputs, output_attentions=True), "gradient_checkpointing_disable")
    model.gradient_checkpointing_disable()
    model.eval()


def check_caches(tokenizer, model, alone, transformers):
    """A cache of any kind, used again, cut, or of a fixed size, changes no answer."""
    inputs = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    for kind in ("static", "dynamic", "offloaded" if torch.cuda.is_available() else None):
        for options in ({}, {"num_beams": 2}):
            wanted = model.generate(**inputs, **LIMIT, **options)
            rows = model.generate(**inputs, **LIMIT, **options, cache_implementation=kind)
            assert rows.tolist() == wanted.tolist(), (kind, options)
    columns = inputs["input_ids"].shape[1]
    with torch.no_grad():
        first = model(**inputs, use_cache=True)
    made = first.past_key_values if hasattr(first, "past_key_values") else first.cache
    assert made.get_seq_length() == columns
    for cached in (columns, columns - 1):
        cache = copy.deepcopy(made)
        if cached < columns:
            cache.crop(cached - columns)
        rows = model.generate(**inputs, **LIMIT, past_key_values=cache)
        assert texts(tokenizer, rows) == alone, cached
    early = copy.deepcopy(made)
    early.crop(3 - columns)
    refused(lambda: model.generate(**inputs, **LIMIT, past_key_values=early), "whole text")
    for prompt, wanted in zip(PROMPTS, alone, strict=True):
        begun = model.generate(**tokenizer(prompt, return_tensors="pt"), do_sample=False,
                               max_new_tokens=4, return_dict_in_generate=True)  # fmt: skip
        cache = begun.past_key_values if hasattr(begun, "past_key_values") else begun.cache
        for options in ({}, {"past_key_values": cache}):
            rows = model.generate(begun.sequences, **LIMIT, **options)  # filled already, or goes on
            assert texts(tokenizer, rows)[0][:40] == wanted[:40], (options, prompt)
    size = columns + 40
    static = transformers.StaticCache(config=model.config, max_cache_len=size)
    with torch.no_grad():
        fixed = model(**inputs, past_key_values=static)
    torch.testing.assert_close(fixed.logits, first.logits, rtol=0, atol=TOLERANCE)


def check_ways(tokenizer, model, alone):
    """Beams, several answers, sampling, an assistant and look-up go by the rules of filling."""
    inputs = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    start = inputs["input_ids"].shape[1]
    special = {v for k, v in tokenizer.special.items() if k not in ("sop", "eop", "eos", "pad")}
    several = model.generate(**inputs, max_new_tokens=20, do_sample=False, num_beams=3,
                             num_return_sequences=3)  # fmt: skip
    assert len(several) == 3 * len(PROMPTS)
    assert not special & set(several[:, start:].flatten().tolist())
    torch.manual_seed(0)
    drawn = model.generate(**inputs, max_new_tokens=20, do_sample=True, top_k=50, top_p=0.9,
                           temperature=1.3, num_return_sequences=2)  # fmt: skip
    assert len(texts(tokenizer, drawn)) == 2 * len(PROMPTS)
    assert not special & set(drawn[:, start:].flatten().tolist())
    uncached = model.generate(**inputs, **LIMIT, use_cache=False)
    assert texts(tokenizer, uncached) == alone
    helper = copy.deepcopy(model)
    for prompt, wanted in zip(PROMPTS, alone, strict=True):
        one = tokenizer(prompt, return_tensors="pt")
        for options in ({"assistant_model": helper}, {"prompt_lookup_num_tokens": 3}):
            rows = model.generate(**one, **LIMIT, **options)
            assert texts(tokenizer, rows) == [wanted], (prompt, options)


def check_refusals(tokenizer, model):
    """What would be wrong is refused."""
    inputs = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    refused(lambda: model.generate(**inputs, prefill_chunk_size=4), "chunks")
    refused(lambda: model.generate(ids, attention_mask=mask[:, 1:]), "attention_mask")
    refused(lambda: model(ids, position_ids=torch.zeros_like(ids)), "two position ids")
    refused(lambda: model(ids, attention_mask=mask[:, None, None].bool()), "positions")
    refused(lambda: model(inputs_embeds=model.get_input_embeddings()(ids)), "positions")
    refused(lambda: model.resize_token_embeddings(model.config.vocab_size + 1), "blankfill resize")
    refused(lambda: model.resize_token_embeddings(20), "blankfill resize")
    with torch.no_grad():
        layout = model.inputs_of(ids, mask)
        embedded = model(inputs_embeds=model.get_input_embeddings()(ids), positions=layout[0],
                         attention_mask=layout[1])  # fmt: skip
        torch.testing.assert_close(embedded.logits, model(**inputs).logits)


def check_places(folder, tokenizer, model, auto):
    """Half precision, autocast, a device map and another attention give the same up to rounding."""
    inputs = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model(**inputs).logits
        largest = float(wanted.abs().max())
        for dtype in (torch.bfloat16, torch.float16):
            low = auto.from_pretrained(folder, trust_remote_code=True, dtype=dtype).eval()
            assert low(**inputs).logits.dtype == dtype
            # 8 bits of a mantissa through a few layers
            assert (low(**inputs).logits.float() - wanted).abs().max() < 0.15 * largest
            assert len(low.generate(**inputs, max_new_tokens=8)) == len(PROMPTS)
        with torch.autocast("cpu", torch.bfloat16):
            assert (model(**inputs).logits.float() - wanted).abs().max() < 0.15 * largest
            assert len(model.generate(**inputs, max_new_tokens=8)) == len(PROMPTS)
        plain = auto.from_pretrained(
            folder, trust_remote_code=True, attn_implementation="eager"
        ).eval()
        torch.testing.assert_close(plain(**inputs).logits, wanted, rtol=0, atol=TOLERANCE)
        mapped = auto.from_pretrained(folder, trust_remote_code=True, device_map="cpu").eval()
        assert torch.equal(mapped(**inputs).logits, wanted)
        small = copy.deepcopy(model)
        small.resize_token_embeddings(model.config.num_tokens)
        kept = small(**inputs).logits
        assert kept.shape[-1] == model.config.num_tokens
        torch.testing.assert_close(kept, wanted[..., : kept.shape[-1]])
        assert len(small.generate(**inputs, max_new_tokens=8)) == len(PROMPTS)


def refused(call, word):
    """Hold that a call raises a ValueError that has the word."""
    try:
        call()
    except ValueError as error:
        assert word in str(error), error  # noqa: PT017
    else:
        raise AssertionError(f"nothing was said of {word!r}")


if __name__ == "__main__":
    warnings.simplefilter("default")
    main(sys.argv[1])
