"""What the code says of its functions, parameters and fields, for the pages of help.

The docs stand in a function's docstring, its parameters' under `Args:`, and under each field of a
configuration. The line breaks of the source are taken out.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["docs_of", "example_of", "paragraphs_of"]

_ENTRY = re.compile(r"    (\w+): (.*)")


@functools.cache
def docs_of(owner: Callable[..., Any]) -> dict[str, str]:
    """Give the doc of each parameter of a function, or of each field of a configuration."""
    return _field_docs(owner) if isinstance(owner, type) else _parameter_docs(owner)


def example_of(command: Callable[..., Any]) -> list[str]:
    """Give the lines of a function's example."""
    _, _, rest = _docstring(command).partition("\nExample:\n")
    return [line.strip() for line in rest.split("\n\n", 1)[0].splitlines() if line.strip()]


def paragraphs_of(command: Callable[..., Any]) -> list[str]:
    """Give what a function's docstring says before its example, each paragraph in one line."""
    before = re.split(r"\n(?:Example|Args|Returns|Raises):\n", _docstring(command))[0]
    return [" ".join(part.split()) for part in before.split("\n\n") if part.strip()]


def _docstring(command: Callable[..., Any]) -> str:
    return inspect.getdoc(command) or ""


def _parameter_docs(command: Callable[..., Any]) -> dict[str, str]:
    entries = _docstring(command).partition("\nArgs:\n")[2].partition("\n\n")[0]
    docs: dict[str, str] = {}
    name = ""
    for line in entries.splitlines():
        if entry := _ENTRY.fullmatch(line):
            name = entry[1]
            docs[name] = entry[2]
        elif name:
            docs[name] += f" {line.strip()}"
    return docs


def _field_docs(config: type[Any]) -> dict[str, str]:
    (body,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[name] = " ".join(str(node.value.value).split())
    return docs
