"""A model in use: its network, its tokenizer, and the rules that it was trained by.

Whatever fills, continues, scores or exports takes this one value, so that no caller can pair a
network with the tokenizer or the positions of another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack, overload

import torch

from blankfill.config.arguments import checks_arguments
from blankfill.config.checkpoint import CheckpointName
from blankfill.config.filling import (
    NO_BOUNDS,
    BackOff,
    BeamWidth,
    Bounds,
    LengthPenalty,
    MinP,
    NoRepeatNgram,
    RepetitionPenalty,
    Strategy,
    TopK,
    Typical,
    wish_of,
)
from blankfill.config.objective import PositionScheme
from blankfill.config.ranges import NewTokens, NumCandidates, Seed, Stride, Temperature, TopP
from blankfill.config.run import RunConfig
from blankfill.config.train import DeviceKind, WeightType
from blankfill.engine.device import choose_device, device_name, precision_context
from blankfill.generate.continuing import (
    ContinueOptions,
    TextStream,
    continue_texts,
    stream_settings,
    stream_text,
)
from blankfill.generate.infill import FilledItem, FillOptions, fill_texts, listed, one_or_all
from blankfill.generate.loading import (
    Weights,
    described_weights,
    find_weights,
    give_memory,
    keep_in,
    load_run_tokenizer,
    make_ready,
    quickest_products,
)
from blankfill.generate.sampling import Sampling
from blankfill.generate.score import RankBy, ScoredText, rank_fills, score_fills
from blankfill.generate.surprise import SurprisedText, surprise_words
from blankfill.generate.whole import TextMode, TextScore, require_no_window, score_text
from blankfill.model.glm import GLM, device_of
from blankfill.model.quantized import make_room
from blankfill.objective.special import SpecialIds
from blankfill.runs import locate, read_run
from blankfill.runs.parts import load_weights, stored_types
from blankfill.text.tokenizer import TextTokenizer

__all__ = ["LanguageModel"]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, eq=False)
class LanguageModel:
    """A trained model and what it takes to use it.

        lm = blankfill.load("runs/mine")
        lm.fill("The [MASK] fox jumps over the [MASK] dog.").text
        lm.generate(["Once upon a time", "At last"], max_new_tokens=16)
        lm.rank("The [MASK] jumps.", ["fox", "lazy dog"]).candidates[0].fills

    It is loaded once and serves any number of calls, from any number of threads, one at a time.
    """

    model: GLM
    """The network, in evaluation mode."""
    tokenizer: TextTokenizer
    """Its tokenizer: our own, or the vocabulary of an imported model."""
    cfg: RunConfig
    """What it was trained with."""
    path: Path | None = None
    """The run's folder; None where the model was never written."""
    step: int = 0
    """Optimizer steps done."""
    cpu_precision: torch.dtype = torch.float32
    """The type of its products on a CPU."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held by the call that uses the network."""

    @property
    def ids(self) -> SpecialIds:
        """The special tokens."""
        return self.tokenizer.ids

    @property
    def scheme(self) -> PositionScheme:
        """The position scheme that it was trained with."""
        return self.cfg.objective.positions

    @property
    def sentinel_position(self) -> int | None:
        """Text position of Part B where it was trained with sentinels; else None."""
        return self.cfg.sentinel_position

    @property
    def row_length(self) -> int:
        """Positions of the rows that it was trained on, as far as it has positions."""
        return min(self.cfg.train.row_length, self.model.cfg.max_position)

    @property
    def dtype(self) -> torch.dtype:
        """The type of its matrices: that of the word embedding, where they differ."""
        return next(self.model.parameters()).dtype

    @property
    def precision(self) -> torch.dtype:
        """The type of its products: on a GPU that of the weights; on a CPU float32 (see
        `model.linear`), or bfloat16 where that is quicker for weights that are kept in it."""
        return self.cpu_precision if device_of(self.model).type == "cpu" else self.dtype

    def computing(self) -> AbstractContextManager[object]:
        """Give the context that the network is called in."""
        return precision_context(self.precision, device_of(self.model))

    def __repr__(self) -> str:
        where = "" if self.path is None else f"{str(self.path)!r}, "
        return (
            f"LanguageModel({where}step {self.step}, {described_weights(self.model)} on "
            f"{device_name(device_of(self.model))})"
        )

    @overload
    def fill(  # pyright: ignore[reportOverlappingOverload]  # a text is a Sequence[str] as well
        self, texts: str, /, **options: Unpack[FillOptions]
    ) -> FilledItem: ...

    @overload
    def fill(self, texts: Sequence[str], /, **options: Unpack[FillOptions]) -> list[FilledItem]: ...

    @checks_arguments
    def fill(
        self,
        texts: str | Sequence[str],
        /,
        *,
        strategy: Strategy = "left_to_right",
        num_candidates: NumCandidates = 1,
        joint: bool = False,
        beams: BeamWidth = 1,
        length_penalty: LengthPenalty = "glm",
        temperature: Temperature = 0.0,
        top_k: TopK = 0,
        top_p: TopP = 1.0,
        min_p: MinP = 0.0,
        typical: Typical = 1.0,
        seed: Seed = 0,
        max_new_tokens: NewTokens = 64,
        bounds: Bounds = NO_BOUNDS,
        back_off: BackOff = 0,
        trim: bool = False,
    ) -> FilledItem | list[FilledItem]:
        """Fill the blanks of a text, or of several, as `blankfill fill` does.

        Args:
            texts: one text with blanks, or several, which run together.
            strategy: in which order the blanks of a text are filled, and what each sees of the
                others (`generate.strategies`).
            num_candidates: fills to list for each blank, most probable first.
            joint: list fills of all blanks of a text together instead.
            beams: fills of a blank that are followed at a time; 1 is greedy.
            length_penalty: how beams of different lengths are compared.
            temperature: 0 takes the most probable token each time; above 0 draws.
            top_k: draw from so many most probable tokens; 0 from all.
            top_p: draw from the smallest set of tokens whose probability reaches this.
            min_p: draw from the tokens with at least this share of the best one's probability.
            typical: draw from the most typical tokens, whose probability together reaches this.
            seed: seed of the draws.
            max_new_tokens: longest fill of one blank, in tokens.
            bounds: what every fill has to be like.
            back_off: pieces on either side of a blank that may be taken into it, for blanks that
                begin or end inside a word.
            trim: of a text that is too long, read what is around its blanks.

        Returns:
            Of one text its fills; of several a list in their order, where one that cannot be filled
            has its `error` instead.

        Raises:
            RequestError: the only text cannot be filled, or what is asked for does not go
                together.
        """
        sampling = Sampling(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical=typical,
            seed=seed,
        )  # fmt: skip
        wish = wish_of(
            strategy=strategy, num_candidates=num_candidates, joint=joint, beams=beams,
            length_penalty=length_penalty, temperature=temperature,
        )  # fmt: skip
        with self.lock:
            items = fill_texts(
                self, listed(texts), num_candidates=num_candidates, sampling=sampling,
                max_new_tokens=max_new_tokens, wish=wish, bounds=bounds, back_off=back_off,
                trim=trim,
            )  # fmt: skip
        return one_or_all(texts, items)

    @overload
    def generate(  # pyright: ignore[reportOverlappingOverload]  # as above
        self, texts: str, /, **options: Unpack[ContinueOptions]
    ) -> FilledItem: ...

    @overload
    def generate(
        self, texts: Sequence[str], /, **options: Unpack[ContinueOptions]
    ) -> list[FilledItem]: ...

    @checks_arguments
    def generate(
        self, texts: str | Sequence[str], /, *, temperature: Temperature = 0.0, top_k: TopK = 0,
        top_p: TopP = 1.0, min_p: MinP = 0.0, typical: Typical = 1.0, seed: Seed = 0,
        repetition_penalty: RepetitionPenalty = 1.0, no_repeat_ngram: NoRepeatNgram = 0,
        stop: str | Sequence[str] = (), max_new_tokens: NewTokens = 128,
    ) -> FilledItem | list[FilledItem]:  # fmt: skip
        """Continue a text, or several, after `[gMASK]`, as `blankfill generate` does.

        Result as of `fill`, and arguments too, but for these:

        Args:
            texts: one text, or several, of any length.
            repetition_penalty: scores of tokens that stand in the text already are divided by this
                where they are positive, else multiplied.
            no_repeat_ngram: length of the runs of tokens that are written once only; 0 allows all.
            stop: texts that end it, which are not part of it.
        """
        sampling = Sampling(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical=typical,
            seed=seed, repetition_penalty=repetition_penalty,
        )  # fmt: skip
        with self.lock:
            items = continue_texts(
                self, listed(texts), sampling=sampling, max_new_tokens=max_new_tokens,
                stop=listed(stop), no_repeat_ngram=no_repeat_ngram,
            )  # fmt: skip
        return one_or_all(texts, items)

    def stream(self, text: str, /, **options: Unpack[ContinueOptions]) -> TextStream:
        """Continue a text piece by piece, as soon as each is certain; options as of `generate`.

        Returns:
            An iterator over pieces of text, whose `result` is what `generate` gives.

        Raises:
            RequestError: the text has blanks in it.
        """
        return stream_text(self, *stream_settings(text, **options))

    @overload
    def score(
        self, text: str, /, *, mode: TextMode = ..., stride: int | None = ...
    ) -> TextScore: ...

    @overload
    def score(
        self, text: str, candidates: str | Sequence[str], /, *, trim: bool = ...
    ) -> ScoredText: ...

    @checks_arguments
    def score(
        self, text: str, candidates: str | Sequence[str] | None = None, /, *,
        mode: TextMode | None = None, stride: Stride | None = None, trim: bool = False,
    ) -> ScoredText | TextScore:  # fmt: skip
        """Score candidates for the blanks of a text, or a whole text, as `blankfill score` does.

        Args:
            text: with at least one blank, or whole, without one, and of any length.
            candidates: what may stand in its blank; of a text with several blanks the fills of the
                first candidate, left to right, then those of the next. None of a whole text.
            mode: how a whole text is read. `bidirectional`: windows whose earlier text is read in
                both directions, as GLM-130B measures language modelling; that is so where not
                given. `one-way`: left to right only.
            stride: tokens of a whole text that each window after the first scores; half a row
                where not given.
            trim: of a text with blanks that is too long, read what is around them.

        Returns:
            The candidates in their order, each with the exact logarithm of its probability; or
            that of a whole text.

        Raises:
            RequestError: the text cannot be filled, there is not one fill for each blank, or one
                is empty or too long; or a whole text has a blank or is empty.
            ConfigError: mode or stride are given with candidates.
        """
        if candidates is not None:
            require_no_window(mode, stride)
            with self.lock:
                return score_fills(self, text, listed(candidates), trim=trim)
        with self.lock:
            return score_text(self, text, mode=mode or "bidirectional", stride=stride)

    @checks_arguments
    def surprise(self, text: str, /) -> SurprisedText:
        """Measure how surprising each word of a text is, as `blankfill surprise` does.

        Args:
            text: without a blank, of any length; it is read once for each of its words.

        Returns:
            Each word, or character of Chinese and Japanese, with minus the logarithm of its
            probability where it stands, given all of the rest.

        Raises:
            RequestError: the text has a blank, or no word.
        """
        with self.lock:
            return surprise_words(self, text)

    @checks_arguments
    def rank(
        self, text: str, candidates: str | Sequence[str], /, *, by: RankBy = "probability",
        trim: bool = False,
    ) -> ScoredText:  # fmt: skip
        """Score candidates and put the best first, as `blankfill rank` does.

        Args:
            text: with at least one blank.
            candidates: as for `score`.
            by: `probability` of exactly these fills; `tokens` leaves the ends out, as GLM-130B
                scores choices; `mean` is per token, so that length does not decide.
            trim: as for `score`.

        Raises:
            RequestError: as for `score`.
        """
        with self.lock:
            return rank_fills(self, text, listed(candidates), by=by, trim=trim)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        checkpoint: CheckpointName | None = None,
        weights: Weights = "last",
        device: DeviceKind = "cpu",
        dtype: WeightType = "stored",
        needs_text: bool = True,
        check: Callable[[TextTokenizer, RunConfig], object] | None = None,
    ) -> LanguageModel:
        """Load a checkpoint of a run.

        Args:
            path: the run's folder, or that of one of its checkpoints.
            checkpoint: `last`, `best` or a step; the folder's own, or the last, where not given.
            weights: the last ones, or their moving average where the run keeps one.
            device: where the model is put.
            dtype: what its matrices are kept in; norms and biases are float32 in any case.
            needs_text: whether a run without a vocabulary is refused; else it has a `NoVocabulary`.
            check: called before the weights are read, which may take minutes; what it raises is
                raised.

        Raises:
            CheckpointError: the folder is not a run, or holds no such checkpoint or no average, or
                its weights are quantised and another type was asked for.
            ConfigError: the device is not there, or `checkpoint` is none of these.
        """
        where = choose_device(device)
        place = locate(path, checkpoint)
        run = place.run
        record = read_run(run)
        cfg = record.config
        if dtype != "stored":
            record.require_whole(run, f"has no weights in {dtype}")
        tokenizer = load_run_tokenizer(run, record, needs_text=needs_text)
        if check is not None:
            check(tokenizer, cfg)
        found, name = find_weights(place, weights)
        with torch.device("meta"):
            model = GLM(cfg.model)
        if record.quantized is not None:
            make_room(model, record.quantized.bits)
        else:
            keep_in(model, dtype, stored_types(found.path, name))
        give_memory(model, where)
        load_weights(model, found.path, name)
        make_ready(model)
        return cls(
            model=model, tokenizer=tokenizer, cfg=cfg, path=run, step=found.step,
            cpu_precision=quickest_products(model),
        )  # fmt: skip
