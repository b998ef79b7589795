"""Tables in CSV and Parquet files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from legato.data import storage
from legato.data.tables.cells import is_number, make_column, parse_array, parse_cells
from legato.data.tables.columns import Columns, Table, needed_columns
from legato.errors import LegatoError

ROWS = 1 << 16  # of a file read at once
BUFFER = 1 << 20  # bytes of a column that are read at once


def read_csv(path: Path, columns: Columns) -> Table:
    """The columns of a CSV file that are needed. Raises `LegatoError` for what is no such file."""
    raw = storage.regular(path)
    storage.refuse_more(path, 4 * os.fstat(raw.fileno()).st_size)
    with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        try:
            first = file.readline(1 << 20)
            mark = max(",;\t", key=first.count)
            file.seek(0)
            lines = csv.reader(file, delimiter=mark, strict=True)
            header = [cell.strip() for cell in next(lines, [])]
            if not header:
                raise LegatoError(f"'{path}' is empty")
            named = not all(map(is_number, header))
            if not named:  # the first row is one of numbers already
                file.seek(0)
                lines, header = csv.reader(file, delimiter=mark, strict=True), [str(i) for i in range(len(header))]
            if twice := {cell for cell in header if header.count(cell) > 1}:
                raise LegatoError(f"'{path}' has two columns of the name '{min(twice)}'")
            chosen = needed_columns(str(path), header, columns)
            places = [header.index(column) for column in chosen]
            parts: dict[str, list[np.ndarray]] = {column: [] for column in chosen}
            for rows, numbers in _batches(lines):
                for cells, number in zip(rows, numbers, strict=True):
                    if len(cells) != len(header):
                        raise LegatoError(
                            f"'{path}', line {number}: {len(cells)} cells, where its header has {len(header)}"
                        )
                for column, place in zip(chosen, places, strict=True):
                    cells = [row[place] for row in rows]
                    texts = column == columns.episode  # told apart as they are written
                    parts[column].append(parse_cells(str(path), column, cells, numbers, texts=texts))
        except UnicodeDecodeError:
            raise LegatoError(f"'{path}' is not text in UTF-8: save it so") from None
        except csv.Error as problem:
            raise LegatoError(f"'{path}' cannot be read as a table: {storage.line(problem)}") from None
    found = {column: make_column(str(path), column, parts.pop(column), columns) for column in chosen}
    return Table(str(path), header, found, named)


def _batches(lines: Any) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Rows of a `csv.reader`, many at once, and the line of the file at which each ends."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    for cells in lines:
        if cells:  # an empty line is none
            rows.append(cells)
            numbers.append(lines.line_num)
        if len(rows) == ROWS:
            yield rows, numbers
            rows, numbers = [], []
    if rows:
        yield rows, numbers


def read_parquet(path: Path, columns: Columns) -> Table:
    """The columns of a Parquet file that are needed. Raises `LegatoError` for what is no such file, or is cut."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise LegatoError("reading Parquet needs pyarrow: pip install 'legato[tables]'") from None
    storage.regular(path).close()
    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER) as file:
            header = file.schema_arrow.names
            chosen = needed_columns(str(path), header, columns)
            if twice := {column for column in chosen if header.count(column) > 1}:
                raise LegatoError(f"'{path}' has two columns of the name '{min(twice)}'")
            kinds = {column: file.schema_arrow.field(column).type for column in chosen}
            lists = [column for column, kind in kinds.items() if pyarrow.types.is_nested(kind)]
            numbers = len(chosen) - len(lists) + sum(_members(file, column) for column in lists)
            storage.refuse_more(path, 8 * numbers * file.metadata.num_rows)
            found: dict[str, np.ndarray] = {}
            for column in chosen:  # one after another, as Arrow holds what it reads at once
                parts, texts = [], column == columns.episode
                for group in range(file.num_row_groups):
                    chunks = file.read_row_group(group, columns=[column], use_threads=False).column(column).chunks
                    chunks = [chunk for chunk in chunks if len(chunk)]
                    parts += [parse_array(str(path), column, _array(path, column, chunk), texts) for chunk in chunks]
                found[column] = np.array(make_column(str(path), column, parts, columns))  # no view of what Arrow holds
        pyarrow.default_memory_pool().release_unused()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise LegatoError(f"'{path}' cannot be read, it is cut or no Parquet file: {storage.line(problem)}") from None
    if len({len(array) for array in found.values()}) > 1:
        raise LegatoError(f"'{path}' cannot be read: its columns are of different lengths")
    return Table(str(path), header, found)


def _members(file: Any, column: str) -> int:
    """Of a column of lists, the members of the first one, as all are as long: the file's own counts are not asked for.

    Arrow ends the process over counts that are damaged.
    """
    for batch in file.iter_batches(1, columns=[column]):
        return len(batch.column(0).flatten())
    return 0


def _array(path: Path, name: str, column: Any) -> np.ndarray:
    """A column of Arrow as an array; lists of one length are its rows."""
    import pyarrow
    import pyarrow.compute

    compute: Any = pyarrow.compute
    kind = column.type
    if pyarrow.types.is_list(kind) or pyarrow.types.is_fixed_size_list(kind) or pyarrow.types.is_large_list(kind):
        if column.null_count or len(compute.unique(compute.list_value_length(column))) > 1:
            raise LegatoError(f"'{path}': the lists in '{name}' are of different lengths, or missing")
        if pyarrow.types.is_nested(kind.value_type):
            raise LegatoError(f"'{path}': '{name}' holds lists of lists")
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)
