"""`blankfill fill` and `blankfill generate`: a trained model at work."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from blankfill.api.answers import FillResult, GivenTexts, answer_all, answer_one
from blankfill.api.answers_file import AnswersFile
from blankfill.api.parameters import CheckpointName, PathLike, Paths, Texts, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.common import Unless
from blankfill.config.filling import (
    BackOff,
    BeamWidth,
    Bounds,
    LengthPenalty,
    MaxTokens,
    MinP,
    MinTokens,
    NoRepeatNgram,
    RepetitionPenalty,
    Strategy,
    TopK,
    Typical,
    check_wish,
    wish_of,
)
from blankfill.config.ranges import (
    NewTokens,
    NumCandidates,
    Seed,
    Temperature,
    TopP,
)
from blankfill.config.train import DeviceKind
from blankfill.results import to_dict
from blankfill.text.user_text import require_blank

if TYPE_CHECKING:
    from blankfill.config.run import RunConfig
    from blankfill.text.tokenizer import TextTokenizer

__all__ = ["FillResult", "fill", "generate"]


@checks_arguments
def fill(
    run: PathLike,
    texts: Annotated[Texts, Unless("files")] = (),
    /,
    *,
    files: Paths | None = None,
    out: PathLike | None = None,
    each: Callable[[FillResult], object] | None = None,
    checkpoint: CheckpointName | None = None,
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
    min_tokens: MinTokens = 0,
    max_tokens: MaxTokens | None = None,
    required: Texts = (),
    forbidden: Texts = (),
    allowed: Texts = (),
    regex: str | None = None,
    stop: Texts = (),
    begin_with: str = "",
    end_with: str = "",
    back_off: BackOff = 0,
    trim: bool = False,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> FillResult:
    """Fill the blanks of texts with a trained model.

    [MASK] stands for a word or phrase, [sMASK] for a sentence, [gMASK] for a long passage; a text
    may hold several: they are filled left to right, and later blanks see earlier fills, where no
    other strategy is asked for. Of several texts, one that cannot be filled gets its error for an
    answer and the exit code is 2; the others are filled.

    Example:
        blankfill fill runs/mine "The [MASK] fox jumps over the [MASK] dog."

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        texts: one text with blanks, or several; a single - reads stdin, one text a line. On a
            terminal none opens a prompt, where one after the other is typed and filled.
        files: files whose lines are texts, instead of texts: plain, or .jsonl with strings or
            objects with a "text"; each also .gz, .bz2, .xz or .zst.
        out: file that the answers are written to, one line of JSON each. Where an earlier call
            stopped, the same command goes on after the last whole line.
        each: called with the answers as they come, in a result of their own; what is returned at
            the end then has none.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        strategy: of a text with several blanks. left_to_right: each sees the fills before it.
            confident: next the one whose two best first tokens are furthest apart. independent:
            none sees another. refine: left to right, then each again behind all others. splice:
            as GLM-130B, each fill becomes text, which is read again from the start.
        num_candidates: fills to list for each blank, most probable first; as many as there are
            where these are fewer.
        joint: list fills of all blanks together instead (left_to_right, independent).
        beams: fills of a blank that are followed at a time; 1 is greedy, and above 5 it seldom
            gets better.
        length_penalty: how beams of different lengths compare. glm: log-probability over length to
            the power of 0.7; glm-130b: over (5 + length) / 6; none prefers short ones.
        temperature: 0 takes the most probable token each time; above 0 draws.
        top_k: draw from so many most probable tokens; 0 from all.
        top_p: draw from the smallest set of tokens whose probability reaches this.
        min_p: draw from the tokens with at least this share of the best one's probability.
        typical: draw from the most typical tokens, whose probability together reaches this.
        seed: seed of the draws.
        max_new_tokens: longest fill of one blank, in tokens; one that is longer is cut off.
        min_tokens: least tokens of a fill.
        max_tokens: most tokens of a fill, which then ends there by itself.
        required: words that every fill holds; whole words.
        forbidden: words that no fill holds.
        allowed: the only fills that there may be.
        regex: regular expression that every fill matches as a whole (needs blankfill[constraints]).
        stop: texts before the first of which a fill ends.
        begin_with: characters that every fill begins with.
        end_with: characters that every fill ends with.
        back_off: pieces on either side of a blank that may be taken into it, for blanks that begin
            or end inside a word; the fill is held to their characters.
        trim: of a text that is too long, read what is around its blanks; the answer has all of it.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: no text can be filled: each has no blank or is too long; or what is asked for
            does not go together.
    """
    wish = wish_of(
        strategy=strategy, num_candidates=num_candidates, joint=joint, beams=beams,
        length_penalty=length_penalty, temperature=temperature,
    )  # fmt: skip
    bounds = Bounds(
        min_tokens=min_tokens, max_tokens=max_tokens, required=as_list(required),
        forbidden=as_list(forbidden), allowed=as_list(allowed), regex=regex, stop=as_list(stop),
        begin_with=begin_with, end_with=end_with,
    )  # fmt: skip
    bounds.check_limit(max_new_tokens)
    given = GivenTexts(texts, files, require_blank, trim=trim)
    from blankfill.generate import LanguageModel, Sampling, fill_texts
    from blankfill.generate.bounded import check_bounds

    def check(tokenizer: TextTokenizer, cfg: RunConfig) -> None:
        check_wish(wish, cfg.objective.positions)
        check_bounds(tokenizer, bounds, cfg.model.max_position - 2, max_new_tokens)
        given.fit(tokenizer, cfg)

    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical=typical, seed=seed
    )
    with _answers_file(out) as file:
        lm = LanguageModel.load(
            as_path(run), checkpoint=checkpoint, weights=weights, device=device, check=check
        )
        if file is not None:
            unusual = _unusual(
                fill, weights=weights, strategy=strategy, num_candidates=num_candidates,
                joint=joint, beams=beams, length_penalty=length_penalty, temperature=temperature,
                top_k=top_k, top_p=top_p, min_p=min_p, typical=typical, seed=seed,
                max_new_tokens=max_new_tokens, back_off=back_off, trim=trim,
            )  # fmt: skip
            bound = {"bounds": to_dict(bounds)} if bounds else {}
            file.begin(str(lm.path), lm.step, unusual | bound)
        ask = functools.partial(
            fill_texts, lm, max_new_tokens=max_new_tokens, num_candidates=num_candidates,
            sampling=sampling, wish=wish, bounds=bounds, back_off=back_off, trim=trim,
        )  # fmt: skip
        return answer_all(lm, given, ask, verb="fill", file=file, each=each)


@checks_arguments
def generate(
    run: PathLike,
    texts: Annotated[Texts, Unless("files")] = (),
    /,
    *,
    files: Paths | None = None,
    out: PathLike | None = None,
    each: Callable[[FillResult], object] | None = None,
    pieces: Callable[[str], object] | None = None,
    checkpoint: CheckpointName | None = None,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    typical: Typical = 1.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    no_repeat_ngram: NoRepeatNgram = 0,
    stop: Texts = (),
    seed: Seed = 0,
    max_new_tokens: NewTokens = 128,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> FillResult:
    """Continue texts with a trained model, after [gMASK].

    One text is printed as it is written. Texts and continuations may be longer than the model's
    rows: then a quarter of a row at a time is written behind the last three quarters, which are
    read again each time.

    Example:
        blankfill generate runs/mine "Once upon a time"

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        texts: one text to continue, or several; a single - reads stdin, one text a line. On a
            terminal none opens a prompt, where one after the other is typed and continued.
        files: files whose lines are texts, instead of texts: plain, or .jsonl with strings or
            objects with a "text"; each also .gz, .bz2, .xz or .zst.
        out: file that the answers are written to, one line of JSON each. Where an earlier call
            stopped, the same command goes on after the last whole line.
        each: called with the answers as they come, in a result of their own; what is returned at
            the end then has none.
        pieces: called with the text, where it is one alone, and then with each piece of its
            continuation as soon as it is certain.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        temperature: 0 takes the most probable token each time; above 0 draws.
        top_k: draw from so many most probable tokens; 0 from all.
        top_p: draw from the smallest set of tokens whose probability reaches this.
        min_p: draw from the tokens with at least this share of the best one's probability.
        typical: draw from the most typical tokens, whose probability together reaches this.
        repetition_penalty: scores of tokens that stand in the text already are divided by this
            where they are positive, else multiplied; 1 changes none.
        no_repeat_ngram: length of the runs of tokens that are written once only; 0 allows all.
        stop: texts that end a continuation, which are not part of it.
        seed: seed of the draws.
        max_new_tokens: longest continuation, in tokens.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: there is no such device.
        RequestError: no text can be continued; or a stop string is empty.
    """
    given = GivenTexts(texts, files, continues=True)
    from blankfill.generate import LanguageModel, Sampling, continue_texts
    from blankfill.generate.continuing import Ending, stream_text

    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical=typical, seed=seed,
        repetition_penalty=repetition_penalty,
    )  # fmt: skip
    ending = Ending(
        max_new_tokens=max_new_tokens, stop=tuple(as_list(stop)), no_repeat_ngram=no_repeat_ngram
    )
    with _answers_file(out) as file:
        lm = LanguageModel.load(
            as_path(run), checkpoint=checkpoint, weights=weights, device=device, check=given.fit
        )
        if file is not None:
            file.begin(str(lm.path), lm.step, _unusual(
                generate, weights=weights, temperature=temperature, top_k=top_k, top_p=top_p,
                min_p=min_p, typical=typical, seed=seed, max_new_tokens=max_new_tokens,
                repetition_penalty=repetition_penalty, no_repeat_ngram=no_repeat_ngram,
                stop=ending.stop,
            ))  # fmt: skip
        elif pieces is not None and (text := given.open_ended()) is not None:
            stream = stream_text(lm, text, sampling, ending)
            return answer_one(lm, stream, pieces=pieces, each=each)
        ask = functools.partial(
            continue_texts, lm, max_new_tokens=max_new_tokens, sampling=sampling,
            stop=ending.stop, no_repeat_ngram=no_repeat_ngram,
        )  # fmt: skip
        return answer_all(lm, given, ask, verb="generate", file=file, each=each)


def _answers_file(
    out: PathLike | None,
) -> contextlib.AbstractContextManager[AnswersFile | None]:
    return contextlib.nullcontext() if out is None else AnswersFile(as_path(out))


def _unusual(verb: Callable[..., object], **options: object) -> dict[str, object]:
    """Give the options that are not what a verb takes where they are not given."""
    usual = inspect.signature(verb).parameters
    return {name: value for name, value in options.items() if value != usual[name].default}
