"""The verbs of the command line, and where each of them lives."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["VERBS", "Verb", "load"]


class Verb(NamedTuple):
    """Where a verb lives."""

    function: str
    """`module:name` of the function under `blankfill.api`."""
    printer: str
    """`module:name` of its printer under `blankfill.cli`."""
    summary: str
    """One line for `blankfill --help`."""
    computes: bool = False
    """Whether it is a model's work, for which the process is tuned."""
    asks: bool = False
    """Whether it asks for texts on a terminal where none is given."""
    hands_over: bool = False
    """Whether it gives answers as they come (`each`)."""
    writes: bool = False
    """Whether it gives the pieces of a single answer as they come (`pieces`)."""


VERBS: dict[str, Verb] = {
    "demo": Verb(
        "demo:demo",
        "demo:print_demo",
        "train a small bilingual GLM and watch it fill",
        computes=True,
    ),
    "train": Verb(
        "train:train", "train:print_train", "make a model of a folder of text", computes=True
    ),
    "tokenizer train": Verb(
        "tokenizer:tokenizer_train", "tokenizer:print_train", "train a tokenizer on your text"
    ),
    "tokenizer encode": Verb(
        "tokenizer:tokenizer_encode", "tokenizer:print_encode", "text to token ids"
    ),
    "tokenizer decode": Verb(
        "tokenizer:tokenizer_decode", "tokenizer:print_decode", "token ids to text"
    ),
    "tokenizer info": Verb(
        "tokenizer:tokenizer_info", "tokenizer:print_info", "pieces, and characters per token"
    ),
    "data build": Verb("data:data_build", "data:print_build", "turn text into a token store"),
    "data export": Verb(
        "data_export:data_export", "data:print_export", "let Megatron read a token store"
    ),
    "data import": Verb(
        "data:data_import", "data:print_build", "turn Megatron's .bin and .idx into a token store"
    ),
    "data merge": Verb(
        "data:data_merge", "data:print_info", "join token stores as the shards of one"
    ),
    "data info": Verb("data:data_info", "data:print_info", "what a token store holds"),
    "data show": Verb("data:data_show", "data:print_show", "documents of a store back as text"),
    "explain": Verb(
        "explain:explain", "explain:print_explain", "show one training example, part by part"
    ),
    "pretrain": Verb(
        "pretrain:pretrain", "pretrain:print_pretrain", "pretrain a model", computes=True
    ),
    "evaluate": Verb(
        "evaluate:evaluate",
        "evaluate:print_evaluate",
        "loss and exact fills on held-out text",
        computes=True,
    ),
    "report": Verb(
        "report:report", "report:print_report", "curves and fills of runs as one HTML file"
    ),
    "fill": Verb(
        "infill:fill",
        "infill:print_fill",
        "fill the blanks of a text",
        computes=True,
        asks=True,
        hands_over=True,
    ),
    "generate": Verb(
        "infill:generate",
        "infill:print_generate",
        "continue a text",
        computes=True,
        asks=True,
        hands_over=True,
        writes=True,
    ),
    "score": Verb(
        "score:score", "score:print_score", "how probable candidates for a blank are", computes=True
    ),
    "rank": Verb("score:rank", "score:print_score", "candidates, the best first", computes=True),
    "probe": Verb(
        "probe:probe",
        "probe:print_probe",
        "what a model's hidden states hold of a target",
        computes=True,
    ),
    "surprise": Verb(
        "score:surprise", "score:print_surprise", "how surprising each word is", computes=True
    ),
    "import": Verb(
        "interop:import_",
        "interop:print_import",
        "turn a published GLM into a model of ours",
        computes=True,
    ),
    "export": Verb(
        "export:export",
        "export:print_export",
        "take a run to transformers, GLM or SAT",
        computes=True,
    ),
    "resize": Verb(
        "export:resize", "export:print_resize", "give a run another vocabulary", computes=True
    ),
    "quantize": Verb(
        "quantize:quantize",
        "quantize:print_quantize",
        "a run in 8 or 4 bits a weight",
        computes=True,
    ),
    "plan": Verb("plan:plan", "plan:print_plan", "whether a run fits, how long and how much"),
    "info": Verb("inspect:info", "inspect:print_info", "what a folder or preset is"),
}


def load(package: str, path: str) -> Callable[..., Any]:
    """Load a part of a verb, such as its function.

    Args:
        package: `blankfill.api` or `blankfill.cli`.
        path: `module:name` in it.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), name)
