"""A small vocabulary of each published kind, and runs that have one, or none."""

from __future__ import annotations

import json

import sentencepiece

from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.interop.resize import write_resized
from blankfill.text.vocabularies import NoVocabulary, open_vocabulary, save_vocabulary
from conftest import run_record
from interop.runs import ARCHITECTURES, RESIZED, SMALL, make_model

LINES = [
    "the quick brown fox jumps over the lazy dog", "a b c d e f g h i j k l m n o p q r s t u v",
    "\u4f60\u597d\u4e16\u754c \u4eca\u5929\u5929\u6c14\u5f88\u597d", "The old dog sees 3 towns.",
] * 40  # fmt: skip

KINDS = ("icetk", "icetk-plain", "cog-pretrain", "cog-released", "wordpiece", "gpt2", "roberta")
"""Every published vocabulary, each in its two forms where it has two."""

TEXTS = [
    "the quick brown fox", " two  spaces\t\ttab\r\nlines\n\n\n", "x" * 300, "", "   ", " leading",
    "trailing ", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "[S] [E] <0x41> [PAD] <unk> <n> <|tab|>",
    "\u00e9\U0001f388\u200b \u2581 mark", "Upper CASE, 42!", "a" + " " * 200 + "b", "\u0000\u0001",
]  # fmt: skip
"""Plain texts that a careless tokenizer changes."""

PROMPTS = [
    "[MASK]", "the [MASK] fox", "the [MASK] dog [MASK]", "the [MASK] ", " [MASK]\n",
    "a[MASK]b [MASK]", "  [MASK]  jumps\tover ", "\u4f60\u597d[MASK]\u3002",
]  # fmt: skip
MORE_PROMPTS = [
    "the quick[gMASK]",
    "the [sMASK] dog",
    "a [MASK] b [gMASK]",
    "the [gMASK] ",
    "[gMASK]",
]
"""Prompts with blanks that not every vocabulary was trained with."""


def vocabulary_file(kind, folder):
    """Train or build the published file of a kind and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith(("icetk", "cog")):
        name = "ice_text.model" if kind.startswith("icetk") else "cog-pretrain.model"
        with (folder / name).open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(LINES), model_writer=file, vocab_size=110, unk_id=0,
                bos_id=1, eos_id=2, pad_id=3 if kind.startswith("icetk") else -1,
                user_defined_symbols=["<n>"], model_type="unigram", hard_vocab_limit=False,
                minloglevel=2,
            )  # fmt: skip
        return folder / name
    import tokenizers

    lines = [line for line in LINES if line.isascii()]
    options = {"min_frequency": 1, "show_progress": False}
    if kind == "wordpiece":
        model = tokenizers.BertWordPieceTokenizer(lowercase=True)
        model.train_from_iterator(lines, vocab_size=90, **options)
        model.save_model(str(folder))
        return folder / "vocab.txt"
    special = ["<|endoftext|>"] if kind == "gpt2" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    model = tokenizers.ByteLevelBPETokenizer()
    model.train_from_iterator(lines, vocab_size=300, special_tokens=special, **options)
    model.save_model(str(folder))
    return folder / "vocab.json"


def make_vocabulary(kind, folder):
    """Open a small vocabulary of a kind."""
    path = vocabulary_file(kind, folder)
    return open_vocabulary(
        path, num_rows=400 if kind == "icetk-plain" else None,
        separate_gmask=kind != "cog-released",
    )  # fmt: skip


def make_published_run(folder, vocabulary, architecture="glm-10b", scheme="corrupted", **options):
    """Write a run of one checkpoint whose vocabulary is a published one, or None."""
    rows = -(-vocabulary.vocab_size // 64) * 64 if vocabulary is not None else 512
    tokenizer = NoVocabulary(rows) if vocabulary is None else vocabulary
    cfg = RunConfig(
        model=ModelConfig(vocab_size=rows, **{**SMALL, **ARCHITECTURES[architecture], **options}),
        objective=ObjectiveConfig(positions=scheme),
        train=TrainConfig(row_length=128, threads=1),
    )
    folder.mkdir(parents=True)
    # Without a vocabulary no id is known for an end, so it is another that is favoured.
    model = make_model(cfg.model, 7 if vocabulary is None else tokenizer.ids.eop, architecture)
    write_resized(folder, run_record(cfg), model.state_dict(), _Saved(vocabulary), RESIZED)
    if vocabulary is None:
        described = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(described | {"tokenizer": None}))
    return folder


class _Saved:
    """Writes a vocabulary where a run would have its tokenizer."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary
        self.fingerprint = "" if vocabulary is None else vocabulary.fingerprint

    def save(self, folder):
        if self.vocabulary is not None:
            save_vocabulary(self.vocabulary, folder)
