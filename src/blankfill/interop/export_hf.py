"""A run as a folder that transformers loads: weights, configuration, code and tokenizer.

    dir/
      config.json  generation_config.json      what transformers reads first
      model.safetensors                        or model-00001-of-0000N.safetensors and an index
      modeling_blankfill.py ...                the code: torch and transformers, no blankfill
      tokenizer.model  tokenizer_config.json  tokenization_blankfill.py
      blankfill_export.json                    the run's configuration and tokenizer manifest
      README.md                                how to use it

Every weight has its name in the run with the prefix `network.`. Reading an export back removes the
prefix and gives the same weights bit for bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.disk.json_files import Description, EarlierFormatError, encode, read_object
from blankfill.errors import CheckpointError, ConversionError
from blankfill.generate import LanguageModel
from blankfill.objective.special import DISPLAY
from blankfill.runs.tensors import read_tensors, write_tensors
from blankfill.text.tokenizer import MODEL_NAME, TextTokenizer, Tokenizer
from blankfill.text.vocabularies import NoVocabulary, is_published

__all__ = ["CODE_FILES", "describe", "read_hf", "write_hf", "write_shards"]

CODE_FILES = (
    "configuration_blankfill.py",
    "generation_blankfill.py",
    "layout_blankfill.py",
    "modeling_blankfill.py",
    "network_blankfill.py",
    "tokenization_blankfill.py",
    "vocabulary_blankfill.py",
)
TOKENIZER_FILES = ("tokenization_blankfill.py", "vocabulary_blankfill.py")
PREFIX = "network."
VERSION = 2
"""Version of what blankfill_export.json says. Version 1 had one section for the whole recipe, and
fused tensors for queries, keys and values and for the halves of a gate."""
EXPORT = Description(
    "format", "blankfill export", VERSION, {"config": dict, "tokenizer?": dict}, oldest=VERSION
)
"""What blankfill_export.json says of itself."""

_README = """\
# A GLM, exported by blankfill

It fills blanks: `[MASK]` stands for a word or phrase, `[sMASK]` for a sentence, `[gMASK]` for a
long passage. It needs torch, transformers, sentencepiece and safetensors.

{use}

Where blankfill is installed, `import blankfill.interop.hf` makes `trust_remote_code` unnecessary.
"""
_USE_TEXTS = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True).eval()
texts = {texts}
inputs = tokenizer(texts, padding=True, return_tensors="pt")
for text in tokenizer.fill(model.generate(**inputs, max_new_tokens=64)):
    print(text)
```

## In place of a pipeline

`pipeline("fill-mask")` fills a mask with one token and does not load this model, whose blanks take
any number of them; `pipeline("text-generation")` takes only texts that hold a blank. With the lines
above, call this instead:

```python
def fill(texts, **options):
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    return tokenizer.fill(model.generate(**inputs, **options))

# fill-mask: the five most probable texts
print(fill({first}, num_beams=5, num_return_sequences=5))
# text-generation: the text goes on in its blank
print(fill({last}, max_new_tokens=64, do_sample=True, top_p=0.9))
```"""
_USE_IDS = """\
The run has no vocabulary, so this folder has none: `generate()` takes the ids that the model's own
tokenizer makes of a text with blanks, followed by the id of `[S]`. Which ids are special is
not known here; say it (the numbers below are only an example):

```python
import torch
from transformers import AutoModelForCausalLM

path = "."  # this folder
roles = ("mask", "smask", "gmask", "sop", "eop", "eos", "pad", "dblock")
ids = {role: number for number, role in enumerate(roles)}
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True, special_ids=ids).eval()
row = torch.tensor([[ids["mask"], ids["sop"]]])
print(model.generate(row, attention_mask=torch.ones_like(row)))
```"""


def describe(cfg: RunConfig, tokenizer: TextTokenizer) -> dict[str, object]:
    """Give the content of config.json."""
    model = cfg.model
    names = (
        "vocab_size", "hidden_size", "num_layers", "num_heads", "ffn_size", "block", "activation",
        "positions", "rope_angles", "max_position", "tie_head", "dropout", "attention_dropout",
        "embedding_dropout", "embedding_gradient_shrink", "shrink_head", "qk_norm", "pb_relax",
        "norm_eps",
    )  # fmt: skip
    return {
        "model_type": "blankfill",
        "architectures": ["BlankfillForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_blankfill.BlankfillConfig",
            "AutoModel": "modeling_blankfill.BlankfillModel",
            "AutoModelForCausalLM": "modeling_blankfill.BlankfillForCausalLM",
        },
        "dtype": "float32",
        **{name: getattr(model, name) for name in names},
        "residual_alpha": model.deepnorm_alpha,
        "position_scheme": cfg.objective.positions,
        "num_tokens": tokenizer.vocab_size,
        **_special(tokenizer),
    }


def _special(tokenizer: TextTokenizer) -> dict[str, object]:
    """Say which ids are special; nobody knows where the run has no vocabulary."""
    if isinstance(tokenizer, NoVocabulary):
        return {"banned_ids": [], "special_ids": {}, "pad_token_id": None, "eos_token_id": None}
    ids = tokenizer.ids
    banned = {ids.mask, ids.smask, ids.gmask, ids.sop, ids.pad, ids.dblock}
    banned |= {*ids.mask_sentinels, *ids.sop_sentinels}
    return {
        "banned_ids": sorted(banned - {ids.eop, ids.eos}),
        "special_ids": {role: getattr(ids, role) for role in DISPLAY},
        "pad_token_id": ids.pad,
        "eos_token_id": [ids.eop, ids.eos],
    }


def write_hf(folder: Path, lm: LanguageModel, *, max_shard_bytes: int) -> None:
    """Write everything into an existing, empty folder.

    Args:
        folder: where to.
        lm: the run's model.
        max_shard_bytes: largest file of weights.
    """
    cfg, tokenizer, weights = lm.cfg, lm.tokenizer, lm.model.state_dict()
    config = describe(cfg, tokenizer)
    _write(folder / "config.json", config)
    _write(
        folder / "generation_config.json",
        {name: config[name] for name in ("eos_token_id", "pad_token_id")},
    )
    write_shards(folder, {PREFIX + name: tensor for name, tensor in weights.items()},
                 max_bytes=max_shard_bytes)  # fmt: skip
    code = Path(__file__).parent / "hf_files"
    for name in CODE_FILES:
        shutil.copyfile(code / name, folder / name)
    manifest = tokenizer.manifest if isinstance(tokenizer, Tokenizer) else None
    use = _write_vocabulary(folder, cfg, tokenizer)
    _write(
        folder / "blankfill_export.json",
        {"format": EXPORT.value, "version": VERSION, "step": lm.step,
         "config": to_dict(cfg), "tokenizer": manifest},
    )  # fmt: skip
    (folder / "README.md").write_text(_README.format(use=use), encoding="utf-8")


def write_shards(folder: Path, weights: Mapping[str, torch.Tensor], *, max_bytes: int) -> list[str]:
    """Write weights as safetensors, in the names and with the index that transformers expects.

    Args:
        folder: where to.
        weights: by name, in the order to write.
        max_bytes: largest file; a tensor that is larger alone gets a file of its own.

    Returns:
        The names of the files.
    """
    written = write_tensors(folder, "model", weights, max_file_bytes=max_bytes)
    if len(written.files) > 1:
        total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        _write(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": written.places})  # fmt: skip
    return list(written.files)


def read_hf(folder: Path) -> tuple[RunConfig, Tokenizer | None, dict[str, torch.Tensor]]:
    """Read back what `write_hf` wrote.

    Returns:
        The run's configuration; its tokenizer, None where that is of a published model; and the
        weights by the names that they have there.

    Raises:
        ConversionError: the folder is no such export, or a file of it is missing or damaged.
    """
    try:
        described = read_object(folder / "blankfill_export.json", EXPORT)
        cfg = from_dict(RunConfig, described["config"])
        manifest = described["tokenizer"]
        model = b"" if manifest is None else (folder / MODEL_NAME).read_bytes()
    except EarlierFormatError as error:
        raise ConversionError(
            f"{folder} was exported by an earlier blankfill, in format {error.found} (this one has "
            f"{VERSION}); export the run again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{folder} is not an export of blankfill, or a damaged one ({error}); export it again"
        ) from error
    tokenizer = None
    if manifest is not None:
        tokenizer = Tokenizer(model, path=str(folder / MODEL_NAME), manifest=manifest)
    weights: dict[str, torch.Tensor] = {}
    files = sorted(folder.glob("model*.safetensors"))
    index = folder / "model.safetensors.index.json"
    places: dict[str, str] = {}
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    for path in files:
        try:
            for name, tensor in read_tensors(path):
                weights[name.removeprefix(PREFIX)] = tensor
        except CheckpointError as error:
            raise ConversionError(f"{error}; export it again") from error
    if missing := [name for name in places if name.removeprefix(PREFIX) not in weights]:
        raise ConversionError(
            f"{folder}: {places[missing[0]]} is missing, which holds {missing[0]}; export it again"
        )
    return cfg, tokenizer, weights


def _write_vocabulary(folder: Path, cfg: RunConfig, tokenizer: TextTokenizer) -> str:
    """Write what turns text into ids, where the run has it, and say how the export is used."""
    settings: dict[str, object] = {}
    texts = ["The [MASK] fox jumps over the [MASK] dog.", "Once upon a time[gMASK]"]
    shown: Mapping[str, str] = DISPLAY
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save(folder)
        # transformers would read a tokenizer.json as its own; ours is in blankfill_export.json.
        (folder / "tokenizer.json").unlink()
    elif is_published(tokenizer):
        published = tokenizer.portable()
        (folder / published.name).write_bytes(published.data)
        settings = {"published": published.settings}
        texts = texts[:1] if "gmask" in published.settings["untrained"] else texts
        shown = {}  # special tokens are pieces of the vocabulary, found by their ids
    else:
        for name in TOKENIZER_FILES:
            (folder / name).unlink()
        return _USE_IDS
    names = (("mask_token", "mask"), ("eos_token", "eop"), ("pad_token", "pad"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BlankfillTokenizer",
            "auto_map": {"AutoTokenizer": ["tokenization_blankfill.BlankfillTokenizer", None]},
            "model_max_length": cfg.model.max_position,
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
            **{name: shown[role] for name, role in names if shown},
            **settings,
        },
    )
    # Where [gMASK] is not of the vocabulary, or was never trained, [MASK] ends the text.
    last = [f"Once upon a time{'[gMASK]' if len(texts) > 1 else ' [MASK]'}"]
    return _USE_TEXTS.format(
        texts=json.dumps(texts), first=json.dumps(texts[:1]), last=json.dumps(last)
    )


def _write(path: Path, value: Any) -> None:
    path.write_bytes(encode(value))
