"""Vocabularies on disk: as their authors published them, and beside a model of ours.

Beside a model a vocabulary is a folder with its published files, untouched, and a manifest
`blankfill.json` (version, kind, settings, fingerprint, SHA-256 of the files).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blankfill.disk.json_files import Description, encode, read_object
from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.errors import DataError
from blankfill.text.tokenizer import MANIFEST_NAME, MODEL_NAME, VOCABULARY_NAME, Tokenizer
from blankfill.text.vocabularies.english import BytePairVocabulary, WordPieceVocabulary
from blankfill.text.vocabularies.pieces import CogVocabulary, IceVocabulary, newline_id
from blankfill.text.vocabularies.prompt import Vocabulary

__all__ = ["load_tokenizer", "open_vocabulary", "save_vocabulary"]

VERSION = 1
DESCRIPTION = Description(
    "format", "blankfill vocabulary", VERSION,
    {"kind": str, "settings": dict, "fingerprint": str, "files": dict},
)  # fmt: skip
"""What the manifest says of itself."""
_NAMES = ("ice_text.model", "cog-pretrain.model", "vocab.json", "vocab.txt")


def open_vocabulary(
    path: str | Path, *, num_rows: int | None = None, separate_gmask: bool = True
) -> Vocabulary | Tokenizer:
    """Open a vocabulary of a published model, or a tokenizer of ours.

    Args:
        path: `ice_text.model`, `cog-pretrain.model`, `vocab.txt`, `vocab.json` with `merges.txt`
            beside it, or a folder that holds one of them or a tokenizer of blankfill.
        num_rows: rows of the model's embedding; tells icetk with image ids from icetk without.
        separate_gmask: whether `[gMASK]` of cog-pretrain has an id of its own.

    Raises:
        DataError: there is no vocabulary, or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        if (path / VOCABULARY_NAME).is_file() or (
            (path / MANIFEST_NAME).is_file() and (path / MODEL_NAME).is_file()
        ):
            return load_tokenizer(path)
        found = [path / name for name in _NAMES if (path / name).is_file()]
        if not found:
            raise DataError(f"{path} holds no vocabulary; name one of: {', '.join(_NAMES)}")
        path = found[0]
    if not path.is_file():
        raise DataError(f"{path}: no such vocabulary")
    if is_pointer(path):
        raise DataError(pointer_sentence(path))
    if path.suffix == ".model":
        newline = newline_id(path)
        if newline == 3:
            return CogVocabulary(path.read_bytes(), fixed=separate_gmask, path=str(path))
        if newline == 4:
            ice = IceVocabulary(path.read_bytes(), num_image_ids=0, path=str(path))
            if num_rows is not None and num_rows < ice.vocab_size + 20_000:
                return ice
            return IceVocabulary(path.read_bytes(), path=str(path))
        raise DataError(f"{path}: a SentencePiece model, but neither icetk nor cog-pretrain, which "
                        "have the piece <n> as number 4 or 3")  # fmt: skip
    if path.suffix == ".json":
        return _byte_pair(path)
    return WordPieceVocabulary(path.read_bytes(), path=str(path))


def _byte_pair(path: Path) -> BytePairVocabulary:
    merges = path.with_name("merges.txt")
    if is_pointer(merges):
        raise DataError(pointer_sentence(merges))
    if not merges.is_file():
        raise DataError(f"{merges} is missing beside {path.name}; a BPE vocabulary is both files")
    return BytePairVocabulary(path.read_bytes(), merges.read_bytes(), path=str(path))


def save_vocabulary(vocabulary: Vocabulary | Tokenizer, folder: Path) -> None:
    """Write a vocabulary into a folder that exists."""
    if isinstance(vocabulary, Tokenizer):
        vocabulary.save(folder)
        return
    for name, data in vocabulary.files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": "blankfill vocabulary", "version": VERSION, "kind": vocabulary.kind,
        "settings": vocabulary.settings, "fingerprint": vocabulary.fingerprint,
        "files": {n: hashlib.sha256(data).hexdigest() for n, data in vocabulary.files.items()},
    }  # fmt: skip
    (folder / VOCABULARY_NAME).write_bytes(encode(manifest))


def load_tokenizer(path: str | Path) -> Tokenizer | Vocabulary:
    """Load what stands in a tokenizer folder: our own, or a published vocabulary.

    Raises:
        DataError: the folder or a file in it is missing, damaged, or from a later blankfill.
    """
    folder = Path(path)
    manifest_path = folder / VOCABULARY_NAME
    if not manifest_path.is_file():
        return Tokenizer.load(folder)
    try:
        manifest = read_object(manifest_path, DESCRIPTION)
        files = {name: (folder / name).read_bytes() for name in manifest["files"]}
        kind, settings, fingerprint = (manifest[k] for k in ("kind", "settings", "fingerprint"))
        for name, expected in manifest["files"].items():
            if hashlib.sha256(files[name]).hexdigest() != expected:
                if is_pointer(files[name]):
                    raise DataError(pointer_sentence(folder / name))
                raise DataError(f"{folder / name}: its SHA-256 is not the one in "
                                f"{VOCABULARY_NAME}; the file was changed or damaged")  # fmt: skip
        vocabulary = _build(kind, files, settings, folder)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read, {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{manifest_path} is damaged, or another's: {error}; restore it, "
                        "or import the vocabulary again") from error  # fmt: skip
    if vocabulary.fingerprint != fingerprint:
        raise DataError(f"{manifest_path}: its fingerprint is not that of its files")
    return vocabulary


def _build(
    kind: str, files: dict[str, bytes], settings: Mapping[str, Any], folder: Path
) -> Vocabulary:
    path = str(folder)
    if kind == "icetk":
        return IceVocabulary(files["ice_text.model"], path=path, **settings)
    if kind == "cog-pretrain":
        return CogVocabulary(files["cog-pretrain.model"], path=path, **settings)
    if kind == "wordpiece":
        return WordPieceVocabulary(files["vocab.txt"], path=path)
    if kind in ("gpt2", "roberta"):
        return BytePairVocabulary(files["vocab.json"], files["merges.txt"], path=path)
    raise DataError(f"{folder / VOCABULARY_NAME}: the kind {kind!r} is unknown; update blankfill")
