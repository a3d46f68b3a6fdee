"""`blankfill probe`: what the hidden states of a model hold of a target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from blankfill.api.parameters import CheckpointName, PathLike, Texts, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Range, Seed
from blankfill.config.train import DeviceKind
from blankfill.probe.outcome import ProbeResult

__all__ = ["ProbeResult", "probe"]


@checks_arguments
def probe(
    run: PathLike,
    /,
    *,
    data: PathLike,
    target: str,
    text: str = "text",
    at: str = "mean",
    layer: Annotated[int, Range(0, 10_000)] | None = None,
    family: Literal[
        "auto", "binomial", "multinomial", "ordinal", "poisson", "negative-binomial", "gaussian",
        "gamma",
    ] = "auto",
    link: Literal["logit", "probit", "cloglog", "log", "sqrt", "identity", "inverse"] | None = None,
    order: Texts = (),
    group: str | None = None,
    exposure: str | None = None,
    folds: Annotated[int, Range(2, 100)] = 5,
    fold_by: str | None = None,
    seeds: Annotated[int, Range(1, 100)] = 3,
    seed: Seed = 0,
    fit: Literal["both", "predict"] = "both",
    skip_long: bool = False,
    out: PathLike = Path("probe.html"),
    lang: Literal["en", "zh"] = "en",
    checkpoint: CheckpointName | None = None,
    weights: Literal["last", "ema"] = "last",
    device: DeviceKind = "auto",
) -> ProbeResult:  # fmt: skip
    """Say what the hidden states of a model hold of a target: generalized linear models on them.

    The model is not trained further. Two fits are never mixed: one predicts, penalised and on all
    dimensions, with penalty and layer chosen by nested cross-validation; one explains, by maximum
    likelihood on a few components. Beside them always stand the untrained model, counts of words,
    length, a control task and permuted targets. What was found is one HTML file.

    Example:
        blankfill probe runs/mine --data sst2.jsonl --text sentence --target label
        blankfill probe runs/mine --data a.jsonl --text "{passage:800} [MASK]" --at blank --target y

    Args:
        run: folder of a pretrained run, or of one of its checkpoints.
        data: items, one JSON object a line; compressed or not.
        target: the field that is predicted.
        text: the field that is read, or a pattern of fields such as "{question} {passage:400}
            [MASK]", where 400 is a number of characters.
        at: which hidden state. mean: of all tokens; blank: of the first blank, as it is about to be
            filled; first, last, or the number of a token, from the end below 0 (--at=-2).
        layer: one layer alone, 0 being the embedding; every layer where not given.
        family: distribution of the target; auto compares those that it admits.
        link: link of the fit that explains; the family's usual one where not given.
        order: levels of an ordinal target, lowest first; numbers need none.
        group: field of what several items share, such as a document: all of a group is left out
            together. Items of one text are a group where not given.
        exposure: field of what a count is out of, such as a length; its logarithm is an offset.
        folds: parts of the data that are left out in turn.
        fold_by: field that names the fold of each item, in place of drawn folds.
        seeds: how many times folds are drawn, to see how much the answer moves.
        seed: seed of the first of them.
        fit: both fits, or the one that predicts alone.
        skip_long: leave out texts that a row of the model does not hold, instead of refusing them.
        out: the report to write; an earlier one there is replaced.
        lang: language of the report.
        checkpoint: last, best (lowest validation loss), or a step; the last where not given.
        weights: the last ones, or their moving average (--optimizer.ema-decay).
        device: auto, cpu or cuda; auto takes the CUDA device where there is one.

    Raises:
        CheckpointError: the folder is not a run, or has no such checkpoint.
        ConfigError: an option does not fit the data, or a library is missing.
        DataError: the items cannot be used.
        OutputError: the report cannot be written.
    """
    from blankfill.disk.new_file import NewFile
    from blankfill.probe.extra import require_libraries

    require_libraries()
    from blankfill.probe.page import build_page, is_probe
    from blankfill.probe.request import Request, answer

    request = Request(
        run=as_path(run), data=as_path(data), target=target, text=text, at=at, layer=layer,
        family=None if family == "auto" else family, link=link,
        order=tuple(str(each) for each in as_list(order)), group=group, exposure=exposure,
        folds=folds, fold_by=fold_by, seeds=seeds, seed=seed, explains=fit == "both",
        skip_long=skip_long, checkpoint=checkpoint, weights=weights, device=device,
    )  # fmt: skip
    with NewFile(as_path(out), "a report of a probe", is_probe) as file:
        result = answer(request, str(out))
        file.write(build_page(result, lang).encode("utf-8", "replace"))
    return result
