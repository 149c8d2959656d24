"""Columns of a parquet file as texts: what is no text, number or list of them is refused, never turned into one."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cad_exp.data.prompts.decoding import MOST
from cad_exp.utils.errors import UserError

Cell = str | tuple[str, ...]  # a text, or a list of them


def read(
    data: bytes, file: Path, used: Collection[str], lists: Collection[str]
) -> tuple[list[str], list[dict[str, Cell]]]:
    """Column names, and every row's cells of the columns that are used; lists of texts only where `lists` has them.

    UserError for a damaged file, and for a column of another type, with both named.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        source = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        groups = (source.metadata.row_group(n) for n in range(source.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MOST:
            raise UserError(f"'{file}' is larger than {MOST >> 30} GiB when unpacked: keep only the rows that you need")
        header = list(source.schema_arrow.names)
        table = source.read()
    except (pyarrow.ArrowException, OSError, ValueError, ArithmeticError) as error:
        raise UserError(f"'{file}' is no readable parquet file: fetch it again") from error
    columns: dict[str, list[Cell]] = {}
    for name in header:
        if name in used and header.count(name) == 1:
            _check(table.schema.field(name).type, name, file, name in lists)
            columns[name] = _cells(table.column(name), name, file)
    return header, [{name: cells[row] for name, cells in columns.items()} for row in range(table.num_rows)]


def _check(kind: Any, name: str, file: Path, lists: bool) -> None:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    inner = kind.value_type if listed else kind
    if (listed and not lists) or types.is_nested(inner):
        raise UserError(
            f"the column '{name}' of '{file}' holds {kind}, which is no text or number: name another column, "
            "or save this one as text"
        )


def _cells(column: Any, name: str, file: Path) -> list[Cell]:
    try:
        values = column.to_pylist()
    except (ValueError, ArithmeticError) as error:
        raise UserError(f"the column '{name}' of '{file}' holds values that cannot be read: save it as text") from error
    return [_cell(value, row, name, file) for row, value in enumerate(values)]


def _cell(value: Any, row: int, name: str, file: Path) -> Cell:
    """As a CSV file would say it; whole floats (a column of integers with gaps) as integers, bytes as UTF-8."""
    if value is None:
        return ""
    if isinstance(value, list):
        return tuple(str(_cell(item, row, name, file)) for item in value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise UserError(
                f"the column '{name}' of '{file}' holds bytes that are no text (row {row + 1}): name another column"
            ) from None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
