"""Rows of Parquet and Arrow files, read in place.

Parquet is read from its end, and an Arrow file in any order, so both need a file on disk. A plain
one is opened where it lies; a compressed one is first unpacked into the temporary folder, up to
`UNPACKED_BYTES`.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from blankfill.errors import DataError
from blankfill.text.compressed import DamagedFileError
from blankfill.text.fields import FieldCheck, NoColumnError, list_names
from blankfill.text.records import Record, Skipped, Skips, shown

if TYPE_CHECKING:
    import pyarrow

__all__ = ["UNPACKED_BYTES", "TableKind", "table_records", "unpacked"]

TableKind = Literal["parquet", "arrow file", "arrow stream"]

UNPACKED_BYTES = 16 << 30
"""More of a compressed table is not unpacked: the temporary folder is often memory, or the disk
that the system needs. Files of hubs have a gigabyte or less."""
_ROWS = 256


@contextlib.contextmanager
def unpacked(path: str, blocks: Iterable[bytes]) -> Generator[BinaryIO]:
    """Unpack a table into a temporary file, which is deleted at the end.

    Raises:
        DataError: it is too large, or the disk of the temporary folder is full.
    """
    with contextlib.ExitStack() as stack:
        where = "$TMPDIR"
        try:
            where = tempfile.gettempdir()
            file = stack.enter_context(tempfile.TemporaryFile(dir=where))
        except OSError as error:
            raise _temporary(path, where, error) from error
        size = 0
        for block in blocks:
            size += len(block)
            if size > UNPACKED_BYTES:
                raise DataError(
                    f"{shown(path)}: more than {UNPACKED_BYTES >> 30} GiB once unpacked, more than "
                    f"is put into the temporary folder {where}; unpack it yourself, and name the "
                    "plain file, which is read in place"
                )
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                raise _temporary(path, where, error) from error
        file.seek(0)
        yield file


def _temporary(path: str, where: str, error: OSError) -> DataError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    said = f"the disk of {where} is full" if full else f"{where}: {error.strerror or error}"
    return DataError(
        f"{shown(path)} is compressed and has to be unpacked into the temporary folder, but "
        f"{said}; set TMPDIR to a folder with room, or name the plain file, which is read in place"
    )


def table_records(
    path: str, file: BinaryIO, kind: TableKind, check: FieldCheck, skips: Skips
) -> Iterator[Record]:
    """Read the rows of a table.

    Args:
        path: its name, for messages.
        file: open at its start, seekable.
        kind: its format.
        check: the columns to read; takes the names of those that there are.
        skips: where rows without text are counted.

    Raises:
        NoColumnError: there is no such column, or it holds no text.
        DamagedFileError: after all that could be read.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            f"{shown(path)}: to read Parquet and Arrow files, install blankfill[parquet]"
        ) from error
    row = 0
    fields = check.fields
    name: Literal["Parquet", "Arrow"] = "Parquet" if kind == "parquet" else "Arrow"
    try:
        schema = _schema(file, kind)
        check.see(shown(path), _names(schema))
        text = _column(path, schema, fields.text)
        if text is None:
            raise NoColumnError(
                f"{shown(path)} has no column {fields.text!r}; its columns are "
                f"{list_names(_names(schema))}"
            )
        answer = _column(path, schema, fields.answer) if fields.answer else None
        skips.open(name)
        wanted = sorted({column[0] for column in (text, answer) if column})
        for batch in _batches(file, kind, schema, wanted):
            texts = _cells(batch, text)
            answers: list[bytes | None] = _cells(batch, answer) if answer else [None] * len(texts)
            for value, said in zip(texts, answers, strict=True):
                row += 1
                if value is None:
                    skips.add(Skipped(path, row, f"the field {fields.text!r} is missing (null)"))
                else:
                    there = said if said is not None or not answer else b""
                    yield Record(value, name, path, row, there)
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise DamagedFileError(f"the {name} data is damaged") from error


def _schema(file: BinaryIO, kind: TableKind) -> pyarrow.Schema:
    import pyarrow

    file.seek(0)
    if kind == "parquet":
        import pyarrow.parquet as parquet

        return parquet.ParquetFile(file).schema_arrow
    if kind == "arrow file":
        return pyarrow.ipc.open_file(file).schema
    return pyarrow.ipc.open_stream(file).schema


def _batches(
    file: BinaryIO, kind: TableKind, schema: pyarrow.Schema, names: list[str]
) -> Iterator[pyarrow.RecordBatch]:
    """Yield batches of at most `_ROWS` rows with the columns of these names."""
    import pyarrow

    file.seek(0)
    if kind == "parquet":
        import pyarrow.parquet as parquet

        # Parquet reads a name with a dot as a path, so it may add columns; these are ignored.
        yield from parquet.ParquetFile(file).iter_batches(batch_size=_ROWS, columns=names)
        return
    indices = [schema.get_all_field_indices(name)[0] for name in names]
    options = pyarrow.ipc.IpcReadOptions(included_fields=indices)
    if kind == "arrow stream":
        batches: Iterable[Any] = pyarrow.ipc.open_stream(file, options=options)
    else:
        reader = pyarrow.ipc.open_file(file, options=options)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            yield batch.slice(start, _ROWS)


def _column(path: str, schema: pyarrow.Schema, name: str) -> list[str] | None:
    """Find a column, whose dots may lead into structs, and check that it holds text.

    Returns:
        The names from the column inwards; None where there is none.
    """
    import pyarrow

    found = _descend(pyarrow.struct(_first_of_each(schema)), name)
    if found is None:
        return None
    way, kind = found
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    types = pyarrow.types
    if not (
        types.is_null(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
    ):
        raise NoColumnError(f"{shown(path)}: the column {name!r} holds {kind}, not text")
    return way


def _first_of_each(fields: Iterable[pyarrow.Field]) -> list[pyarrow.Field]:
    """Leave out columns of a name that stood before."""
    named: dict[str, pyarrow.Field] = {}
    for field in fields:
        named.setdefault(field.name, field)
    return list(named.values())


def _descend(kind: pyarrow.DataType, name: str) -> tuple[list[str], pyarrow.DataType] | None:
    """Follow a name as `find_field` does in a record: a name that holds a dot itself wins."""
    import pyarrow

    if not pyarrow.types.is_struct(kind):
        return None
    inner = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    if name in inner:
        return [name], inner[name]
    for i in reversed([i for i, letter in enumerate(name) if letter == "."]):
        head, rest = name[:i], name[i + 1 :]
        if head in inner and (found := _descend(inner[head], rest)) is not None:
            return [head, *found[0]], found[1]
    return None


def _names(schema: pyarrow.Schema) -> list[str]:
    import pyarrow

    names: list[str] = []
    for field in schema:
        if pyarrow.types.is_struct(field.type) and field.type.num_fields:
            inner = (field.type.field(i).name for i in range(field.type.num_fields))
            names += [f"{field.name}.{name}" for name in inner]
        else:
            names.append(field.name)
    return names


def _cells(batch: pyarrow.RecordBatch, way: list[str]) -> list[bytes | None]:
    """Take one column out of a batch, as bytes: text in a table need not be UTF-8 either."""
    import pyarrow
    import pyarrow.compute as compute

    column: Any = batch.column(batch.schema.get_all_field_indices(way[0])[0])
    for name in way[1:]:
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        column = compute.struct_field(column, name)  # pyright: ignore[reportAttributeAccessIssue]  # made at import
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pyarrow.large_binary()).to_pylist()
