"""From a seed to documents: training text, and held-out text that training never saw."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blankfill import atomic, rng
from blankfill.demo.corpus import chinese, english
from blankfill.demo.corpus.story import draw_story
from blankfill.demo.corpus.world import build_world

__all__ = ["Corpus", "DemoDocument", "generate", "write_corpus"]

NUM_TRAIN = {"en": 10_000, "zh": 14_000}
"""Training documents of each language; Chinese needs a little more practice."""
NUM_VALID = 300
"""Held-out documents of each language."""


@dataclass(frozen=True, slots=True)
class DemoDocument:
    """One short text."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The demo's text."""

    train: list[DemoDocument]
    """Both languages, shuffled."""
    valid: dict[str, list[DemoDocument]]
    """Held-out documents by language. Half of them tell of combinations of people that no training
    document of either language tells of; the others are new tellings."""


def generate(seed: int, *, num_train: int | None = None, num_valid: int = NUM_VALID) -> Corpus:
    """Write the corpus that a seed stands for.

    Args:
        seed: of the world and of every document.
        num_train: training documents of each language; `NUM_TRAIN` where not given.
        num_valid: held-out documents of each language.
    """
    world = build_world(seed)
    train: list[DemoDocument] = []
    valid: dict[str, list[DemoDocument]] = {}
    seen: set[str] = set()
    for language, teller in (("en", english.tell), ("zh", chinese.tell)):
        draw = rng.generator(seed, "stories", language)
        told: list[DemoDocument] = []
        while len(told) < (num_train or NUM_TRAIN[language]):
            story = draw_story(world, draw)
            if not story.held_out:
                told.append(DemoDocument(teller(story, draw), language))
        seen |= {document.text for document in told}
        train += told
        new: list[DemoDocument] = []
        combinations = 0
        while len(new) < num_valid:
            story = draw_story(world, draw)
            document = DemoDocument(teller(story, draw), language)
            enough = combinations >= num_valid // 2
            if document.text in seen or (not story.held_out and not enough):
                continue
            combinations += story.held_out
            new.append(document)
            seen.add(document.text)
        valid[language] = new
    order = rng.generator(seed, "order").permutation(len(train))
    return Corpus([train[i] for i in order], valid)


def write_corpus(folder: Path, *, seed: int) -> Corpus:
    """Write train.jsonl, valid.en.jsonl and valid.zh.jsonl, each complete or not at all."""
    corpus = generate(seed)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "train.jsonl", corpus.train)
    for language, documents in corpus.valid.items():
        _write(folder / f"valid.{language}.jsonl", documents)
    return corpus


def _write(path: Path, documents: Iterable[DemoDocument]) -> None:
    with atomic.new_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for document in documents:
            line = {"text": document.text, "lang": document.language}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
