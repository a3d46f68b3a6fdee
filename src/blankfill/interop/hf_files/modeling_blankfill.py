"""A GLM for transformers: `AutoModel`, `AutoModelForCausalLM` and `generate()`.

    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
    inputs = tokenizer(["The [MASK] fox jumps."], padding=True, return_tensors="pt")
    print(tokenizer.fill(model.generate(**inputs)))

A prompt is a text with blanks followed by an `[S]`, which the tokenizer appends. `generate()`
writes the fills after it: each ends in `[E]`, and the next blank's `[S]` follows until every blank
of the row is filled. Positions and masks are read off the tokens of each row (layout_blankfill.py),
so padding, batches, beams and the cache change nothing.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import torch
from transformers import (
    DynamicCache,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.stopping_criteria import EosTokenCriteria
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_blankfill import BlankfillConfig
from .generation_blankfill import (
    MAX_NEW_TOKENS,
    AllFilled,
    FillRules,
    check_cache,
    check_options,
    check_prompts,
    names_length,
    padded_left,
)
from .layout_blankfill import lay_out
from .network_blankfill import Network, mean_loss

__all__ = ["BlankfillForCausalLM", "BlankfillModel", "BlankfillPreTrainedModel"]

_NO_VOCABULARY = (
    "this model was exported without a vocabulary, so which ids are [MASK], [S] and [E] is not "
    "known; give config.special_ids (mask, smask, gmask, sop, eop, eos, pad, dblock) to "
    "from_pretrained, or positions [B, 2, T] and a 4D attention_mask to forward"
)
# transformers 5.x renamed the cache in outputs and calls.
_CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


class BlankfillPreTrainedModel(PreTrainedModel):
    """What both models share: the network, and how its inputs are made."""

    config_class = BlankfillConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012  # as transformers has it
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_cache_class = True

    def __init__(self, config):
        super().__init__(config)
        self.network = Network(config)

    def get_input_embeddings(self):
        """Return the word embedding."""
        return self.network.embed.word

    def set_input_embeddings(self, value):
        """Replace the word embedding."""
        self.network.embed.word = value

    def inputs_of(self, input_ids, attention_mask=None, num_cached=0):
        """Make what the network needs of whole rows.

        Args:
            input_ids: `[B, T]` rows from their first token on, cached ones included.
            attention_mask: `[B, T]` 0 on padding; padding tokens are padding without it too.
            num_cached: columns that the cache already holds.

        Returns:
            positions `[B, 2, T - cached]` and mask `[B, 1, T - cached, T]`.
        """
        config = self.config
        layout = _lay_out(input_ids, attention_mask, config)
        return layout.positions[:, :, num_cached:], layout.visible(num_cached)[:, None]

    def resize_token_embeddings(self, new_num_tokens=None, *args, **kwargs):
        """Remove or add rows that only pad the embedding.

        Raises:
            ValueError: rows of tokens would be taken away, or added for tokens of which the
                tokenizer knows nothing.
        """
        config = self.config
        if new_num_tokens is not None and not (
            config.num_tokens <= new_num_tokens <= config.vocab_size
        ):
            raise ValueError(
                f"the vocabulary has {config.num_tokens} tokens in {config.vocab_size} rows, so "
                f"the embedding cannot have {new_num_tokens}; give the run another vocabulary with "
                "`blankfill resize` and export it again"
            )
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def run(self, input_ids, attention_mask, positions, inputs_embeds, cache, use_cache, options):
        """Run the network.

        Args:
            options: the other arguments of `forward`.

        Returns:
            The last hidden states `[B, T, D]`, and the further fields of the output.
        """
        if options.get("position_ids") is not None:
            raise ValueError(
                "a token of this model has two position ids, which are read off the tokens; leave "
                "position_ids out, or give positions [B, 2, T]"
            )
        if isinstance(cache, tuple):
            raise ValueError("past_key_values must be a Cache of transformers, not a tuple")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of the two")
        if positions is None:
            if attention_mask is not None and attention_mask.dim() != 2:
                raise ValueError("a 4D attention_mask needs positions [B, 2, T] beside it")
            if input_ids is None:
                raise ValueError("inputs_embeds need positions [B, 2, T] and a 4D attention_mask")
            if cache is not None and cache.get_seq_length():
                raise ValueError(
                    "a cached step needs positions [B, 2, T] and a 4D attention_mask; "
                    "inputs_of() makes them of the whole rows"
                )
            positions, attention_mask = self.inputs_of(input_ids, attention_mask)
        if (
            attention_mask is None
            or attention_mask.dtype != torch.bool
            or attention_mask.dim() != 4
        ):
            raise ValueError("positions need a boolean attention_mask [B, 1, T, keys] beside them")
        recomputes = self.network.gradient_checkpointing and self.training
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and cache is None and not recomputes and not self.training:
            cache = DynamicCache()
        kept = {
            name: [] if self._wants(f"output_{name}", options) else None
            for name in ("hidden_states", "attentions")
        }
        hidden = self.network(
            input_ids, positions, attention_mask, None if cache is None else _Columns(cache),
            inputs_embeds, **kept,
        )  # fmt: skip
        fields = {name: None if found is None else tuple(found) for name, found in kept.items()}
        return hidden, {_CACHE: cache, **fields}

    def _wants(self, name, options):
        """Read an option of a call, or the configuration's where the call does not say."""
        value = options.get(name)
        return getattr(self.config, name, False) if value is None else value

    def _shaped(self, output, return_dict):
        """Give an output as the call or the configuration wants it."""
        if return_dict is None:
            return_dict = getattr(self.config, "return_dict", True)
        return output if return_dict else output.to_tuple()


class BlankfillModel(BlankfillPreTrainedModel):
    """The hidden states of a text, for `AutoModel`."""

    _keys_to_ignore_on_load_unexpected = [r"network\.head\.weight"]  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        self.network.head = None
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        positions=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        return_dict=None,
        cache=None,
        **kwargs,
    ):
        """Compute the last hidden states, `[B, T, D]`, after the last norm.

        Args:
            input_ids: `[B, T]` whole rows.
            attention_mask: `[B, T]` 0 on padding; or, beside positions, `[B, 1, T, keys]` booleans.
            positions: `[B, 2, T]`; read off the tokens where not given.
            past_key_values: a cache; `cache` is its newer name.
            inputs_embeds: `[B, T, D]` in place of the tokens' own.
            use_cache: return the keys and values.
            return_dict: false gives a tuple.
            kwargs: output_hidden_states, output_attentions.
        """
        hidden, fields = self.run(
            input_ids, attention_mask, positions, inputs_embeds,
            past_key_values if cache is None else cache, use_cache, kwargs,
        )  # fmt: skip
        return self._shaped(
            BaseModelOutputWithPast(last_hidden_state=hidden, **fields), return_dict
        )


class BlankfillForCausalLM(BlankfillPreTrainedModel, GenerationMixin):
    """The logits of the next token, and `generate()`, for `AutoModelForCausalLM`."""

    def __init__(self, config):
        super().__init__(config)
        self.post_init()

    def get_output_embeddings(self):
        """Return the output layer where it has weights of its own."""
        return self.network.head

    def set_output_embeddings(self, value):
        """Replace the output layer."""
        self.network.head = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        positions=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        return_dict=None,
        cache=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Compute logits, and the loss where labels are given.

        Args:
            input_ids: `[B, T]` whole rows: `Part A [S] fill [E]`.
            attention_mask: `[B, T]` 0 on padding; or, beside positions, `[B, 1, T, keys]` booleans.
            positions: `[B, 2, T]`; read off the tokens where not given.
            past_key_values: a cache; `cache` is its newer name.
            inputs_embeds: `[B, T, D]` in place of the tokens' own.
            labels: `[B, T]` in line with input_ids, -100 where nothing is to be predicted (Part A,
                `[S]`, padding); shifted here, as in every causal model of transformers. The
                tokenizer's `training_inputs` makes them.
            use_cache: return the keys and values.
            logits_to_keep: number of last columns to score; 0 scores all.
            return_dict: false gives a tuple.
            num_items_in_batch: targets over which the loss is a mean, where gradients of several
                batches, or of several processes, are added up (`Trainer` counts them); those of
                this batch where it is not given.
            kwargs: output_hidden_states, output_attentions.
        """
        hidden, fields = self.run(
            input_ids, attention_mask, positions, inputs_embeds,
            past_key_values if cache is None else cache, use_cache, kwargs,
        )  # fmt: skip
        if isinstance(logits_to_keep, int):
            hidden = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        else:
            hidden = hidden[:, logits_to_keep]
        logits = self.network.logits(hidden)
        loss = None
        if labels is not None:
            loss = mean_loss(logits, labels, num_items_in_batch)
        return self._shaped(CausalLMOutputWithPast(loss=loss, logits=logits, **fields), return_dict)

    def generate(self, inputs=None, generation_config=None, logits_processor=None, *args, **kwargs):
        """Fill every blank of every row, left to right.

        Takes what `generate()` of transformers takes; max_new_tokens counts all fills of a row with
        their `[E]` and `[S]`. Rows that are padded on the right come back padded on the left.

        Raises:
            ValueError: a row has no blank, no `[S]` after it, or more tokens than positions; or an
                option or a cache would read a text in parts.
        """
        prompts = kwargs.get("input_ids") if inputs is None else inputs
        if prompts is None:
            raise ValueError("generate() needs input_ids, which the tokenizer makes of texts")
        if not self.config.special_ids:
            raise ValueError(_NO_VOCABULARY)
        configured = self.generation_config if generation_config is None else generation_config
        check_options(configured, kwargs)
        if not any(names_length(one, kwargs) for one in (configured, self.generation_config)):
            kwargs["max_new_tokens"] = MAX_NEW_TOKENS
        if self.generation_config.eos_token_id is None:  # exported without a vocabulary
            ids = self.config.special_ids
            kwargs.setdefault("eos_token_id", [ids["eop"], ids["eos"]])
            kwargs.setdefault("pad_token_id", ids["pad"])
        moved, mask = padded_left(prompts, kwargs.get("attention_mask"), self.config.special_ids)
        layout = _lay_out(moved, mask, self.config)
        check_prompts(layout, self.config.max_position)
        cache = kwargs.get(_CACHE, kwargs.get("past_key_values"))
        if cache is not None and moved is not prompts:
            raise ValueError(
                "with a cache of your own no row can be padded on the right; pad on the left "
                "(padding_side='left'), and leave out rows that are filled already"
            )
        check_cache(cache, layout)
        if mask is not None:
            kwargs["attention_mask"] = mask
        if inputs is None:
            kwargs["input_ids"] = moved
        else:
            inputs = moved
        rules = [FillRules(self.config, self._lay_out), *(logits_processor or [])]
        return super().generate(
            inputs, generation_config, LogitsProcessorList(rules), *args, **kwargs
        )

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, cache=None, **kwargs
    ):
        """Make the inputs of one step from the whole rows so far."""
        cache = past_key_values if cache is None else cache
        num_cached = 0 if cache is None else int(cache.get_seq_length())
        positions, visible = self.inputs_of(input_ids, attention_mask, num_cached)
        prepared = {
            name: kwargs[name]
            for name in ("logits_to_keep", "output_hidden_states", "output_attentions")
            if name in kwargs
        } | {
            "input_ids": input_ids[:, num_cached:], "positions": positions,
            "attention_mask": visible, "past_key_values": cache,
            "use_cache": kwargs.get("use_cache"),
        }  # fmt: skip
        return prepared

    def _get_stopping_criteria(self, *args, **kwargs):
        """A row ends at the end token of its last blank, not at its first end token."""
        return StoppingCriteriaList(
            AllFilled(one.eos_token_id, self._lay_out) if isinstance(one, EosTokenCriteria) else one
            for one in super()._get_stopping_criteria(*args, **kwargs)
        )

    def _valid_auto_compile_criteria(self, *_args, **_kwargs):
        """Steps are not compiled: the mask grows with every one of them."""
        return False

    def _lay_out(self, input_ids):
        return _lay_out(input_ids, None, self.config)


class _Columns:
    """A cache with the columns that are written: a static cache of transformers 4 needs them."""

    def __init__(self, cache):
        self.cache, self.start = cache, int(cache.get_seq_length())

    def update(self, keys, values, layer):
        """Store `[B, N, T, H]`, and return all keys and values so far."""
        columns = torch.arange(self.start, self.start + keys.shape[2], device=keys.device)
        return self.cache.update(keys, values, layer, {"cache_position": columns})


def _lay_out(input_ids, attention_mask, config):
    if not config.special_ids:
        raise ValueError(_NO_VOCABULARY)
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    return lay_out(input_ids, real.bool(), config.special_ids, config.position_scheme)
