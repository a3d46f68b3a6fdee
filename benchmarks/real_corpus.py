"""Record a run on real text: held-out blanks beside n-gram models, hand-picked fills, curves.

    python benchmarks/real_corpus.py RUN --data VALID... --picture docs/pictures/real-corpus.png

Evaluates the run on held-out stores as `blankfill evaluate` does, fills the hand-picked blanks of
real_corpus_blanks.jsonl as `blankfill fill` does, draws the loss over steps, and writes
real-corpus-CPU-DATE.json into the folder of results.
"""

import argparse
import dataclasses
import json
import os
import platform
from pathlib import Path

from result_file import cpu_label, result_path

from blankfill.api.evaluate import evaluate
from blankfill.api.infill import fill
from blankfill.evaluate.pictures import draw_curves
from blankfill.metrics import read_metrics

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--max-blanks", type=int, default=4000, help="of each language")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    (evaluation,) = evaluate(args.run, data=args.data, max_blanks=args.max_blanks).runs
    metrics = read_metrics(args.run)
    if args.picture:
        draw_curves(metrics, evaluation.blanks, args.picture)
    rates = sorted(r["positions_per_second"] for r in metrics if "positions_per_second" in r)
    manifest = json.loads((args.run / "run.json").read_text(encoding="utf-8"))
    record = {
        "cpu": cpu_label(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "config": manifest["config"],
        "steps": evaluation.step,
        "positions_per_second_median": rates[len(rates) // 2],
        "law": dataclasses.asdict(evaluation.blanks.law),
        "evaluation": [dataclasses.asdict(r) for r in evaluation.blanks.languages],
        "rows": evaluation.rows,
        "validation": [
            {k: v for k, v in row.items() if k == "step" or k.startswith("validation")}
            for row in metrics
            if "validation_loss_nats" in row
        ],
        "fills": fills(args.run),
    }
    path = result_path(args.results, "real-corpus")
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


def fills(run):
    lines = (HERE / "real_corpus_blanks.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    found = fill(run, [item["text"] for item in items])
    return [
        {
            **item,
            "answer": result.blanks[0].text,
            "probability": round(result.blanks[0].probability, 4),
            "expected": result.blanks[0].text.strip() in item["answers"],
        }
        for item, result in zip(items, found.items, strict=True)
    ]


if __name__ == "__main__":
    main()
