"""The shape of a model: every number that decides its tensors and its mathematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blankfill.errors import ConfigError

__all__ = ["Activation", "BlockKind", "DeepNormLaw", "ModelConfig", "PositionEncoding"]

BlockKind = Literal["pre_ln", "deepnorm"]
DeepNormLaw = Literal["unit_gain", "deepnet", "su"]
PositionEncoding = Literal["rope_2d", "rope_1d", "learned_2d"]
Activation = Literal["geglu", "gelu_tanh", "gelu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A GLM, after the tables of Du et al. 2022 and Zeng et al. 2022."""

    vocab_size: int = 16384
    """Rows of the embedding; at least the tokenizer's number of ids."""
    hidden_size: int = 256
    """Width of the residual stream."""
    num_layers: int = 6
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads; must divide hidden_size."""
    ffn_size: int = 688
    """Inner width of the feed-forward layer; with geglu each of the two halves has this width."""
    block: BlockKind = "deepnorm"
    """deepnorm: Post-LN with a scaled residual (GLM-130B, released form); pre_ln: GLM up to 10B."""
    deepnorm: DeepNormLaw = "unit_gain"
    """Scale alpha of the residual and gain beta of the initialisation, for N layers. deepnet:
    (2N)^(1/4) and (8N)^(-1/4) (Wang et al. 2022); su: (2N)^(1/2) and (2N)^(-1/2) (GLM-130B);
    unit_gain: (2N)^(1/4) and 1, which leaves the unigram plateau several times sooner in models of
    a few layers, that need no protection from their depth."""
    activation: Activation = "geglu"
    """geglu: x1 * gelu(x2) (GLM-130B); gelu_tanh: GLM up to 10B; gelu: the erf form."""
    positions: PositionEncoding = "rope_2d"
    """How the two position ids enter: rope_2d rotates half of each head by each; rope_1d rotates
    by the first only (GLM-130B); learned_2d adds two learned embeddings (GLM up to 10B)."""
    max_position: int = 2048
    """Largest position id; the size of the learned tables, and of a row."""
    tie_head: bool = True
    """Use the word embedding as the output layer; false gives the head a matrix of its own."""
    dropout: float = 0.0
    """Dropout rate on embeddings, attention weights and branch outputs (published: 0.1)."""
    embedding_gradient_shrink: float = 1.0
    """Share of the gradient that reaches the word embedding (GLM-130B: 0.1); 1 is off."""
    norm_eps: float = 1e-5
    """Epsilon of every LayerNorm."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "ffn_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)} must be at least 1")
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} must divide model.hidden_size={self.hidden_size}"
            )
        unit = {"rope_2d": 4, "rope_1d": 2, "learned_2d": 1}[self.positions]
        if self.head_size % unit:
            raise ConfigError(
                f"model.positions={self.positions} needs heads whose size is a multiple of {unit}; "
                f"hidden_size/num_heads is {self.head_size}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.dropout={self.dropout} must be in [0, 1)")
        if not 0.0 < self.embedding_gradient_shrink <= 1.0:
            raise ConfigError(
                f"model.embedding_gradient_shrink={self.embedding_gradient_shrink} "
                "must be in (0, 1]"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def deepnorm_alpha(self) -> float:
        """Scale of the residual in a DeepNorm block."""
        return (2 * self.num_layers) ** (0.5 if self.deepnorm == "su" else 0.25)

    @property
    def deepnorm_beta(self) -> float:
        """Gain of V, the attention output and the feed-forward matrices at initialisation."""
        if self.deepnorm == "unit_gain":
            return 1.0
        if self.deepnorm == "deepnet":
            return (8 * self.num_layers) ** -0.25
        return (2 * self.num_layers) ** -0.5
