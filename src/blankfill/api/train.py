"""`blankfill train`: from a folder of text to a model, in one command.

Reads the text, holds a part of it out, chooses vocabulary and preset, trains the tokenizer, builds
the stores, says what to expect, pretrains, evaluates, reports, and fills blanks. Every step is the
function of the verb that does it alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from blankfill.api.data import data_build
from blankfill.api.evaluate import evaluate
from blankfill.api.parameters import PathLike, Paths, as_list, as_path
from blankfill.api.pretrain import MOST_MINUTES, pretrain
from blankfill.api.report import report
from blankfill.api.tokenizer import tokenizer_train
from blankfill.api.train_end import TrainFill, commands_to_go_on, fill_held_out
from blankfill.api.train_folder import (
    TRIAL,
    Asked,
    Expectation,
    TextEntry,
    TrainFolder,
    TrainRecord,
)
from blankfill.api.train_plan import plan_training
from blankfill.api.train_text import read_text
from blankfill.config.arguments import checks_arguments
from blankfill.config.choice import ROOM_FOR_PIECES, choose
from blankfill.config.presets import preset as find_preset
from blankfill.config.ranges import Range, Seed
from blankfill.errors import BlankfillError, CheckpointError, ConfigError
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.runs.evaluation import BlankReport

__all__ = ["Expectation", "TrainFill", "TrainResult", "train"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What came of a text."""

    run: str
    """The run's folder."""
    finished: bool
    """False where a signal ended training before the last step."""
    documents: dict[str, int]
    """Documents of each language."""
    skipped: dict[str, int]
    """What could not be used, by reason."""
    vocab_size: int
    """Ids of the tokenizer."""
    preset: str
    """Where the run's configuration came from."""
    expected: Expectation
    """What was said before training began."""
    step: int
    """Optimizer steps done."""
    steps: int
    """Optimizer steps planned."""
    seconds: dict[str, float]
    """Wall time of each part."""
    best_step: int = 0
    """The checkpoint with the lowest loss on held-out text; it is what was evaluated."""
    evaluation: BlankReport | None = None
    """Held-out blanks, beside n-gram models; None before training has ended."""
    fills: list[TrainFill] = field(default_factory=list[TrainFill])
    """Some held-out blanks."""
    report: str = ""
    """The report; "" before training has ended."""
    next: list[str] = field(default_factory=list[str])
    """Commands to go on with."""

    __repr__ = short_repr

    @property
    def exit_code(self) -> int:
        """130, as a shell gives a command that Ctrl-C ended, unless the run is complete."""
        return 0 if self.finished else 130


@checks_arguments
def train(
    files: Paths,
    /,
    *,
    out: PathLike,
    minutes: Annotated[float, Range(0.1, MOST_MINUTES)] = 60.0,
    hold_out: Annotated[float, Range(1e-6, 0.9)] = 0.01,
    text_field: str = "text",
    encoding: str = "auto",
    documents: Literal["file", "paragraph", "line"] = "file",
    squeeze_whitespace: bool = False,
    drop_duplicates: bool = False,
    vocab_size: Annotated[int, Range(1, 2**24)] | None = None,
    preset: str | None = None,
    seed: Seed = 1,
    overwrite: bool = False,
) -> TrainResult:
    """Make a model of a folder of text: tokenizer, stores, training, evaluation and report.

    Says what it read, what it chose and why, and what to expect, before it trains. Stopped
    anywhere, the same command goes on where it was.

    Example:
        blankfill train corpus/ --minutes 60 --out runs/mine

    Args:
        files: text, JSON or tables (.txt .md .jsonl .json .csv .tsv .parquet .arrow), each also
            .gz, .bz2, .xz or .zst; or folders of them.
        out: folder of the run, with the tokenizer and the stores in its folder data.
        minutes: wall time of training, its validations included. Reading, the tokenizer and the
            stores come before it, the evaluation after it.
        hold_out: share of the documents that is not trained on but evaluated on, by the hash of
            each; where that is none, one document is.
        text_field: the JSON field or column that holds the text; dots lead into nested ones.
        encoding: of text, JSON, CSV and TSV files: auto, which is sure or skips a file, or a name,
            such as gb18030, big5, utf-16-le.
        documents: what of a plain text is one document: the file, each paragraph (up to an empty
            line), or each line.
        squeeze_whitespace: shorten runs of white space: blanks to one, empty lines to one.
        drop_duplicates: leave out documents that were there before, word for word; without it they
            are only counted. Takes 16 bytes of memory a document.
        vocab_size: ids of the tokenizer; by text and minutes where not given.
        preset: where the run's configuration comes from; by text and minutes where not given.
        seed: seed of the weights, the blanks and the order.
        overwrite: begin again in the place of an earlier `train`.

    Raises:
        DataError: there is no text, or too little.
        ConfigError: the minutes are too few, or what is in the folder was begun otherwise.
        OutputError: the folder holds something else, or cannot be written.
        TrainingError: losses or weights do not let the run go on.
    """
    from blankfill.disk.publish import NameLock

    paths: list[str | Path] = as_list(files)
    if preset is not None:
        find_preset(preset)
    asked = Asked(
        minutes=float(minutes), hold_out=hold_out, text_field=text_field, encoding=encoding,
        documents=documents, squeeze_whitespace=squeeze_whitespace,
        drop_duplicates=drop_duplicates, seed=seed, vocab_size=vocab_size, preset=preset,
    )  # fmt: skip
    with NameLock(as_path(out)) as name:
        folder = TrainFolder(name, overwrite=overwrite)
        return _Command(paths, asked, folder).run()


class _Command:
    """One call, from the text to the result."""

    def __init__(self, files: list[str | Path], asked: Asked, folder: TrainFolder) -> None:
        self._files, self._asked, self._folder = files, asked, folder
        self._seconds: dict[str, float] = {}

    @property
    def _record(self) -> TrainRecord:
        assert self._folder.record is not None
        return self._folder.record

    @property
    def _reading(self) -> dict[str, Any]:
        """How the verbs that read the text read it."""
        names = ("text_field", "encoding", "documents", "squeeze_whitespace")
        return {name: getattr(self._asked, name) for name in names}

    def run(self) -> TrainResult:
        """Do what is not done yet."""
        self._folder.require_same_question(self._asked)
        with self._part("reading"):
            text = read_text(self._files, self._asked, self._folder.record)
            self._folder.require_same_text(text)
        self._choose(text)
        with self._how_to_go_on():
            with self._part("tokenizer"):
                self._train_tokenizer()
            with self._part("stores"):
                self._build_stores()
            with self._part("training"):
                finished = self._train()
            return self._conclude() if finished else self._result(finished=False)

    @contextmanager
    def _part(self, name: str) -> Generator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = round(time.monotonic() - start, 1)

    @contextmanager
    def _how_to_go_on(self) -> Generator[None]:
        """Say of whatever ends the work early that what is finished stays."""
        try:
            yield
        except (BlankfillError, KeyboardInterrupt, SystemExit):
            log.warning("what is finished stays in %s: the same command goes on from there",
                        self._folder.path)  # fmt: skip
            raise

    # -- what is made of it -----------------------------------------------------------------------

    def _choose(self, text: TextEntry) -> None:
        """Choose vocabulary and preset, and say why; or keep what a begun run has."""
        from blankfill.engine.device import choose_device
        from blankfill.text.trainer import NUM_FIXED

        asked, known = self._asked, self._folder.record
        log.info("== choice")
        if known is not None and self._folder.has_run:
            log.info("   as before: %s ids, preset %s", f"{known.vocab_size:,}", known.preset)
            if known.text.stamp != text.stamp:
                self._folder.write(replace(known, text=text))
            return
        least = NUM_FIXED + text.alphabet
        if asked.vocab_size is not None and asked.vocab_size < least:
            raise ConfigError(
                f"vocab_size={asked.vocab_size} is too small for the {text.alphabet:,} characters "
                f"of this text; take at least {least:,}"
            )
        choice = choose(
            text.num_bytes, asked.minutes, least_ids=least,
            on_gpu=choose_device("auto").type == "cuda", vocab_size=asked.vocab_size,
            preset=asked.preset,
        )  # fmt: skip
        log.info("   vocabulary: %s ids; %s", f"{choice.vocab_size:,}", choice.why_vocabulary)
        log.info("   preset: %s; %s", choice.preset, choice.why_preset)
        record = TrainRecord(
            asked=asked, text=text, vocab_size=choice.vocab_size, preset=choice.preset,
            finished={} if known is None else known.finished,
        )  # fmt: skip
        self._folder.begin(record)

    def _train_tokenizer(self) -> None:
        record, place = self._record, self._folder.data / "tokenizer"
        inputs = f"{record.text.fingerprint} {record.vocab_size}"
        log.info("== tokenizer")
        if self._folder.is_finished("tokenizer", inputs) and place.is_dir():
            log.info("   done before")
            return
        size = self._trained(place, record.vocab_size)
        if size != record.vocab_size:
            log.info("   the text allows %s ids", f"{size:,}")
        self._folder.finish("tokenizer", inputs)

    def _trained(self, place: Path, vocab_size: int) -> int:
        """Train the tokenizer; where the size is ours and the text allows less, a smaller one."""
        from blankfill.text.trainer import NUM_FIXED, TooLittleTextError

        while True:
            try:
                tokenizer_train(self._files, out=place, vocab_size=vocab_size,
                                overwrite=True, **self._reading)  # fmt: skip
                return vocab_size
            except TooLittleTextError as error:
                least = ROOM_FOR_PIECES * (NUM_FIXED + self._record.text.alphabet)
                if self._asked.vocab_size is not None or error.largest < least:
                    raise
                vocab_size = min(error.largest, vocab_size - 1) // 64 * 64

    def _build_stores(self) -> None:
        from blankfill.text.vocabularies import load_tokenizer

        record, place = self._record, self._folder.data
        tokenizer = load_tokenizer(place / "tokenizer")
        inputs = f"{record.text.fingerprint} {tokenizer.fingerprint} {record.text.share}"
        log.info("== token stores")
        stores = self._stores
        if self._folder.is_finished("stores", inputs) and all(s.is_dir() for s in stores):
            log.info("   done before")
            return
        built = data_build(
            self._files, tokenizer=place / "tokenizer", out=stores[0], overwrite=True,
            hold_out=record.text.share, drop_duplicates=self._asked.drop_duplicates,
            **self._reading,
        )  # fmt: skip
        assert built.held_out is not None
        log.info("   %s tokens to train on, %s held out", f"{built.store.tokens:,}",
                 f"{built.held_out.tokens:,}")  # fmt: skip
        self._folder.finish("stores", inputs)

    @property
    def _stores(self) -> tuple[Path, Path]:
        from blankfill.data.hold_out import held_out_path

        store = self._folder.data / "store"
        return store, held_out_path(store)

    # -- the run ----------------------------------------------------------------------------------

    def _train(self) -> bool:
        from blankfill.runs import list_checkpoints, newest_checkpoint, read_run

        run, (store, held_out) = self._folder.path, self._stores
        resume = self._folder.has_run
        if resume:
            cfg = read_run(run).config
        else:
            cfg, expected = plan_training(
                find_preset(self._record.preset), self._asked, store, held_out,
                self._folder.data / TRIAL,
            )  # fmt: skip
            self._folder.write(replace(self._record, expected=expected))
        log.info("== training: %s steps", f"{cfg.train.steps:,}")
        if list_checkpoints(run) and newest_checkpoint(run, []).step >= cfg.train.steps:
            log.info("   done before")
            return True
        if resume:
            return pretrain(resume=run, data=store, validation=held_out).finished
        return pretrain(
            self._record.preset, data=store, validation=held_out, out=run, config=cfg
        ).finished

    # -- the end ----------------------------------------------------------------------------------

    def _conclude(self) -> TrainResult:
        """Evaluate the best checkpoint, report, and fill blanks."""
        from blankfill.runs import best_validation, newest_checkpoint

        run, (_, held_out) = self._folder.path, self._stores
        best = best_validation(run)
        step = newest_checkpoint(run, []).step if best is None else best.step
        with self._part("evaluation"):
            log.info("== evaluation of step %s on the held-out text", f"{step:,}")
            blanks = self._evaluate(step, held_out)
        with self._part("report and fills"):
            page = report(run, out=run / "report.html").path
            fills = fill_held_out(run, step)
        return self._result(
            finished=True, best_step=step, evaluation=blanks, fills=fills, report=page,
            next=commands_to_go_on(run, self._record, fills, step),
        )  # fmt: skip

    def _evaluate(self, step: int, held_out: Path) -> BlankReport:
        from blankfill.runs import read_evaluation

        run = self._folder.path
        known = None
        if self._folder.is_finished("evaluation", str(step)):
            with suppress(CheckpointError):  # damaged, or by an earlier law: done again
                known = read_evaluation(run)
        if known is not None and known.step == step:
            log.info("   done before")
            return known.blanks
        (found,) = evaluate(run, data=held_out, checkpoint=step).runs
        self._folder.finish("evaluation", str(step))
        return found.blanks

    def _result(self, *, finished: bool, **ending: Any) -> TrainResult:
        from blankfill.runs import list_checkpoints, newest_checkpoint, read_run

        run, record = self._folder.path, self._record
        assert record.expected is not None, "a run without a plan"
        return TrainResult(
            run=str(run), finished=finished, documents=record.text.documents,
            skipped=record.text.skipped, vocab_size=record.vocab_size, preset=record.preset,
            expected=record.expected,
            step=newest_checkpoint(run, []).step if list_checkpoints(run) else 0,
            steps=read_run(run).config.train.steps, seconds=self._seconds, **ending,
        )  # fmt: skip
