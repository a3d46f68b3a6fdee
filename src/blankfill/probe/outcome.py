"""What a probe found, as plain values: what its page shows and `--json` prints."""

from __future__ import annotations

from dataclasses import dataclass

from blankfill.probe.names import FamilyName
from blankfill.results import short_repr, to_dict

__all__ = [
    "Calibration", "Collinearity", "ComparedFamily", "ComponentEffect", "DevianceStep", "FitTest",
    "ProbeCleaning", "ProbeCoefficient", "ProbeExplained", "ProbeLayer", "ProbeResult",
    "ProbeScore", "ProbeStability",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeCleaning:
    """What became of the rows that were read."""

    read: int
    """Records of the file."""
    unreadable: int
    """Those that are no JSON object."""
    missing: dict[str, int]
    """Of each field, rows that have nothing in it, which were left out."""
    duplicates: int
    """Rows of a text and target that stood before, which were left out."""
    contradictions: int
    """Rows of a text that stood before with another target; kept, in the group of the first."""
    too_long: int
    """Rows that were left out because a row of the model does not hold them."""
    kept: int
    """Rows that are probed."""
    groups: int
    """Groups that they are of."""
    first: tuple[str, ...]
    """The first rows that were left out, each with its place and the reason."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedFamily:
    """One family beside others, all fitted on the same components of the same items."""

    family: FamilyName
    """Its name."""
    refused: str
    """Why the target does not admit it, or why it has no fit; empty of those that were fitted."""
    log_likelihood: float
    """Nats, of the same items for all; of whole numbers as probabilities."""
    parameters: int
    """Numbers that were fitted."""
    aic: float
    """Akaike's criterion."""
    bic: float
    """Schwarz's criterion, by which `auto` chooses."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeScore:
    """How well a target is predicted of items that were left out."""

    name: str
    """What it is predicted from: representation, untrained, words, length, control, permuted,
    components."""
    explained: float
    """Share of the deviance that it explains, the margin being 0."""
    gain: float
    """Nats an item by which it predicts better than the margin."""
    gain_error: float
    """Standard error of that, items of one group together."""
    measure: str
    """What `value` is: accuracy, rank (Spearman's correlation) or R2."""
    value: float
    """In that measure."""
    baseline: float
    """What the margin reaches in it; 0 of a correlation."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeLayer:
    """One layer of the model."""

    layer: int
    """0 is the embedding; the last is what the output layer reads."""
    trained: ProbeScore
    """From the model."""
    untrained: ProbeScore
    """From the same architecture with its first weights."""
    penalty: float
    """That most folds chose for the trained one."""
    code: float
    """Online code length of the targets in bits an item, less that of the margin: below 0 the
    layer saves bits."""
    untrained_code: float
    """The same of the untrained model."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeCoefficient:
    """One coefficient of the `explain` fit."""

    name: str
    """`intercept`, `component 1`, ...; of several classes with the class's number."""
    value: float
    """On the scale of the link."""
    error: float
    """Standard error."""
    p_value: float
    """Wald's test that it is 0."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class DevianceStep:
    """One line of the analysis of deviance: what more components add to the ones before."""

    components: int
    """How many there are with these."""
    deviance: float
    """That of the model with them."""
    ratio: float
    """Twice the gain of the log likelihood."""
    degrees: int
    """Coefficients that were added."""
    p_value: float
    """Of the likelihood-ratio test, items taken as independent."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentEffect:
    """What one standard deviation more of a component changes, on average over the items."""

    component: int
    """From 1."""
    of: str
    """The class whose probability changes; empty where the target's mean does."""
    value: float
    """In the target's own unit, or as a probability."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Its upper end."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class FitTest:
    """A test of the `explain` fit."""

    name: str
    """What is tested: normality (of the quantile residuals), dispersion, zeros, link."""
    statistic: float
    """Its value."""
    p_value: float
    """How often as much or more would be seen where the fit is right."""
    found: float
    """Standard deviation of the residuals, Pearson's dispersion, zeros, or slope of the square."""
    expected: float
    """What the fit expects of it."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Whether what the `predict` fit says of items left out comes true."""

    slope: float
    """Of outcome on prediction, on the scale of the link: below 1 predictions are too extreme."""
    slope_error: float
    """Its standard error."""
    intercept: float
    """0 where they are right on average."""
    points: tuple[tuple[float, float, float, int], ...]
    """Of each tenth of the items by prediction: mean prediction, mean outcome, its standard error,
    items."""
    error: float
    """Mean distance of the two over all items."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class Collinearity:
    """How far the columns of a representation repeat each other."""

    columns: int
    """How many there are."""
    constant: int
    """Columns that are the same for every item; they are dropped."""
    rank: int
    """Columns that no others make up, as far as the items tell."""
    number: float
    """Condition number of the standardised columns up to that rank: above 30 they are collinear
    (Belsley, Kuh and Welsch 1980)."""
    correlation: float
    """Largest correlation of two columns, its sign left out."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeStability:
    """How much an answer moves with the folds and the seeds."""

    folds: tuple[float, ...]
    """Share of deviance explained in each fold of the first seed."""
    seeds: tuple[float, ...]
    """The same over all items, of each seed's folds."""
    layers: tuple[int, ...]
    """The layer that each fold of the first seed chose."""
    families: tuple[str, ...]
    """The family that `auto` would have chosen without each fold; empty where it was named."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeExplained:
    """The maximum likelihood fit on a few components."""

    components: int
    """How many; chosen by cross-validation."""
    chosen: tuple[int, ...]
    """How many each fold chose."""
    tried: dict[str, float]
    """Of each number, nats an item by which it predicts items left out better than the margin."""
    separated: int
    """The least number of components that separates the classes perfectly; 0 where none does."""
    method: str
    """maximum likelihood, or generalized least squares."""
    clustered: bool
    """Whether standard errors know of the groups."""
    correlation: float
    """Of errors in one group, where they are fitted by generalized least squares."""
    dispersion: float
    """Variance of a Gaussian, squared coefficient of variation of a Gamma, alpha of a negative
    binomial; else 1."""
    log_likelihood: float
    """Nats."""
    null_deviance: float
    """Deviance of the margin."""
    deviance: float
    """That of the fit."""
    aic: float
    """Akaike's criterion."""
    bic: float
    """Schwarz's criterion."""
    left_out: ProbeScore
    """How well items are predicted that were left out, the number chosen without them."""
    coefficients: tuple[ProbeCoefficient, ...]
    """All of them."""
    steps: tuple[DevianceStep, ...]
    """Analysis of deviance by component."""
    effects: tuple[ComponentEffect, ...]
    """Of the first eight components."""
    tests: tuple[FitTest, ...]
    """Whether the family and the link fit."""
    influential: int
    """Items whose one-step Cook's distance is above 4 / n."""
    most_influential: tuple[str, ...]
    """Where the first of them stand."""
    largest_influence: float
    """The largest distance."""
    worm: tuple[tuple[float, float, float], ...]
    """Points of the worm plot: normal quantile, residual less it, half the 95 % band."""
    variance: tuple[tuple[float, float, float], ...]
    """Of each tenth of the items by mean: the mean, the variance that the family says, and the mean
    squared residual."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """What the representations of a model hold of a target."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint."""
    data: str
    """The file of items."""
    target: str
    """The field that is predicted."""
    text: str
    """The field or the pattern that was read."""
    at: str
    """Which hidden states: of the blank, the mean, or of a token."""
    family: FamilyName
    """The family of the target."""
    link: str
    """The link of the `explain` fit."""
    classes: tuple[str, ...]
    """Names of classes or levels."""
    cleaning: ProbeCleaning
    """What became of the rows."""
    families: tuple[ComparedFamily, ...]
    """Where `auto` chose: every family, and why not."""
    layer: int
    """The layer that most folds chose."""
    layers: tuple[ProbeLayer, ...]
    """Every layer that was probed."""
    score: ProbeScore
    """Nested cross-validation: penalty and layer chosen without the items that are predicted."""
    beside: tuple[ProbeScore, ...]
    """What else was tried on the same folds."""
    selectivity: float
    """Share of deviance explained less that of the control task; not a number where every text
    begins alike, which leaves that task one value."""
    stability: ProbeStability
    """Over folds and seeds."""
    calibration: Calibration
    """Of the `predict` fit."""
    collinearity: Collinearity
    """Of the chosen layer."""
    explained: ProbeExplained | None
    """The `explain` fit; None where it was not asked for, or has no answer."""
    not_explained: str
    """Why there is none."""
    notes: tuple[str, ...]
    """What the reader should know of this probe."""
    page: str
    """The report."""

    __repr__ = short_repr
    to_dict = to_dict
