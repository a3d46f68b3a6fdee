"""What is cut out of a document, how often, and which positions its parts get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from blankfill.config.ranges import Range, check_numbers
from blankfill.errors import ConfigError

__all__ = [
    "MIXTURES",
    "DocumentEnd",
    "LengthLaw",
    "LossWeights",
    "ObjectiveConfig",
    "PairPositions",
    "Placement",
    "PositionScheme",
    "RatioLaw",
]

PositionScheme = Literal["corrupted", "linear", "original"]
RatioLaw = Literal["fixed", "uniform"]
LengthLaw = Literal["poisson", "fixed", "geometric", "uniform"]
Placement = Literal["uniform", "released"]
DocumentEnd = Literal["eop", "eos", "none"]
LossWeights = Literal["token", "row", "kind"]
PairPositions = Literal["straight", "unified", "adaptive"]

MAX_SPAN: Final = 4096
"""Most tokens of the longest short span, and most spans with masks of their own."""
Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 1e6)]

OF_THE_RUN: Final = (
    "positions", "pair_positions", "random_offset", "sentinels", "loss_weights", "short_weight",
    "sentence_weight", "document_weight", "causal_weight", "pair_weight",
)  # fmt: skip
"""Fields that a whole batch shares, so that a source's own mixture does not change them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """The blanks of a run."""

    short_rate: Share = 0.7
    """Share of examples in which [MASK] stands for each of some short spans."""
    sentence_rate: Share = 0.0
    """Share of examples in which [sMASK] stands for each of some whole sentences."""
    document_rate: Share = 0.3
    """Share of examples in which [gMASK] stands for one long blank."""
    causal_rate: Share = 0.0
    """Share of examples in which [gMASK] stands for the whole text, with nothing before it."""
    mask_ratio: Share = 0.15
    """Share of a document's tokens that short spans, or sentences, cut out; at least one is."""
    ratio_law: RatioLaw = "uniform"
    """fixed, as published: each document at mask_ratio. uniform: each at a ratio of its own between
    0 and twice as much, so that the model also learns texts of few blanks, as users have them;
    trained at one density, it does not know where the blank of a text with a single one ends."""
    length_law: LengthLaw = "poisson"
    """Law of short spans' lengths: poisson (its mean before 0 is taken out, as published), fixed,
    geometric, or uniform from 1 to twice the mean less 1."""
    mean_span_length: Annotated[float, Range(0.01, MAX_SPAN)] = 3.0
    """Mean of the law of short spans."""
    max_span_length: Annotated[int, Range(1, MAX_SPAN)] = 39
    """Longest short span (released: 39)."""
    single_span_rate: Share = 0.0
    """Share of short examples that have one span only, whatever the ratio."""
    placement: Placement = "uniform"
    """Where short spans go: uniform over all placements that leave a token between two, or the
    released law, which sorts draws with replacement and so favours spans one token apart."""
    shuffle_spans: bool = True
    """Generate the spans in random order; false keeps that of the text (the papers' ablation)."""
    sentinels: Annotated[int, Range(0, MAX_SPAN)] = 0
    """Give each span of an example a mask and a `sop` of its own, at most this many spans; 0 is
    off. The papers' ablation: the k-th span of Part B has [MASKk] and [Sk], and all of Part B
    stands at the text position after the row. Needs a tokenizer with these tokens."""
    block_dropout: Share = 0.0
    """Share of the inputs after [S] of short spans that [dBLOCK] replaces (GLM-10B: 0.1)."""
    min_document_share: Share = 0.2
    """Shortest document blank as a share of its text (GLM-130B: 0.2)."""
    max_document_share: Share = 1.0
    """Longest document blank; 1 allows an empty prefix, as GLM-130B does."""
    infill_rate: Share = 0.0
    """Share of document blanks that lie anywhere in the text rather than at its end."""
    document_end: DocumentEnd = "eop"
    """What a blank that reaches the real end of its text ends in, so that the model learns to stop;
    none never ends it, as published. A blank with text after it always ends in eop."""
    short_sequence_rate: Share = 0.0
    """Share of pieces that are cut into shorter ones of random length (GLM-10B: 0.02)."""
    positions: PositionScheme = "corrupted"
    """Position ids; see blankfill.objective.positions."""
    pair_positions: PairPositions = "straight"
    """Numbering of a pair's answer under positions=linear (GLM-130B's instruction rows): straight
    on after the mask, as released; unified, where [S] shares the mask's position; adaptive, where
    a short answer mostly stands at the mask's position and a long one is unified."""
    random_offset: bool = False
    """Shift an example's text positions by a random offset that keeps them below the row length, so
    that learned positions are all trained."""
    loss_weights: LossWeights = "token"
    """token: every target alike; row: every row alike (GLM-130B as published, where a short row's
    targets weigh more); kind: by the four weights below."""
    short_weight: Weight = 1.0
    """Weight of a short target under loss_weights=kind."""
    sentence_weight: Weight = 1.0
    """Weight of a sentence target under loss_weights=kind."""
    document_weight: Weight = 1.0
    """Weight of a document target under loss_weights=kind."""
    causal_weight: Weight = 1.0
    """Weight of a causal target under loss_weights=kind."""
    pair_weight: Weight = 1.0
    """Weight of a pair's target under loss_weights=kind."""
    by_source: tuple[str, ...] = ()
    """Named mixtures, one for each token store in the order they are given, in place of what is
    cut out above; "" keeps it. Positions and loss weights stay those of the run."""

    def __post_init__(self) -> None:
        check_numbers(self, "objective")
        if self.mean_span_length > self.max_span_length:
            raise ConfigError(
                f"objective.mean_span_length={self.mean_span_length} must not exceed "
                f"max_span_length={self.max_span_length}"
            )
        if self.length_law != "poisson" and self.mean_span_length < 1:
            raise ConfigError(
                f"objective.mean_span_length={self.mean_span_length} must be at least 1 under "
                f"length_law={self.length_law}"
            )
        if self.min_document_share > self.max_document_share:
            raise ConfigError(
                f"objective.min_document_share={self.min_document_share} must not exceed "
                f"max_document_share={self.max_document_share}"
            )
        if self.sentinels and self.positions != "corrupted":
            raise ConfigError(
                f"objective.sentinels={self.sentinels} places Part B after the row, which "
                f"positions={self.positions} does not know; take positions=corrupted"
            )
        if self.sentinels and self.random_offset:
            raise ConfigError(
                "objective.sentinels and objective.random_offset exclude each other, as Part B "
                "already stands after the row; take one of them"
            )
        if unknown := [name for name in self.by_source if name and name not in MIXTURES]:
            raise ConfigError(
                f"objective.by_source names {unknown[0]!r}, which is none of: {', '.join(MIXTURES)}"
            )
        total = sum(self.rates)
        if abs(total - 1.0) > 1e-6:
            raise ConfigError(
                f"objective rates sum to {total:g}; short_rate, sentence_rate, document_rate and "
                "causal_rate must sum to 1"
            )

    @property
    def max_ratio(self) -> float:
        """The largest share of a document that short spans may be asked to cut out."""
        return self.mask_ratio if self.ratio_law == "fixed" else min(1.0, 2 * self.mask_ratio)

    @property
    def rates(self) -> tuple[float, float, float, float]:
        """Share of each drawn kind, in the order of `objective.Kind`."""
        return self.short_rate, self.sentence_rate, self.document_rate, self.causal_rate

    @property
    def kind_weights(self) -> tuple[float, float, float, float, float]:
        """Weight of each kind's targets under `loss_weights="kind"`, in the order of `Kind`."""
        return (
            self.short_weight, self.sentence_weight, self.document_weight, self.causal_weight,
            self.pair_weight,
        )  # fmt: skip

    @property
    def of_other_stores(self) -> ObjectiveConfig:
        """The objective for stores other than those trained on, which alone `by_source` names."""
        return replace(self, by_source=())

    def of_source(self, source: int) -> ObjectiveConfig:
        """Give the objective of one store: its named mixture, numbered and weighted as the run."""
        name = self.by_source[source] if source < len(self.by_source) else ""
        if not name:
            return self.of_other_stores
        kept = {field: getattr(self, field) for field in OF_THE_RUN}
        return replace(MIXTURES[name], **kept)


MIXTURES: Final[dict[str, ObjectiveConfig]] = {
    "ours": ObjectiveConfig(),
    "glm-base": ObjectiveConfig(
        short_rate=1.0, document_rate=0.0, ratio_law="fixed", placement="released"
    ),
    "glm-doc": ObjectiveConfig(
        short_rate=0.5, document_rate=0.5, ratio_law="fixed", placement="released",
        min_document_share=0.5, document_end="none",
    ),
    "glm-10b-512": ObjectiveConfig(
        short_rate=0.5, sentence_rate=0.3, document_rate=0.2, ratio_law="fixed",
        placement="released", block_dropout=0.1, min_document_share=0.25, infill_rate=0.5,
        document_end="none", short_sequence_rate=0.02,
    ),
    "glm-10b-1024": ObjectiveConfig(
        short_rate=0.4, sentence_rate=0.3, document_rate=0.3, ratio_law="fixed",
        placement="released", block_dropout=0.1, single_span_rate=0.05, min_document_share=0.25,
        infill_rate=0.5, document_end="none", short_sequence_rate=0.5,
    ),
    "glm-2b": ObjectiveConfig(
        short_rate=0.4, sentence_rate=0.3, document_rate=0.3, ratio_law="fixed",
        placement="released", block_dropout=0.1, min_document_share=0.25, infill_rate=0.5,
        document_end="none", short_sequence_rate=0.02,
    ),
    "glm-large-zh": ObjectiveConfig(
        short_rate=0.4, sentence_rate=0.3, document_rate=0.3, ratio_law="fixed",
        placement="released", block_dropout=0.1, min_document_share=0.25, infill_rate=0.5,
        document_end="none", short_sequence_rate=0.02,
    ),
    "glm-130b": ObjectiveConfig(
        short_rate=0.3, document_rate=0.7, ratio_law="fixed", placement="released",
        single_span_rate=0.02,
        document_end="none", short_sequence_rate=0.02, positions="linear", loss_weights="row",
    ),
    "ul2-r": ObjectiveConfig(short_rate=1.0, document_rate=0.0, ratio_law="fixed"),
    "ul2-x": ObjectiveConfig(
        short_rate=1.0, document_rate=0.0, ratio_law="fixed", mask_ratio=0.5, mean_span_length=32,
        max_span_length=128,
    ),
}  # fmt: skip
"""Published mixtures by name (GLM: `config/ds_block_*.sh`, and its paper's section 3.2 for glm-doc,
short spans and documents with equal chances; GLM-130B: `configs/glm-130b.sh`, whose 5 % of
instruction rows are a store of pairs), UL2's R- and X-denoisers (Tay et al. 2022), and ours."""
