"""`blankfill demo`: the whole path on a bilingual world that the project writes itself.

Corpus, tokenizer, token store, one example explained, pretraining, evaluation against n-gram
models, fills, pictures: the same functions that a user's own files go through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from blankfill.api.data import data_build
from blankfill.api.evaluate_held_out import record_evaluation
from blankfill.api.explain import explain
from blankfill.api.parameters import PathLike, as_path
from blankfill.api.pretrain import MOST_MINUTES
from blankfill.api.tokenizer import tokenizer_train
from blankfill.config.arguments import checks_arguments
from blankfill.config.presets import preset
from blankfill.config.ranges import Range, Seed
from blankfill.config.run import RunConfig
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.disk.ownership import FolderKind
    from blankfill.disk.publish import NameLock
    from blankfill.generate import LanguageModel
    from blankfill.objective.render import TokenRow
    from blankfill.runs.evaluation import BlankReport
    from blankfill.train import Trainer

__all__ = ["DemoFill", "DemoResult", "demo"]

log = logging.getLogger(__name__)

VOCAB_SIZE = 2048
MAX_HAN_PIECE = 2
"""The world repeats its phrases; without a limit they would become pieces of their own, and a name
another piece in each of them."""
SHOWN_FILLS = 10
"""Blanks that are shown in each language."""
MAX_BLANKS = 600
"""Held-out blanks that are scored in each language."""
VALIDATIONS = 4
"""Validations during training, beside the one before it."""
MIN_STEPS = 20
"""Steps of a demo that is given next to no time."""
DESCRIPTION_FILE = "demo.json"
"""Says that a folder is a demo's."""
VERSION = 1
"""Version of that folder's format."""
TRIAL = "trial"
"""What the run is called whose pace is measured."""
CONTINUATIONS = ("On Monday", "星期一，")
"""Openings that are continued after [gMASK]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoFill:
    """One held-out blank and the model's answer."""

    language: str
    """en or zh."""
    text: str
    """The document with the blank."""
    truth: str
    """What was cut out."""
    answer: str
    """What the model wrote."""
    probability: float
    """The model's probability of its answer, its end included."""
    correct: bool
    """Whether the two are the same text, and the answer ended there."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What the demo made and how good it is."""

    run: str
    """The run's folder."""
    seconds: dict[str, float]
    """Wall time of each part."""
    steps: int
    """Optimizer steps."""
    evaluation: BlankReport
    """Held-out blanks: the model, the model without the right side, and the n-gram models."""
    fills: list[DemoFill]
    """Held-out blanks before the reader's eyes."""
    continuations: list[str]
    """Texts continued after [gMASK]."""
    pictures: list[str]
    """Pictures drawn."""

    __repr__ = short_repr


class _Clock:
    """Seconds of each part of the demo."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self._last, 1)
        self._last = now


@checks_arguments
def demo(
    *,
    out: PathLike = Path("runs/demo"),
    minutes: Annotated[float, Range(1e-6, MOST_MINUTES)] = 5.0,
    seed: Seed = 1,
) -> DemoResult:
    """Train a small bilingual GLM on a generated world and watch it fill blanks.

    Example:
        blankfill demo --out runs/demo

    Args:
        out: folder of the run; an earlier demo there is replaced.
        minutes: wall time of training; the number of steps is chosen to take this long.
        seed: seed of the world, the blanks and the weights.

    Raises:
        ConfigError: the minutes cannot be used.
        OutputError: the folder holds something that a demo did not write, or cannot be written.
    """
    from blankfill.disk.publish import NameLock

    out = as_path(out)
    with NameLock(out) as name:
        _clear(name, minutes, seed)
        return _demo(out, minutes, seed)


def _demo(out: Path, minutes: float, seed: int) -> DemoResult:
    clock = _Clock()
    files = _write_data(out, seed)
    clock.lap("corpus, tokenizer, stores")
    _explain_one(files)
    clock.lap("one example")

    from blankfill.runtime import restored_process

    with restored_process():
        return _train_and_show(out, minutes, seed, files, clock)


def _train_and_show(
    out: Path, minutes: float, seed: int, files: dict[str, Path], clock: _Clock
) -> DemoResult:
    from blankfill.evaluate.watch import BlankWatch
    from blankfill.generate import LanguageModel
    from blankfill.prepare import build_trainer, say_start

    cfg = _configure(minutes, seed, files)
    log.info("== pretraining, about %g minutes", minutes)
    trainer = build_trainer(cfg, data=[files["store"]], run=out, validation=[files["valid"]],
                            check_blanks=BlankWatch)  # fmt: skip
    say_start(trainer)
    if not trainer.fit():
        raise KeyboardInterrupt
    clock.lap("training")
    log.info("== evaluation on held-out documents")
    lm = LanguageModel.load(out)
    report = _evaluate(lm, files)
    record_evaluation(out, lm.step, report)
    clock.lap("evaluation")
    fills = _show_fills(lm, files)
    continuations = _continue(lm)
    clock.lap("fills")
    pictures = _draw(out, trainer, report, lm.ids.sop)
    clock.lap("pictures")
    return DemoResult(
        run=str(out), seconds=clock.seconds, steps=cfg.train.steps, evaluation=report, fills=fills,
        continuations=continuations, pictures=[str(path) for path in pictures],
    )  # fmt: skip


def _clear(name: NameLock, minutes: float, seed: int) -> None:
    """Make room for a new demo, but never delete what a demo did not write."""
    from blankfill.atomic import write_json
    from blankfill.disk.publish import emptied, refused_by_disk
    from blankfill.runs import RunLock

    if name.path.is_dir():
        RunLock(name.path).release()  # nobody trains the earlier one on
    folder = emptied(name, _kind())
    with refused_by_disk(name.shown):
        write_json(folder / DESCRIPTION_FILE, {
            "format": "blankfill demo", "version": VERSION, "minutes": minutes, "seed": seed,
        })  # fmt: skip


def _kind() -> FolderKind:
    """Describe a demo's folder: a run, what it was made from, and pictures."""
    from blankfill.data.manifest import KIND as STORE
    from blankfill.disk.json_files import Description
    from blankfill.disk.ownership import FolderKind
    from blankfill.objective.render import is_picture
    from blankfill.report import is_report
    from blankfill.runs import RUN_FILES, RUN_FOLDERS
    from blankfill.text.tokenizer import KIND as TOKENIZER

    corpus = FolderKind(title="a corpus", files=("train.jsonl", "valid.en.jsonl", "valid.zh.jsonl"))
    data = FolderKind(
        title="a demo's data", files=(TRIAL,),
        folders={"corpus": corpus, "tokenizer": TOKENIZER, "store": STORE, "valid": STORE},
    )  # fmt: skip
    return FolderKind(
        title="an earlier demo", marker=DESCRIPTION_FILE,
        description=Description("format", "blankfill demo", VERSION, {}),
        files=RUN_FILES, folders={**RUN_FOLDERS, "data": data},
        told_by_content={"*.html": is_report, "*.png": is_picture},
    )  # fmt: skip


def _write_data(out: Path, seed: int) -> dict[str, Path]:
    from blankfill.demo.corpus import write_corpus

    data = out / "data"
    log.info("== a bilingual world: writing the corpus")
    write_corpus(data / "corpus", seed=seed)
    corpus = data / "corpus"
    log.info("== tokenizer: SentencePiece, %d pieces", VOCAB_SIZE)
    tokenizer_train(
        [corpus / "train.jsonl"], out=data / "tokenizer", vocab_size=VOCAB_SIZE, model_type="bpe",
        max_han_piece=MAX_HAN_PIECE,
    )  # fmt: skip
    log.info("== token stores: training, and held-out in each language")
    files = {"tokenizer": data / "tokenizer", "corpus": corpus}
    for name, source in (
        ("store", ["train.jsonl"]),
        ("valid", ["valid.en.jsonl", "valid.zh.jsonl"]),
    ):
        files[name] = data / name
        data_build(
            [corpus / file for file in source], tokenizer=files["tokenizer"], out=files[name]
        )
    return files


def _explain_one(files: dict[str, Path]) -> None:
    """Log one training example in a few lines, and token by token for who asks for everything."""
    shown = explain(data=files["store"], index=0, kind="short")
    log.info("== one training example")
    log.info("   Part A, read in both directions: %s", _spelled(shown.tokens, "A"))
    written = _spelled(shown.tokens, "B").replace("[S]", " [E] [S]").removeprefix(" [E] ")
    log.info("   Part B, written left to right with all of A in sight: %s [E]", written)
    log.debug("   %-4s %-16s %8s %8s  %s", "part", "token", "position", "in span", "target")
    for row in shown.tokens:
        log.debug("   %-4s %-16s %8d %8d  %s", row.part, row.token, row.position,
                  row.block_position, row.target or "")  # fmt: skip


def _spelled(rows: Sequence[TokenRow], part: str) -> str:
    """Join the tokens of a part; a piece shows the space before its word as U+2581."""
    text = "".join(row.token for row in rows if row.part == part).replace("\u2581", " ")
    return text.replace("[MASK]", " [MASK]").strip()


def _configure(minutes: float, seed: int, files: dict[str, Path]) -> RunConfig:
    """Take the preset, with as many steps as fit into the minutes on this machine."""
    from blankfill.evaluate.watch import BlankWatch
    from blankfill.prepare import build_trainer
    from blankfill.prepare.pace import measure_pace, with_steps

    cfg = preset("demo")
    cfg = cfg.changed({"train.seed": seed})
    pace = measure_pace(
        cfg,
        lambda cfg, folder: build_trainer(
            cfg, data=[files["store"]], run=folder, validation=[files["valid"]],
            check_blanks=BlankWatch,
        ),
        files["store"].parent / TRIAL, seconds=minutes * 60,
    )  # fmt: skip
    # The first and the last validation are the pace's own; the last is one of VALIDATIONS.
    left = minutes * 60 - (VALIDATIONS - 1) * pace.validation_seconds
    cfg = with_steps(cfg, max(MIN_STEPS, pace.steps_in(left)))
    steps = cfg.train.steps
    log.info("this machine: %.0f positions a second", pace.positions_per_second(cfg.train))
    return cfg.changed(
        {"validation.every": -(-steps // VALIDATIONS), "checkpoint.every": max(1, steps // 2)}
    )


def _evaluate(lm: LanguageModel, files: dict[str, Path]) -> BlankReport:
    from blankfill.data.store import TokenStore
    from blankfill.evaluate.blanks import evaluate_blanks
    from blankfill.evaluate.held_out import draw_held_out

    blanks = draw_held_out([TokenStore.open(files["valid"])], max_blanks=MAX_BLANKS)
    return evaluate_blanks(lm, blanks, train_stores=[TokenStore.open(files["store"])])


def _show_fills(lm: LanguageModel, files: dict[str, Path]) -> list[DemoFill]:
    """Fill some held-out blanks and put them beside the truth."""
    import math

    from blankfill.data.store import TokenStore
    from blankfill.evaluate.blanks import encode_set, exact_fills, fill_items
    from blankfill.evaluate.held_out import draw_held_out

    blanks = draw_held_out([TokenStore.open(files["valid"])], max_blanks=SHOWN_FILLS, seed=1)
    fills: list[DemoFill] = []
    for language, items in encode_set(
        blanks, lm.tokenizer, row_length=lm.cfg.train.row_length
    ).items():
        answers = fill_items(lm, items)
        correct = exact_fills(lm.tokenizer, answers, items, must_end=True).tolist()
        for item, fill, right in zip(items, answers, correct, strict=True):
            blank = item.blank
            # The space before a blank belongs to it; a reader expects it in the text.
            space = " " if blank.text.startswith(" ") else ""
            fills.append(
                DemoFill(
                    language=language,
                    text=f"{blank.before}{space}[MASK]{blank.after}",
                    truth=blank.text,
                    answer=lm.tokenizer.decode(fill.tokens),
                    probability=math.exp(fill.logprob),
                    correct=right,
                )
            )
    return fills


def _continue(lm: LanguageModel) -> list[str]:
    from blankfill.generate import continue_texts

    return [item.text for item in continue_texts(lm, CONTINUATIONS, max_new_tokens=80)]


def _draw(out: Path, trainer: Trainer, report: BlankReport, sop: int) -> Sequence[Path]:
    from blankfill.evaluate.pictures import draw_curves, draw_exact
    from blankfill.metrics import read_metrics
    from blankfill.objective.render import draw_row

    pictures = [out / name for name in ("loss.png", "exact.png", "attention-mask.png")]
    draw_curves(read_metrics(out), report, pictures[0])
    draw_exact(report, pictures[1])
    batch = trainer.rows.rows(0, 1)
    title = "Who sees whom in one packed row: the first of this run"
    draw_row(batch, 0, pictures[2], sop=sop, title=title)
    return pictures
