"""A GLM for transformers: `AutoModel`, `AutoModelForCausalLM` and `generate()`.

    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
    inputs = tokenizer(["The [MASK] fox jumps."], padding=True, return_tensors="pt")
    print(tokenizer.fill(model.generate(**inputs)))

A prompt is a text with blanks and an `[S]` behind it, which the tokenizer puts there. `generate()`
writes the fills behind it: each ends in `[E]`, and the next blank's `[S]` follows until every blank
of the row is filled. Positions and masks are read off the tokens of each row (layout_blankfill.py),
so padding, batches, beams and the cache change nothing.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import torch
from torch import nn
from transformers import (
    DynamicCache,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.stopping_criteria import EosTokenCriteria
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_blankfill import BlankfillConfig
from .layout_blankfill import lay_out
from .network_blankfill import Network

__all__ = ["BlankfillForCausalLM", "BlankfillModel", "BlankfillPreTrainedModel"]

# transformers calls the cache of an output and of a call by another name since 5.x.
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

    def hidden(self, input_ids, attention_mask, positions, inputs_embeds, cache, use_cache):
        """Run the network: the last hidden states, and the cache where one is kept."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of the two")
        if positions is None:
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
        hidden = self.network(input_ids, positions, attention_mask, cache, inputs_embeds)
        return hidden, cache


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
        **_kwargs,
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
        """
        hidden, cache = self.hidden(
            input_ids, attention_mask, positions, inputs_embeds,
            past_key_values if cache is None else cache, use_cache,
        )  # fmt: skip
        output = BaseModelOutputWithPast(last_hidden_state=hidden, **{_CACHE: cache})
        return output.to_tuple() if return_dict is False else output


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
        **_kwargs,
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
        """
        hidden, cache = self.hidden(
            input_ids, attention_mask, positions, inputs_embeds,
            past_key_values if cache is None else cache, use_cache,
        )  # fmt: skip
        if isinstance(logits_to_keep, int):
            hidden = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        else:
            hidden = hidden[:, logits_to_keep]
        logits = self.network.logits(hidden)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
            )
        output = CausalLMOutputWithPast(loss=loss, logits=logits, **{_CACHE: cache})
        return output.to_tuple() if return_dict is False else output

    def generate(self, inputs=None, *args, **kwargs):
        """Fill every blank of every row, left to right.

        Takes what `generate()` of transformers takes; max_new_tokens counts all fills of a row with
        their `[E]` and `[S]`.

        Raises:
            ValueError: a row has no blank, no `[S]` behind it, or more tokens than positions.
        """
        prompts = kwargs.get("input_ids") if inputs is None else inputs
        if prompts is None:
            raise ValueError("generate() needs input_ids, which the tokenizer makes of texts")
        self._check_prompts(prompts, kwargs.get("attention_mask"))
        rules = [FillRules(self.config), *(kwargs.pop("logits_processor", None) or [])]
        kwargs["logits_processor"] = LogitsProcessorList(rules)
        return super().generate(inputs, *args, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, cache=None, **kwargs
    ):
        """Make the inputs of one step from the whole rows so far."""
        cache = past_key_values if cache is None else cache
        num_cached = 0 if cache is None else int(cache.get_seq_length())
        positions, visible = self.inputs_of(input_ids, attention_mask, num_cached)
        prepared = {
            "input_ids": input_ids[:, num_cached:], "positions": positions,
            "attention_mask": visible, "past_key_values": cache,
            "use_cache": kwargs.get("use_cache"),
        }  # fmt: skip
        if "logits_to_keep" in kwargs:
            prepared["logits_to_keep"] = kwargs["logits_to_keep"]
        return prepared

    def _check_prompts(self, prompts, attention_mask):
        layout = _lay_out(prompts, attention_mask, self.config)
        length = layout.part_a.sum(1)
        for row in range(len(prompts)):
            if not layout.num_blanks[row]:
                raise ValueError(
                    f"row {row} has no blank; write [MASK], [sMASK] or [gMASK] in the text"
                )
            if not layout.num_opened[row]:
                raise ValueError(
                    f"row {row} has no [S] behind its text; the tokenizer puts it there unless "
                    "add_special_tokens=False"
                )
            if length[row] > self.config.max_position:
                raise ValueError(
                    f"row {row} has {int(length[row])} tokens and this model reads "
                    f"{self.config.max_position}; shorten it around the blank"
                )

    def _get_stopping_criteria(self, *args, **kwargs):
        """A row ends at the end token of its last blank, not at its first end token."""
        return StoppingCriteriaList(
            AllFilled(self.config, one.eos_token_id) if isinstance(one, EosTokenCriteria) else one
            for one in super()._get_stopping_criteria(*args, **kwargs)
        )


class FillRules(LogitsProcessor):
    """What may come next: no token that only stands in inputs; `[S]` behind the end of a blank.

    A blank that has grown as long as the positions reach is ended.
    """

    def __init__(self, config):
        self.config = config
        self.banned = [*config.banned_ids, *range(config.num_tokens, config.vocab_size)]

    def __call__(self, input_ids, scores):
        """Mask scores, `[B, V]`, of the token behind input_ids, `[B, T]`."""
        ids = self.config.special_ids
        layout = _lay_out(input_ids, None, self.config)
        ended = (input_ids[:, -1] == ids["eop"]) | (input_ids[:, -1] == ids["eos"])
        forced = torch.full_like(input_ids[:, -1], -1)
        forced[layout.num_inputs[:, -1] >= self.config.max_position - 2] = ids["eop"]
        forced[ended & (layout.num_opened < layout.num_blanks)] = ids["sop"]
        scores = scores.clone()
        scores[:, self.banned] = float("-inf")
        token = torch.arange(scores.shape[1], device=scores.device)
        others = (forced[:, None] >= 0) & (token != forced[:, None])
        scores = scores.masked_fill(others, float("-inf"))
        return torch.where(token == forced[:, None], 0.0, scores)


class AllFilled(StoppingCriteria):
    """True for rows whose last blank has ended."""

    def __init__(self, config, eos_token_id):
        self.config = config
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids, scores, **kwargs):
        """Tell which rows of input_ids, `[B, T]`, are complete: `[B]`."""
        ended = torch.isin(input_ids[:, -1], self.eos_token_id.to(input_ids.device))
        layout = _lay_out(input_ids, None, self.config)
        return ended & (layout.num_opened >= layout.num_blanks)


def _lay_out(input_ids, attention_mask, config):
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    return lay_out(input_ids, real.bool(), config.special_ids, config.position_scheme)
