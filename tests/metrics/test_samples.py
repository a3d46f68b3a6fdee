"""Sample fills on disk: what is written is read, and resuming drops what comes after."""

import dataclasses
import json
import math

import pytest

from blankfill.metrics import MetricsWriter, Sample, read_metrics, read_samples

SAMPLE = Sample(
    language="zh", before="从前", truth="有座山", answer="有一天\ud800", after="。",
    probability=0.5, correct=False,
)  # fmt: skip
ROW = {"step": 2, **dataclasses.asdict(SAMPLE)}


def test_samples_are_read_as_they_were_written_and_later_ones_dropped(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (0, 10, 20):
            writer.write_samples(step, [SAMPLE, SAMPLE])
    rows = read_samples(tmp_path)
    assert [row.step for row in rows] == [0, 0, 10, 10, 20, 20]
    assert rows[0].sample.before == "从前"
    with (tmp_path / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 30, "lang')
    with MetricsWriter(tmp_path, start_step=10) as writer:
        assert [row.step for row in read_samples(tmp_path)] == [0, 0, 10, 10]
        writer.rewind(5)
        writer.write_samples(6, [SAMPLE])
    assert [row.step for row in read_samples(tmp_path)] == [0, 0, 6]
    lines = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(next(iter(json.loads(line))) == "step" for line in lines)


def test_a_new_run_begins_without_samples(tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"step": 3}\n', encoding="utf-8")
    with MetricsWriter(tmp_path):
        pass
    assert read_samples(tmp_path) == []


@pytest.mark.parametrize(
    "broken",
    [{"step": 2}, {"step": True}, {**ROW, "step": "2"}, {**ROW, "answer": None},
     {**ROW, "correct": 1}, {**ROW, "probability": "0.5"}, {**ROW, "more": 1}, [], 7],
)  # fmt: skip
def test_lines_of_another_form_are_left_out(tmp_path, broken):
    lines = [ROW, broken, {**ROW, "step": 3, "probability": 1}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "samples.jsonl").write_text(text, encoding="utf-8")
    assert [(one.step, one.sample.probability) for one in read_samples(tmp_path)] == [
        (2, 0.5), (3, 1),
    ]  # fmt: skip


def test_what_is_no_number_reads_as_nan(tmp_path):
    text = '{"step": 1, "loss_nats": 2.5, "a": null, "b": "3", "c": [1], "d": true, "e": NaN}\n'
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    (row,) = read_metrics(tmp_path)
    assert (row.pop("step"), row.pop("loss_nats")) == (1, 2.5)
    assert list(row) == ["a", "b", "c", "d", "e"]
    assert all(math.isnan(value) for value in row.values())


def test_tensorboard_has_the_fills_as_text(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path) as writer:
        writer.write_samples(7, [Sample(
            language="en", before="The ", truth="fox", answer="dog", after=" runs.",
            probability=0.5, correct=False,
        )])  # fmt: skip
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    (event,) = events.Tensors("fills_en/0/text_summary")
    assert event.step == 7
    assert b"**[dog]** (*fox*)" in event.tensor_proto.string_val[0]
