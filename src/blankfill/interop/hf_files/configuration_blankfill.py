"""The configuration of an exported GLM, for transformers."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from transformers import PretrainedConfig

__all__ = ["BlankfillConfig"]


class BlankfillConfig(PretrainedConfig):
    """Every number that decides the tensors, the mathematics, the positions and the special tokens.

    Args:
        vocab_size: rows of the embedding.
        num_tokens: ids that the tokenizer has; the rows from there on only pad the embedding.
        hidden_size: width of the residual stream.
        num_layers: blocks.
        num_heads: attention heads.
        ffn_size: inner width of the feed-forward layer; a gated one has two halves of it.
        block: pre_ln, deepnorm (GLM-130B as released), deepnorm_paper, post_ln or sandwich.
        residual_alpha: scale of the residual in the two DeepNorm blocks; 1 in the others.
        activation: geglu, swiglu, gelu, gelu_tanh or relu.
        positions: rope_2d, rope_1d, learned_2d or none.
        rope_angles: float32, or float16 as ChatGLM-6B's released code rounds them.
        max_position: largest position id.
        position_scheme: corrupted, linear or original: how Part B is numbered.
        tie_head: use the embedding as the output layer.
        special_ids: token ids by role: mask, smask, gmask, sop, eop, eos, pad, dblock.
        banned_ids: tokens that only stand in inputs and are never generated.
        dropout, attention_dropout, embedding_dropout: rates; None takes `dropout`.
        embedding_gradient_shrink, shrink_head: share of the gradient that reaches the embedding.
        qk_norm: normalise queries and keys.
        pb_relax: how much smaller scores are computed; 0 is off.
        norm_eps: epsilon of every LayerNorm.
    """

    model_type = "blankfill"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012  # as transformers has it
    attribute_map = {  # noqa: RUF012
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "ffn_size",
        "max_position_embeddings": "max_position",
    }

    def __init__(
        self,
        vocab_size=16384,
        num_tokens=None,
        hidden_size=256,
        num_layers=6,
        num_heads=4,
        ffn_size=688,
        block="deepnorm",
        residual_alpha=1.0,
        activation="geglu",
        positions="rope_2d",
        rope_angles="float32",
        max_position=2048,
        position_scheme="corrupted",
        tie_head=True,
        special_ids=None,
        banned_ids=(),
        dropout=0.0,
        attention_dropout=None,
        embedding_dropout=None,
        embedding_gradient_shrink=1.0,
        shrink_head=False,
        qk_norm=False,
        pb_relax=0.0,
        norm_eps=1e-5,
        use_cache=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.num_tokens = vocab_size if num_tokens is None else num_tokens
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.ffn_size = ffn_size
        self.block = block
        self.residual_alpha = residual_alpha
        self.activation = activation
        self.positions = positions
        self.rope_angles = rope_angles
        self.max_position = max_position
        self.position_scheme = position_scheme
        self.tie_head = tie_head
        self.special_ids = dict(special_ids or {})
        self.banned_ids = list(banned_ids)
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.embedding_dropout = embedding_dropout
        self.embedding_gradient_shrink = embedding_gradient_shrink
        self.shrink_head = shrink_head
        self.qk_norm = qk_norm
        self.pb_relax = pb_relax
        self.norm_eps = norm_eps
        self.use_cache = use_cache
        # The tied output layer is the embedding itself, so there is no pair of weights to tie.
        kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)
