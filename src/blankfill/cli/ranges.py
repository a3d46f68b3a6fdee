"""What `--help` says of an option: its doc, and the range of its number.

The docs stand in the code: in a function's docstring under `Args:`, and under each field of a
configuration. A range is declared with the type (`blankfill.config.ranges`). Here they are put
together for tyro, with the line breaks of the source taken out.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from blankfill.config.ranges import hints_of, numbers_of
from blankfill.config.run import RunConfig

__all__ = ["field_docs", "registry", "with_ranges"]

CONFIGS = (RunConfig, *typing.get_type_hints(RunConfig).values())
"""A run's configuration and its sections."""
_ENTRY = re.compile(r"    (\w+): ")


def with_ranges(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command whose docstring also says the range of each of its numbers."""

    def spoken(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    # As functools.wraps does, less the reference to `command`, whose docstring tyro would read.
    spoken.__name__ = command.__name__
    spoken.__annotations__ = {
        # An option is named by its section and field, `--train.steps`, not by the parameter.
        name: Annotated[hint, tyro.conf.arg(name="")] if hint is RunConfig else hint
        for name, hint in hints_of(command).items()
    }
    spoken.__signature__ = inspect.signature(command)  # pyright: ignore[reportFunctionMemberAccess]  # inspect's own way
    before, found, rest = (inspect.getdoc(command) or "").partition("\nArgs:\n")
    entries, blank, after = rest.partition("\n\n")
    lines: list[str] = []
    for line in entries.splitlines():
        if _ENTRY.match(line) or not lines:
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
    numbers = numbers_of(command)
    for i, line in enumerate(lines):
        entry = _ENTRY.match(line)
        if entry and entry[1] in numbers:
            lines[i] += f" {_sentence(numbers[entry[1]].range)}"
    spoken.__doc__ = before + found + "\n".join(lines) + blank + after
    return spoken


def registry() -> ConstructorRegistry:
    """Make the rule by which tyro reads our configurations."""
    made = ConstructorRegistry()
    made.struct_rule(_rule)
    return made


def _rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    if info.type not in CONFIGS or not isinstance(info.default, info.type):
        return None
    docs, numbers = field_docs(info.type), numbers_of(info.type)
    hints = hints_of(info.type)
    return StructConstructorSpec(
        instantiate=info.type,
        fields=tuple(
            StructFieldSpec(
                name=field.name, type=hints[field.name], default=getattr(info.default, field.name),
                helptext=f"{docs[field.name]} {_sentence(numbers[field.name].range)}"
                if field.name in numbers else docs[field.name],
            )
            for field in fields(info.type)
        ),
    )  # fmt: skip


@functools.cache
def field_docs(config: type[Any]) -> dict[str, str]:
    """Read the doc under each field of a configuration, without its line breaks."""
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


def _sentence(span: object) -> str:
    text = str(span)
    return f"{text[0].upper()}{text[1:]}."
