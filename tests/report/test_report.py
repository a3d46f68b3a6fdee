"""A report holds what the run folder holds, needs nothing else, and survives damaged folders."""

import json
import re
from html.parser import HTMLParser

import pytest

from blankfill.api import report
from blankfill.cli.main import main
from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig, to_dict
from blankfill.config.train import TrainConfig
from blankfill.errors import CheckpointError, OutputError
from blankfill.report.chart import MAX_POINTS, Chart, Line, draw_chart
from blankfill.report.labels import Labels, text_width
from blankfill.report.read import Point
from blankfill.report.words import WORDS
from blankfill.runs import Evaluation, write_evaluation, write_run
from blankfill.runs.evaluation import (
    BlankLaw,
    BlankReport,
    BlankScores,
    Estimate,
    LanguageReport,
)
from blankfill.runs.made_with import Hardware
from blankfill.runs.record import StoreEntry
from conftest import run_record

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Collects text by table cell, attributes, and whether every element is closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.rows, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "elements are left open"

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, name):
        return next(cells[1:] for cells in self.rows if cells and cells[0] == name)


def line(step, **values):
    return {
        "step": step, "loss_nats": 9.5 - step / 10, "loss_nats_en": 9.0, "loss_nats_zh": 9.2,
        "loss_nats_short": 8.0, "loss_nats_document": 9.9, "grad_norm": 1.25,
        "learning_rate": 1e-3, "epoch": 0.5, "positions_per_second": 1000.0,
        "targets_per_second": 300.0, "mfu": 0.25, "peak_flops_per_second": 4e10,
        "flops_per_second_model": 1e10, "flops_per_second_dense": 2e10, **values,
    }  # fmt: skip


VALIDATION = {
    "validation_loss_nats": 7.1234, "validation_blank_loss_nats_en": 6.5,
    "validation_exact_match_en": 0.125, "validation_loss_nats_en": 7.0,
    "validation_loss_nats_zh": 7.3,
}  # fmt: skip
SAMPLE = {
    "language": "en", "before": "The ", "truth": "quick fox", "answer": "slow <b>dog",
    "after": " jumps & runs.", "probability": 0.25, "correct": False,
}  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    def make(name, rows=None, samples=(), evaluation=None, changes=None):
        run = tmp_path / name
        run.mkdir(parents=True)
        cfg = RunConfig(
            model=ModelConfig(hidden_size=32, num_layers=2, num_heads=2, ffn_size=48),
            objective=ObjectiveConfig(),
            train=TrainConfig(steps=30, row_length=128, batch_rows=4, micro_batch_rows=4),
        ).changed(changes or {})
        machine = Hardware(machine="x86_64", system="Linux", cpu="x", cores=1,
                           peak_source="measured peak, float32, 1 thread")  # fmt: skip
        store = StoreEntry(path="/d/en", documents=12, tokens=3456, fingerprint="ab" * 20)
        started = "2026-01-02T03:04:05+00:00"
        write_run(run, run_record(cfg, data=(store,), started=started, hardware=machine))
        if rows is None:
            rows = [*(line(step) for step in (10, 20, 30)), {"step": 30, **VALIDATION}]
        (run / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        (run / "samples.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in samples), encoding="utf-8"
        )
        if evaluation is not None:
            (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
        return run

    return make


def page_of(*runs, lang="en", out=None):
    out = out or runs[0].parent / "report.html"
    report(list(runs), out=out, lang=lang)
    return Page(out.read_text(encoding="utf-8"))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_is_whole_and_refers_to_nothing_outside(make_run, lang):
    samples = [{"step": 20, **SAMPLE}, {"step": 30, **SAMPLE, "answer": "quick fox"}]
    run = make_run("mine", samples=samples)
    page = page_of(run, make_run("other", changes={"schedule.peak_lr": 5e-3}), lang=lang)
    assert ("html", "lang", lang) in page.attributes
    for _, name, value in page.attributes:
        assert name not in ("src", "href", "srcset", "action", "data")
        assert "//" not in (value or "")
    source = (run.parent / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", source)


def test_final_figures_are_those_of_the_metrics(make_run):
    page = page_of(make_run("mine"))
    assert page.row("Training loss, nats") == ["6.5000"]
    assert page.row("Validation loss, nats") == ["7.1234"]
    assert page.row("Filled exactly, English") == ["12.5%"]
    assert page.row("Optimizer steps") == ["30 / 30"]
    assert page.row("Positions seen") == [f"{30 * 4 * 128:,}"]
    assert page.row("MFU, median") == ["25.0%"]
    assert page.row("Training time") == ["0 min 15 s"]  # 15,360 positions, 1,000 a second


def test_several_runs_stand_side_by_side_with_what_differs(make_run):
    rows = [line(10, loss_nats=5.0)]
    other = make_run("b/mine", rows=rows, changes={"schedule.peak_lr": 5e-3})
    page = page_of(make_run("a/mine"), other)
    assert page.row("Training loss, nats") == ["6.5000", "5.0000"]
    assert page.row("schedule.peak_lr") == ["0.001", "0.005"]
    assert not any(cells and cells[0] == "train.steps" and len(cells) == 3 for cells in page.rows)
    assert "a/mine" in page.text
    assert "b/mine" in page.text


def test_equal_runs_have_no_differences(make_run):
    assert any("same configuration" in text for text in page_of(make_run("a"), make_run("b")).text)


def test_what_a_resumed_run_changed_is_told_with_its_step(make_run):
    run = make_run("mine")
    assert "Changed on the way" not in page_of(run).text
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    values = {"schedule.peak_lr": 1e-4, "shares": [0.5, 0.5]}
    info["changes"] = [{"step": 1200, "values": values}]
    (run / "run.json").write_text(json.dumps(info), encoding="utf-8")
    page = page_of(run)
    assert "Changed on the way" in page.text
    assert ["1,200", "schedule.peak_lr", "0.0001"] in page.rows
    assert ["1,200", "shares", "[0.5, 0.5]"] in page.rows


def test_a_fill_is_shown_as_it_is_and_cannot_become_markup(make_run):
    hostile = {**SAMPLE, "answer": "</script><script>alert(1)</script>", "step": 30}
    page = page_of(make_run("mine<i>", samples=[hostile]))
    assert "</script><script>alert(1)</script>" in page.text
    assert "mine<i>" in page.text
    assert not any(tag == "i" and name == "onload" for tag, name, _ in page.attributes)


def evaluation(language="en", **law):
    """What `blankfill evaluate` leaves in a run's folder."""

    def estimate(value):
        return Estimate(value=value, standard_error=value / 100)

    scores = tuple(
        BlankScores(
            system=system, reads=reads, exact_match=exact and estimate(exact),
            exact_match_given_length=estimate(0.3), loss_nats_per_token=estimate(loss),
            loss_nats_per_character=estimate(loss / 5), loss_nats_per_word=estimate(loss),
            bits_per_byte=estimate(2.0), end_loss_nats=exact and estimate(0.5),
        )
        for system, reads, loss, exact in (
            ("model", "both sides", 6.25, 0.1), ("model", "left side", 7.0, None),
            ("trigram", "two tokens", 7.75, None), ("unigram", "nothing", 8.5, None),
        )
    )  # fmt: skip
    report = LanguageReport(
        language=language, num_documents=12, num_blank_documents=7, num_blanks=9, num_words=30,
        num_characters=150, num_tokens=40, scores=scores,
    )  # fmt: skip
    asked = {
        "name": "words", "version": 1, "seed": 0, "max_blanks": 400, "max_words": 6,
        "window_characters": {"en": 256}, "text_fingerprint": "ab" * 32,
        "blanks_fingerprint": "cd" * 32,
    }  # fmt: skip
    return Evaluation(step=30, blanks=BlankReport(law=BlankLaw(**asked | law), languages=(report,)))


def with_score(value, **fields):
    value["blanks"]["languages"][0]["scores"][0].update(fields)
    return value


def test_a_recorded_evaluation_puts_the_baselines_into_the_chart_and_a_table(make_run):
    run = make_run("mine")
    write_evaluation(run, evaluation())
    page = page_of(run)
    assert "trigram 7.75" in page.text
    same = ["30.0% \u00b1\u20090.3"]
    losses = ["1.550 \u00b1\u20090.015", "7.750 \u00b1\u20090.077", "2.000 \u00b1\u20090.020"]
    assert page.row("trigram") == ["two tokens", "\u2013", *same, *losses]
    assert page.row("model")[:3] == ["both sides", "10.0% \u00b1\u20090.1", *same]
    assert "9 blanks in 7 documents" in page.text
    html = (run.parent / "report.html").read_text(
        encoding="utf-8"
    )  # a narrow page says it in each cell
    assert html.count('<td data-above="nats per token">') == 4


def test_evaluations_that_asked_the_same_stand_side_by_side(make_run):
    runs = [make_run(name) for name in "ab"]
    for run in runs:
        write_evaluation(run, evaluation())
    page = page_of(*runs)
    rows = [cells for cells in page.rows if cells[1:3] == ["trigram", "two tokens"]]
    assert [cells[0] for cells in rows] == ["a", "b"]
    assert not any("not set side by side" in text for text in page.text)


@pytest.mark.parametrize(
    ("law", "said"),
    [
        ({"version": 2}, "law: words 1 (a, b), words 2 (c)"),
        ({"seed": 7}, "seed: 0 (a, b), 7 (c)"),
        ({"max_blanks": 4000}, "blanks of each language: 400 (a, b), 4,000 (c)"),
        ({"text_fingerprint": "ef" * 32}, "held-out text: abababababab (a, b), efefefefefef (c)"),
        ({"blanks_fingerprint": "01" * 32}, "blanks: cdcdcdcdcdcd (a, b), 010101010101 (c)"),
        ({"seed": 7, "blanks_fingerprint": "01" * 32}, "seed: 0 (a, b), 7 (c). Evaluate them"),
    ],
)
def test_unlike_evaluations_are_not_set_side_by_side_and_it_says_which_and_why(
    make_run, caplog, law, said
):
    runs = [make_run(name) for name in "abc"]
    for run, asked in zip(runs, ({}, {}, law), strict=True):
        write_evaluation(run, evaluation(**asked))
    page = page_of(*runs)
    (reason,) = [text for text in page.text if "not set side by side" in text]
    assert said in reason
    assert f"blankfill evaluate {' '.join(map(str, runs))} --data" in reason
    assert said in caplog.text
    assert not any("trigram" in text for text in page.text)
    assert not any("trigram" in cell for cells in page.rows for cell in cells)
    assert "Training report" in "".join(page.text)
    write_evaluation(runs[2], evaluation())
    assert not any("not set side by side" in text for text in page_of(*runs).text)


def test_a_run_that_was_not_evaluated_keeps_none_from_being_shown(make_run):
    runs = [make_run(name) for name in "ab"]
    write_evaluation(runs[0], evaluation(seed=3))
    assert page_of(*runs).row("a")[:2] == ["model", "both sides"]


def test_an_evaluation_of_an_earlier_blankfill_is_told_as_such(make_run, caplog):
    old = {"format": "blankfill evaluation", "version": 1, "step": 30, "blanks": {"languages": []}}
    page = page_of(make_run("mine", evaluation=old))
    assert "Beside the baselines" not in page.text
    assert "by its own objective" in caplog.text
    assert "evaluate the run again" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"step": 10, "loss_na',
        b"\xff\xfe\x00garbage\n[1, 2]\n{}\n" + b'{"step": "x", "loss_nats": 1}\n',
        b'{"step": 10, "loss_nats": NaN, "grad_norm": Infinity, "learning_rate": null}\n',
        json.dumps(line(1)).encode() + b"\n",
        json.dumps(line(10)).encode() + b"\n" + json.dumps(line(20)).encode()[:-9],
        json.dumps(line(0, loss_nats=0.0, grad_norm=0.0, positions_per_second=0.0)).encode(),
        json.dumps({"step": 5, "loss_nats": [1], "grad_norm": "3", "mfu": {}}).encode(),
        json.dumps(line(10, loss_nats=1e300, grad_norm=-5.0, learning_rate=1e-300)).encode(),
        json.dumps(line(-(10**30))).encode(),
    ],
)
def test_a_damaged_folder_still_gives_a_report(make_run, content):
    run = make_run("mine")
    (run / "metrics.jsonl").write_bytes(content)
    (run / "samples.jsonl").write_bytes(content)
    (run / "evaluation.json").write_bytes(content)
    assert "Training report" in "".join(page_of(run).text)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: [],
        lambda _: {},
        lambda value: value | {"blanks": 3},
        lambda value: value | {"blanks": {"languages": [7, {}]}},
        lambda value: value | {"version": 99},
        lambda value: value["blanks"].pop("law") and value,
        lambda value: with_score(value, system=None),
        lambda value: with_score(value, reads="minds"),
        lambda value: with_score(value, bits_per_byte={"value": float("nan")}),
    ],
)
def test_a_damaged_evaluation_is_left_out(make_run, damage):
    run = make_run("r")
    write_evaluation(run, evaluation())
    path = run / "evaluation.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(damage(value)), encoding="utf-8")
    page = page_of(run)
    assert "Held-out blanks, English" in "".join(page.text)
    assert "Beside the baselines" not in page.text


def test_a_run_without_metrics_says_so(make_run):
    run = make_run("mine")
    (run / "metrics.jsonl").unlink()
    (run / "samples.jsonl").unlink()
    assert any("no line of metrics yet" in text for text in page_of(run).text)


def test_values_that_are_not_finite_are_counted(make_run):
    rows = [line(10), line(20, loss_nats=float("nan"), grad_norm=float("inf"))]
    assert any("2 values are not finite" in text for text in page_of(make_run("m", rows=rows)).text)


def test_mistakes_are_one_sentence_and_nothing_is_lost(make_run, tmp_path, capsys):
    run = make_run("mine")
    with pytest.raises(CheckpointError, match="not a run"):
        report([tmp_path / "nowhere"], out=tmp_path / "r.html")
    mine = tmp_path / "thesis.html"
    mine.write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(OutputError, match="would be lost"):
        report([run], out=mine)
    assert mine.read_text(encoding="utf-8") == "<p>mine</p>"
    with pytest.raises(OutputError, match="folder"):
        report([run], out=tmp_path)
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_prints_where_the_report_is_and_replaces_an_earlier_one(
    make_run, tmp_path, capsys
):
    words = ["report", str(make_run("mine")), "--out", str(tmp_path / "new" / "r.html"), "--json"]
    for _ in range(2):
        assert main(words) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["runs"] == ["mine"]
        assert (tmp_path / "new" / "r.html").stat().st_size == result["num_bytes"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["r.html"]


def test_every_word_is_in_both_languages():
    for key, (en, zh) in WORDS.items():
        assert en.isprintable(), key
        assert en, key
        assert re.search(r"[\u4e00-\u9fff]", zh) or "{}" in zh, key
        assert en.count("{") == zh.count("{"), key
        assert not re.search(r"[\u4e00-\u9fff]", en), key


def test_a_chinese_report_has_no_english_headings(make_run):
    text = page_of(make_run("mine"), lang="zh").text
    names = {*to_dict(RunConfig()), *Hardware.__slots__}  # of fields, which are not translated
    assert not {en for en, _ in WORDS.values()} & {t.strip() for t in text} - names


def test_a_chart_places_first_and_last_point_on_its_edges():
    chart = Chart(
        title="t", unit="u", x_name="step", from_zero=True,
        lines=[Line(name="a", points=[Point(0, 0.0), Point(10, 50.0), Point(20, 100.0)])],
    )  # fmt: skip
    path = re.search(r'class="line"[^>]* d="M([^"]*)"', draw_chart(chart)).group(1)
    places = [tuple(map(float, place.split())) for place in path.split("L")]
    assert places[0] == (46.0, 212.0)  # the axes' corner
    assert places[1][0] == pytest.approx((places[0][0] + places[2][0]) / 2)
    assert places[1][1] == pytest.approx((places[0][1] + places[2][1]) / 2, abs=0.1)
    assert places[2][0] == 390.0


def test_long_lines_are_drawn_by_means_and_keep_their_last_value():
    points = [Point(i, 3.0 if i < 99_999 else 7.0) for i in range(100_000)]
    drawn = draw_chart(
        Chart(title="t", unit="u", x_name="s", lines=[Line(name="a", points=points)])
    )
    data = json.loads(re.search(r"<script[^>]*>(.*)</script>", drawn).group(1))
    shown = data["lines"][0]["points"]
    assert len(shown) == MAX_POINTS
    assert shown[0][2] == "3"
    assert shown[-1][1:] == ["100k", "7"]
    assert len(drawn) < 60_000


def falling(levels=(), **options):
    points = [Point(0, 9.7), *(Point(i, 4 - i / 100) for i in range(10, 210, 10))]
    lines = [Line(name="loss", points=points)]
    lines += [Line(name=n, points=[Point(0, v)], style="level") for n, v in levels]
    return Chart(title="t", unit="nats", x_name="step", lines=lines, **options)


def ticks_of(drawn):
    """The values beside the vertical axis."""
    return [float(t) for t in re.findall(r'<text x="40" [^>]*>([\d.]+)</text>', drawn)]


def test_the_untrained_loss_does_not_set_the_axis_and_is_told():
    whole = draw_chart(falling())
    cut = draw_chart(falling(falls=True, start_note="from {} at step {}"))
    assert max(ticks_of(whole)) >= 8
    assert max(ticks_of(cut)) <= 4
    assert "from 9.7 at step 0" in cut


def test_a_line_of_two_points_is_not_cut_to_its_end():
    lines = [
        Line(name=n, points=[Point(0, 7.3), Point(28, v)]) for n, v in (("a", 4.6), ("b", 4.8))
    ]
    drawn = draw_chart(Chart(title="t", unit="nats", x_name="step", lines=lines, falls=True,
                             start_note="from {} at step {}"))  # fmt: skip
    assert max(ticks_of(drawn)) >= 7
    assert "from" not in drawn


def test_a_rise_is_never_cut_off():
    rising = [Point(0, 1.0), *(Point(i, i / 10) for i in range(10, 210, 10))]
    chart = Chart(
        title="t", unit="nats", x_name="step", lines=[Line(name="a", points=rising)],
        falls=True, start_note="from {} at step {}",
    )  # fmt: skip
    assert max(ticks_of(draw_chart(chart))) >= 20
    assert "from" not in draw_chart(chart)


def test_names_of_levels_stand_clear_of_each_other_and_of_the_curve():
    drawn = draw_chart(falling([("unigram", 3.0), ("trigram", 2.97)], falls=True))
    boxes = []
    for x, y, anchor, text in re.findall(
        r'<text class="level" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]*)<', drawn
    ):
        left = float(x) if anchor == "start" else float(x) - text_width(text)
        boxes.append((left, float(y) - 10, left + text_width(text), float(y) + 3))
    (a, b) = boxes
    assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    path = re.search(r'class="line"[^>]* d="M([^"]*)"', drawn).group(1)
    for place in path.split("L"):
        px, py = map(float, place.split())
        assert not any(x1 <= px <= x2 and y1 <= py <= y2 for x1, y1, x2, y2 in boxes)


def test_labels_on_one_height_do_not_touch():
    labels = Labels([])
    first = labels.draw("unigram 5.496", [(50.0, 20.0, "start")])
    assert 'x="50.0"' in first
    end = 50 + text_width("unigram 5.496")
    spots = [(end + gap, 20.0, "start") for gap in (0.0, 4.0, 12.0)]
    assert f'x="{end + 12.0}"' in labels.draw("from 6.156 at step 0", spots)


def test_axes_are_named():
    assert ">step \u2192</text>" in draw_chart(falling())
