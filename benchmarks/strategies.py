"""Which strategy fills several blanks of one text best, and what beams and N-best lists add.

    python benchmarks/strategies.py RUN --data HELD_OUT_STORE... --blanks 1000

Held-out blanks of one to six words, by the law of `blankfill evaluate` with several seeds; those
that stand near each other in a document become one text with up to three blanks. Every system
fills the same texts. Of each: exact match (the fill ends there by itself), chrF, the nats per token
of the true text behind what the system sees of the other blanks, the length ratio, and what it
costs: forward positions and seconds. Each is compared with left_to_right by a paired permutation
test over documents. Writes strategies-CPU-DATE.json into the folder of results.
"""

import argparse
import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from result_file import cpu_label, result_path

from blankfill.config.filling import BeamSearch, Wish
from blankfill.data.store import TokenStore
from blankfill.evaluate.held_out import draw_held_out, read_texts
from blankfill.evaluate.law import MAX_CHARACTERS, WINDOW
from blankfill.generate import LanguageModel, fill_tokens
from blankfill.generate.known import known_logprobs
from blankfill.generate.prompts import checked_prompt
from blankfill.generate.writing import Writing
from blankfill.model.glm import GLM
from blankfill.objective.frame import frame_text

HERE = Path(__file__).parent
SEEDS = 4
"""Blanks are drawn by the law once for each seed: so many in a stretch of text at most."""
BLANKS_OF_TEXT = 3
LEAST_BETWEEN = {"en": 12, "zh": 6, "other": 12}
"""Least characters between two blanks of one text."""
MOST_BETWEEN = {"en": 160, "zh": 60, "other": 160}
FLIPS = 10_000
"""Draws of the permutation test."""
STRATEGIES = ("left_to_right", "confident", "independent", "refine", "splice")


@dataclass(frozen=True)
class Item:
    """One text with its blanks, in a model's tokens."""

    document: str
    prompt: np.ndarray
    masks: list[int]
    spans: list[np.ndarray]
    truths: list[str]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--blanks", type=int, default=1000, help="of each language")
    parser.add_argument("--beams", nargs="*", type=int, default=[2, 3, 5, 10])
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    lm = LanguageModel.load(args.run)
    items = draw_items(lm, [TokenStore.open(path) for path in args.data], args.blanks)
    record = {
        "run": str(args.run), "step": lm.step, "cpu": cpu_label(),
        "threads": torch.get_num_threads(), "command": vars(args) | {
            "run": str(args.run), "data": [str(path) for path in args.data],
            "results": str(args.results),
        }, "languages": {},
    }  # fmt: skip
    for language, found in items.items():
        record["languages"][language] = measure(lm, found, args)
    path = result_path(args.results, "strategies")
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


def systems(args):
    """Name every system: a wish, and how many fills are listed."""
    found = {name: (Wish(strategy=name), 1) for name in STRATEGIES}
    for width in args.beams:
        for penalty in ("none", "glm", "glm-130b"):
            beams = BeamSearch(width=width, penalty=penalty)
            found[f"beams {width}, {penalty}"] = (Wish(beams=beams), 1)
    count = args.candidates
    found[f"{count} best, greedy"] = (Wish(), count)
    found[f"{count} best, beams"] = (Wish(beams=BeamSearch(width=count)), count)
    joint = BeamSearch(width=count, penalty="none")
    found[f"{count} best together"] = (Wish(beams=joint, joint=True), count)
    return found


# The texts.


def draw_items(lm, stores, wanted):
    """Draw texts with one to three blanks, until a language has as many blanks as are wanted."""
    documents = {}
    for texts in read_texts(stores).values():
        for whole in texts:
            text = whole[:MAX_CHARACTERS]
            documents[hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()] = text
    blanks = defaultdict(lambda: defaultdict(set))
    for seed in range(SEEDS):
        drawn = draw_held_out(stores, max_blanks=10 * wanted, seed=seed)
        for language, found in drawn.by_language.items():
            for blank in found:
                blanks[language][blank.document].add((blank.start, blank.text))
    items = {}
    for language, by_document in blanks.items():
        items[language] = []
        for document in sorted(by_document):
            for group in groups_of(sorted(by_document[document]), language):
                item = make_item(lm, documents[document], document, group, WINDOW[language])
                if item is not None:
                    items[language].append(item)
        # Strategies differ where there are several blanks: those texts come first.
        items[language].sort(key=lambda item: -len(item.spans))
        items[language] = items[language][: count_for(items[language], wanted)]
    return items


def groups_of(blanks, language):
    """Part the blanks of a document into groups that stand near each other, without overlaps."""
    group = []
    for start, text in blanks:
        if group:
            between = start - group[-1][0] - len(group[-1][1])
            if between < LEAST_BETWEEN[language]:
                continue
            if between > MOST_BETWEEN[language] or len(group) == BLANKS_OF_TEXT:
                yield group
                group = []
        group.append((start, text))
    if group:
        yield group


def make_item(lm, text, document, group, window):
    """Put one text into tokens; None of one that has no room, or a blank without tokens."""
    encode = lm.tokenizer.encode
    first, last = group[0][0], group[-1][0] + len(group[-1][1])
    parts, spans = [encode(text[max(0, first - window) : first])], []
    for (start, blank), following in zip(group, [*group[1:], None], strict=True):
        end = start + len(blank)
        stop = last + window if following is None else following[0]
        spans.append(encode(blank))
        parts += [[lm.ids.mask], encode(text[end:stop])]
    tokens = frame_text(np.concatenate(parts).astype(np.int32), lm.ids, closed=True)
    room = lm.row_length - sum(2 * len(span) + 4 for span in spans)
    if len(tokens) > room or not all(map(len, spans)):
        return None
    masks = np.flatnonzero(tokens == lm.ids.mask).tolist()
    return Item(document, tokens, masks, spans, [blank for _, blank in group])


def count_for(items, wanted):
    """Give how many texts hold as many blanks as are wanted."""
    sums = np.cumsum([len(item.spans) for item in items])
    return int(np.searchsorted(sums, wanted) + 1)


# The measures.


def measure(lm, items, args):
    sizes = Counter(len(item.spans) for item in items)
    print(f"{sum(len(i.spans) for i in items)} blanks in {len(items)} texts, {dict(sizes)}")
    base = None
    rows = {}
    for name, (wish, count) in systems(args).items():
        found = run(lm, items, wish, count, args.batch_size)
        scores = score(lm, items, found["filled"], wish, count)
        base = base or scores
        rows[name] = summary(items, scores, base) | {
            "positions_per_text": found["positions"] / len(items),
            "seconds_per_text": found["seconds"] / len(items),
        }
        print(
            f"  {name:24} " + "  ".join(f"{k} {v:.4g}" for k, v in rows[name].items()), flush=True
        )
    return {"texts": len(items), "blanks_of_texts": dict(sizes), "systems": rows}


def run(lm, items, wish, count, batch_size):
    """Fill all texts; count the positions that the model reads."""
    positions = [0]
    forward = GLM.forward

    def counted(self, tokens, *rest, **more):
        positions[0] += tokens.numel()
        return forward(self, tokens, *rest, **more)

    longest = max(len(span) for item in items for span in item.spans) + 1
    GLM.forward = counted
    start = time.perf_counter()
    try:
        filled = fill_tokens(
            lm, [item.prompt for item in items], wish=wish, num_candidates=count,
            max_new_tokens=longest, batch_size=batch_size,
        )  # fmt: skip
    finally:
        GLM.forward = forward
    seconds = time.perf_counter() - start
    return {"filled": filled, "positions": positions[0], "seconds": seconds}


def score(lm, items, filled, wish, count):
    """Give per blank: exact, chrF, characters written; and nats of the true text."""
    decode = lm.tokenizer.decode
    scores = defaultdict(list)
    for item, text in zip(items, filled, strict=True):
        assert text.error is None, text.error
        all_right = True
        for truth, fill in zip(item.truths, text.blanks, strict=True):
            written = decode(fill.tokens)
            scores["exact"].append(float(written == truth and fill.ended))
            scores["chrf"].append(chrf(written, truth))
            scores["written"].append(len(written))
            scores["among"].append(
                float(any(decode(f.tokens) == truth and f.ended for f in (fill, *fill.others)))
            )
            scores["document"].append(item.document)
            scores["characters"].append(len(truth))
        for fills in text.together or ([text.blanks] if count == 1 else []):
            right = [decode(f.tokens) == t for f, t in zip(fills, item.truths, strict=True)]
            all_right = all(right)
            if all_right:
                break
        scores["whole"].append(float(all_right) if text.together or count == 1 else np.nan)
    scores["nats"] = span_nats(lm, items, filled, wish.strategy)
    scores["tokens"] = [len(span) for item in items for span in item.spans]
    return {name: np.array(values) for name, values in scores.items()}


def span_nats(lm, items, filled, strategy):
    """Give the nats of the true tokens of each blank, behind what is seen of the others."""
    writings, places = [], []
    number = 0
    for item, text in zip(items, filled, strict=True):
        for blank, tokens, of_prompt, before in contexts(item, text, strategy):
            prompt = checked_prompt(tokens, lm.ids, lm.cfg)
            span = item.spans[blank].tolist()
            forced = [[] for _ in prompt.blanks]
            forced[of_prompt] = [*span, lm.ids.eop]
            writings.append(
                Writing(
                    prompt=prompt, scheme=lm.scheme, enders=(lm.ids.eop, lm.ids.eos),
                    limit=len(span), before=before, order=(of_prompt,), forced=forced,
                )
            )  # fmt: skip
            places.append(number + blank)
        number += len(item.spans)
    nats = np.zeros(number)
    for place, values in zip(places, known_logprobs(lm, writings), strict=True):
        nats[place] = -sum(values[:-1])
    return nats


def contexts(item, text, strategy):
    """Give of each blank what it was filled behind: the blank, the text as it was encoded, the
    number of the blank there, and what stood in Part B."""
    fills = [blank.tokens.tolist() for blank in text.blanks]
    tokens, before = item.prompt, []
    for place, blank in enumerate(text.order):
        if strategy == "splice":
            yield blank, tokens, 0, ()
            at = item.masks[blank] + len(tokens) - len(item.prompt)
            tokens = np.concatenate([tokens[:at], fills[blank], tokens[at + 1 :]]).astype(np.int32)
        elif strategy == "independent":
            yield blank, tokens, blank, ()
        elif strategy == "refine":
            others = [(o, fill) for o, fill in enumerate(fills) if o != blank]
            yield blank, tokens, blank, tuple(others)
        else:
            assert len(before) == place
            yield blank, tokens, blank, tuple(before)
            before.append((blank, fills[blank]))


def chrf(written, truth, *, order=6, beta=2.0):
    """Character n-gram F-score of one fill (Popovic 2015), 0 to 1; spaces are left out."""
    written, truth = written.replace(" ", ""), truth.replace(" ", "")
    precisions, recalls = [], []
    for n in range(1, order + 1):
        ours = Counter(written[i : i + n] for i in range(len(written) - n + 1))
        theirs = Counter(truth[i : i + n] for i in range(len(truth) - n + 1))
        if not theirs:
            break
        shared = sum((ours & theirs).values())
        precisions.append(shared / sum(ours.values()) if ours else 0.0)
        recalls.append(shared / sum(theirs.values()))
    if not recalls:
        return float(written == truth)
    p, r = np.mean(precisions), np.mean(recalls)
    return float((1 + beta**2) * p * r / (beta**2 * p + r)) if p + r else 0.0


def summary(items, scores, base):
    exact, chrf_values = scores["exact"], scores["chrf"]
    found = {
        "exact_match": exact.mean(),
        "among_candidates": scores["among"].mean(),
        "whole_text": np.nanmean(scores["whole"]) if np.isfinite(scores["whole"]).any() else None,
        "chrf": chrf_values.mean(),
        "nats_per_token": scores["nats"].sum() / scores["tokens"].sum(),
        "length_ratio": scores["written"].sum() / scores["characters"].sum(),
        "exact_match_difference": (exact - base["exact"]).mean(),
        "exact_match_p": paired_p(exact - base["exact"], scores["document"]),
        "chrf_difference": (chrf_values - base["chrf"]).mean(),
        "chrf_p": paired_p(chrf_values - base["chrf"], scores["document"]),
    }
    return {k: float(v) for k, v in found.items() if v is not None and np.isfinite(v)}


def paired_p(differences, documents):
    """Probability of so large a difference where signs of documents are drawn: two-sided."""
    _, owner = np.unique(documents, return_inverse=True)
    sums = np.bincount(owner, differences)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    rng = np.random.default_rng(0)
    signs = rng.integers(0, 2, (FLIPS, len(sums)), dtype=np.int8) * 2 - 1
    extreme = (np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12).sum()
    return float((1 + extreme) / (1 + FLIPS))


if __name__ == "__main__":
    main()
