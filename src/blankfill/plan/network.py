"""The network whose training is planned, in the numbers that cost time and memory.

A `Network` is made of a preset's `ModelConfig`, or written down for a published model of another
kind (`published`), so that both go through the same arithmetic.

Shapes: D hidden, F feed-forward, V vocabulary, N heads, t tensor-parallel ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig

__all__ = ["BlockParameters", "Network", "block_parameters", "share_of_targets"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A stack of equal blocks between an embedding and a head."""

    num_layers: int
    hidden_size: int
    num_heads: int
    ffn_size: int
    vocab_size: int
    row_length: int
    """Positions of a row, which are also those that attention compares."""
    is_gated: bool
    """Whether the feed-forward layer has two halves before its activation."""
    kv_heads: int
    """Heads of keys and values; as many as heads, but for grouped attention."""
    norms: int = 2
    """Norms in a block."""
    biases: bool = True
    """Whether linear layers and norms have biases."""
    final_norm: bool = True
    tied: bool = True
    """Whether the embedding is the head as well."""
    rotary: bool = True
    """Whether positions rotate queries and keys."""
    qk_norm: bool = False
    position_rows: int = 0
    """Rows of learned position tables, all together."""
    dropout: bool = False
    """Whether branches drop units, whose mask is kept."""
    attention_dropout: bool = False
    visible: float = 1.0
    """Share of a row's (query, key) pairs that attention must compute."""
    targets: float = 1.0
    """Share of a row's positions that the head scores."""

    @classmethod
    def of(cls, cfg: ModelConfig, row_length: int, objective: ObjectiveConfig) -> Network:
        """Describe a model of ours, in rows of one document each."""
        return cls(
            num_layers=cfg.num_layers, hidden_size=cfg.hidden_size, num_heads=cfg.num_heads,
            ffn_size=cfg.ffn_size, vocab_size=cfg.vocab_size, row_length=row_length,
            is_gated=cfg.is_gated, kv_heads=cfg.num_heads,
            norms=4 if cfg.block == "sandwich" else 2, final_norm=cfg.has_final_norm,
            tied=cfg.tie_head, rotary=cfg.positions.startswith("rope"), qk_norm=cfg.qk_norm,
            position_rows=2 * (cfg.max_position + 1) if cfg.positions == "learned_2d" else 0,
            dropout=cfg.dropout > 0, attention_dropout=cfg.attention_dropout_rate > 0,
            targets=share_of_targets(objective),
        )  # fmt: skip

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def kv_size(self) -> int:
        """Width of keys, and of values."""
        return self.kv_heads * self.head_size

    @property
    def up_size(self) -> int:
        """Width of what the feed-forward layer's first product gives."""
        return 2 * self.ffn_size if self.is_gated else self.ffn_size

    @property
    def operations(self) -> float:
        """Operations of training on one position, by convention: each is scored against the
        vocabulary and attends to its whole row, and nothing is computed again."""
        products = self.num_layers * block_parameters(self).matrices
        attended = self.num_layers * 2 * self.hidden_size * self.row_length
        return 6 * (products + attended + self.vocab_size * self.hidden_size)

    @property
    def num_parameters(self) -> int:
        """Weights of the whole model; a tied embedding counts once."""
        block = block_parameters(self)
        own = self.embedding_parameters + self.last_parameters
        head = 0 if self.tied else self.head_parameters
        return self.num_layers * (block.cut + block.whole) + own + head

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, position tables included."""
        return (self.vocab_size + self.position_rows) * self.hidden_size

    @property
    def head_parameters(self) -> int:
        """Weights of the head, or of the copy that the last stage keeps of a tied embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def last_parameters(self) -> int:
        """Weights of the norm after the last block."""
        return (1 + self.biases) * self.hidden_size * self.final_norm


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockParameters:
    """Weights of one block, by what tensor parallelism does with them."""

    cut: int
    """Cut over the ranks: matrices, and the biases of those cut by their outputs."""
    whole: int
    """The same on each: norms, and the biases that are added after a sum over ranks."""
    matrices: int
    """Those of `cut` that are matrices, whose gradients Muon makes orthogonal."""


def block_parameters(network: Network) -> BlockParameters:
    """Count the weights of one block."""
    D, F = network.hidden_size, network.ffn_size
    outputs = D + 2 * network.kv_size + network.up_size
    matrices = D * outputs + D * D + F * D
    norms = network.norms * (1 + network.biases) * D
    if network.qk_norm:
        norms += 4 * network.head_size
    return BlockParameters(
        cut=matrices + outputs * network.biases,
        whole=norms + 2 * D * network.biases,
        matrices=matrices,
    )


def share_of_targets(cfg: ObjectiveConfig) -> float:
    """Estimate the share of a row's positions that predict something.

    Of a text of n tokens, short spans cut out `mask_ratio * n`, each with an end to predict beside
    its tokens and a mask left in its place; a document blank is uniform between its bounds.
    """
    mean = max(1.0, cfg.mean_span_length)
    short = cfg.mask_ratio * (1 + 1 / mean) / (1 + 2 * cfg.mask_ratio / mean)
    document = (cfg.min_document_share + cfg.max_document_share) / 2
    parts = (
        (cfg.short_rate, short), (cfg.sentence_rate, cfg.mask_ratio),
        (cfg.document_rate, document), (cfg.causal_rate, 1.0),
    )  # fmt: skip
    total = sum(rate for rate, _ in parts)
    return min(1.0, sum(rate * share for rate, share in parts) / total) if total else 1.0
