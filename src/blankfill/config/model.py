"""The shape of a model: every number that decides its tensors and its mathematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from blankfill.config.on_resume import BY_NAME
from blankfill.config.ranges import Range, check_numbers
from blankfill.errors import ConfigError

__all__ = [
    "Activation",
    "BlockKind",
    "DeepNormLaw",
    "ModelConfig",
    "PositionEncoding",
    "RopeAngles",
]

BlockKind = Literal["pre_ln", "deepnorm", "deepnorm_paper", "post_ln", "sandwich"]
DeepNormLaw = Literal["unit_gain", "deepnet", "su"]
PositionEncoding = Literal["rope_2d", "rope_1d", "learned_2d", "none"]
RopeAngles = Literal["float32", "float16"]
Activation = Literal["geglu", "swiglu", "gelu_tanh", "gelu", "relu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A GLM, after the tables of Du et al. 2022 and Zeng et al. 2022."""

    vocab_size: Annotated[int, Range(1, 2**24)] = 16384
    """Rows of the embedding; at least the tokenizer's number of ids. Where the preset's number is
    left as it is, `pretrain` takes the tokenizer's, rounded up to a multiple of 64."""
    hidden_size: Annotated[int, Range(1, 2**20)] = 256
    """Width of the residual stream."""
    num_layers: Annotated[int, Range(1, 10_000)] = 6
    """Transformer blocks."""
    num_heads: Annotated[int, Range(1, 2**20)] = 4
    """Attention heads; must divide hidden_size."""
    ffn_size: Annotated[int, Range(1, 2**22)] = 688
    """Inner width of the feed-forward layer; geglu and swiglu have two halves of this width."""
    block: BlockKind = "deepnorm"
    """Where norms and residuals stand. pre_ln: GLM up to 10B. deepnorm: GLM-130B as released, the
    residual taken from the normalised value. deepnorm_paper: LN(alpha x + f(x)), as its paper says.
    post_ln: LN(x + f(x)). sandwich: Pre-LN with one more norm on each branch."""
    deepnorm: DeepNormLaw = "unit_gain"
    """Scale alpha of the residual and gain beta of the initialisation, for N layers. deepnet:
    (2N)^(1/4) and (8N)^(-1/4) (Wang et al. 2022); su: (2N)^(1/2) and (2N)^(-1/2) (GLM-130B);
    unit_gain: (2N)^(1/4) and 1, which leaves the unigram plateau several times sooner in models of
    a few layers, that need no protection from their depth."""
    residual_scale: Annotated[float, Range(1e-6, 1e6, or_zero=True)] = 0.0
    """Alpha of a DeepNorm block given outright; 0 takes the law's. ChatGLM-6B's code has
    sqrt(2 * 28) whatever its number of layers."""
    activation: Activation = "geglu"
    """geglu: x1 * gelu(x2) (GLM-130B); swiglu: x1 * silu(x2); gelu_tanh: GLM up to 10B; gelu: the
    erf form; relu."""
    positions: PositionEncoding = "rope_2d"
    """How the two position ids enter: rope_2d rotates half of each head by each; rope_1d rotates
    by the first only (GLM-130B); learned_2d adds two learned embeddings (GLM up to 10B); none
    leaves order to the mask."""
    rope_angles: RopeAngles = "float32"
    """float16 rounds the inverse frequencies to float16, as ChatGLM-6B's released code does, which
    its weights expect; it is wrong by up to a radian near position 2000."""
    max_position: Annotated[int, Range(1, 2**20)] = 2048
    """Largest position id; the size of the learned tables, and of a row."""
    tie_head: bool = True
    """Use the word embedding as the output layer; false gives the head a matrix of its own."""
    dropout: Annotated[float, Range(0, 0.99), BY_NAME] = 0.0
    """Dropout rate on embeddings, attention weights and branch outputs (published: 0.1)."""
    attention_dropout: Annotated[float, Range(0, 0.99), BY_NAME] | None = None
    """Dropout rate on attention weights; takes dropout where not given."""
    embedding_dropout: Annotated[float, Range(0, 0.99), BY_NAME] | None = None
    """Dropout rate on embeddings; takes dropout where not given."""
    embedding_gradient_shrink: Annotated[float, Range(1e-6, 1), BY_NAME] = 1.0
    """Share of the gradient that reaches the word embedding (GLM-130B: 0.1); 1 is off."""
    shrink_head: bool = False
    """Let the same share of the gradient reach the tied embedding from the output layer too."""
    qk_norm: bool = False
    """Normalise each head's queries and keys (LayerNorm over the head) before they meet."""
    pb_relax: Annotated[float, Range(1, 1e6, or_zero=True), BY_NAME] = 0.0
    """Compute scores this many times smaller and scale them back in float32 before the softmax, so
    that float16 does not overflow (PB-relax; GLM-130B's code offers 32); 0 is off."""
    norm_eps: Annotated[float, Range(1e-12, 0.1)] = 1e-5
    """Epsilon of every LayerNorm."""

    def __post_init__(self) -> None:
        check_numbers(self, "model")
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} must divide model.hidden_size={self.hidden_size}"
            )
        unit = {"rope_2d": 4, "rope_1d": 2, "learned_2d": 1, "none": 1}[self.positions]
        if self.head_size % unit:
            raise ConfigError(
                f"model.positions={self.positions} needs heads whose size is a multiple of {unit}; "
                f"hidden_size/num_heads is {self.head_size}"
            )
        self._check_options()

    def _check_options(self) -> None:
        """Refuse options that the rest of the model would silently ignore."""
        if self.residual_scale and not self.is_deepnorm:
            raise ConfigError(
                f"model.residual_scale={self.residual_scale} needs block=deepnorm or "
                f"deepnorm_paper; block={self.block} does not scale its residual"
            )
        if self.rope_angles != "float32" and not self.positions.startswith("rope"):
            raise ConfigError(
                f"model.rope_angles={self.rope_angles} needs positions=rope_2d or rope_1d; "
                f"positions={self.positions} has no angles"
            )
        if self.shrink_head and not self.tie_head:
            raise ConfigError(
                "model.shrink_head=True needs tie_head=True: a head of its own shares no weight "
                "with the embedding"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def is_deepnorm(self) -> bool:
        """Whether the blocks scale their residual by DeepNorm's alpha."""
        return self.block in ("deepnorm", "deepnorm_paper")

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward layer multiplies a linear half by an activated one."""
        return self.activation in ("geglu", "swiglu")

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm follows the last block; Post-LN's last block ends in one of its own."""
        return self.block not in ("post_ln", "deepnorm_paper")

    @property
    def attention_dropout_rate(self) -> float:
        """Dropout rate on attention weights."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout

    @property
    def embedding_dropout_rate(self) -> float:
        """Dropout rate on embeddings."""
        return self.dropout if self.embedding_dropout is None else self.embedding_dropout

    @property
    def drops(self) -> bool:
        """Whether there is any dropout."""
        return max(self.dropout, self.attention_dropout_rate, self.embedding_dropout_rate) > 0

    @property
    def deepnorm_alpha(self) -> float:
        """Scale of the residual: DeepNorm's alpha, or 1 in the other blocks."""
        if not self.is_deepnorm:
            return 1.0
        if self.residual_scale:
            return self.residual_scale
        return (2 * self.num_layers) ** (0.5 if self.deepnorm == "su" else 0.25)

    @property
    def deepnorm_beta(self) -> float:
        """Gain of V, the attention output and the feed-forward matrices at initialisation."""
        if self.deepnorm == "unit_gain":
            return 1.0
        if self.deepnorm == "deepnet":
            return (8 * self.num_layers) ** -0.25
        return (2 * self.num_layers) ** -0.5
