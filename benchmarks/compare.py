"""Set runs beside each other on the same held-out blanks, with what differs in their settings.

    python benchmarks/compare.py --runs fixed=runs/a uniform=runs/b --data VALID... --name ratio-law

Each run is evaluated as `blankfill evaluate` does, all on the same blanks. Prints a table and
writes NAME-CPU-DATE.json into the folder of results.
"""

import argparse
import dataclasses
import json
import os
import statistics
from pathlib import Path

from result_file import result_path

from blankfill.config.run import to_dict
from blankfill.data.store import TokenStore
from blankfill.evaluate.blanks import evaluate_blanks
from blankfill.evaluate.held_out import draw_held_out
from blankfill.generate import LanguageModel
from blankfill.metrics import read_metrics
from blankfill.runs import read_run
from blankfill.runtime import cpu_name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True, help="NAME=FOLDER of each")
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="held-out stores")
    parser.add_argument("--max-blanks", type=int, default=400, help="of each language")
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    named = [entry.partition("=")[::2] for entry in args.runs]
    runs = {name: LanguageModel.load(Path(folder)) for name, folder in named}
    first = next(iter(runs.values()))
    held_out = [TokenStore.open(path) for path in args.data]
    blanks = draw_held_out(held_out, max_blanks=args.max_blanks)
    configs = {name: to_dict(run.cfg) for name, run in runs.items()}
    config = next(iter(configs.values()))
    trained = [TokenStore.open(Path(entry.path)) for entry in read_run(first.path).data]
    record = {
        "cpu": cpu_name(), "cores": os.cpu_count(), "config": config,
        "law": dataclasses.asdict(blanks.law), "runs": {},
    }  # fmt: skip
    for name, run in runs.items():
        report = evaluate_blanks(run, blanks, train_stores=trained if run is first else ())
        rates = [r["positions_per_second"] for r in read_metrics(run.path) if "loss_nats" in r]
        record["runs"][name] = {
            "differs": differences(config, configs[name]),
            "steps": run.step,
            "positions_per_second": round(statistics.median(rates)),
            "languages": [dataclasses.asdict(language) for language in report.languages],
        }
    show(record)
    path = result_path(args.out, args.name)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def differences(ours, theirs):
    return {
        f"{part}.{key}": value
        for part, values in theirs.items()
        for key, value in values.items()
        if value != ours[part].get(key)
    }


def show(record):
    head = ("run", "", "system", "reads", "nats/character", "nats of end", "exact", "given length")
    line = "{:14} {:3} {:8} {:11} {:>16} {:>16} {:>14} {:>14}"
    print(line.format(*head))
    for name, run in record["runs"].items():
        for language in run["languages"]:
            for score in language["scores"]:
                values = [number(score["loss_nats_per_character"]), number(score["end_loss_nats"]),
                          percent(score["exact_match"]),
                          percent(score["exact_match_given_length"])]  # fmt: skip
                print(line.format(name, language["language"], score["system"], score["reads"],
                                  *values))  # fmt: skip


def number(score):
    return "" if score is None else f"{score['value']:.3f} +-{score['standard_error'] or 0:.3f}"


def percent(score):
    return "" if score is None else f"{score['value']:.1%} +-{score['standard_error'] or 0:.1%}"


if __name__ == "__main__":
    main()
