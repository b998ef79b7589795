"""Logs with named columns, one row a step: CSV and Parquet files, DataFrames, or arrays by name.

Which column is what, where episodes end and how actions are bounded is stated by whoever knows the plant. Nothing is
guessed, and every decision is reported in a sentence for a person to check. A row holds what was observed, the action
that was taken upon it, and the reward that was paid for this action.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from legato.data import storage
from legato.data.tables.cells import make_column, parse_array
from legato.data.tables.columns import Columns, Table, needed_columns
from legato.data.tables.episodes import from_rows
from legato.data.tables.files import read_csv, read_parquet
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError

__all__ = ["SUFFIXES", "Columns", "from_table", "read"]

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")


def from_table(table: Any, columns: Columns, name: str = "table") -> tuple[Trajectories, list[str]]:
    """Trajectories of a DataFrame (pandas, polars), a pyarrow table, or a mapping from names to arrays.

    Also says what was decided: how episodes end, the period, what was left out. Raises `LegatoError`, naming row and
    column, for what does not fit.
    """
    if isinstance(table, list | tuple):
        raise LegatoError(f"a table has columns by name; {type(table).__name__} was given")
    try:
        keys = {str(key): key for key in getattr(table, "column_names", getattr(table, "columns", table))}
    except TypeError:
        raise LegatoError(f"a table has columns by name; {type(table).__name__} was given") from None
    chosen = needed_columns(name, [*keys], columns)
    try:
        found = {
            c: make_column(name, c, [parse_array(name, c, _given(table[keys[c]]), c == columns.episode)], columns)
            for c in chosen
        }
    except (TypeError, ValueError, OverflowError) as problem:
        raise LegatoError(f"{name} holds what is no table of numbers: {storage.line(problem)}") from None
    for column, array in found.items():
        if array.ndim not in (1, 2) or len(array) != len(found[chosen[0]]):
            raise LegatoError(f"{name}: '{column}' has shape {array.shape}, '{chosen[0]}' {found[chosen[0]].shape}")
    return from_rows(Table(name, [*keys], found), columns)


def _given(column: Any) -> np.ndarray:
    """A column of a table in memory; what is masked is missing."""
    if isinstance(column, np.ma.MaskedArray) and np.ma.is_masked(column):
        return np.where(np.ma.getmaskarray(column), np.nan, column.data.astype(np.float64))
    return np.asarray(column)


def read(path: str | Path, columns: Columns) -> tuple[Trajectories, list[str]]:
    """Trajectories of a CSV file (of commas, semicolons or tabs) or a Parquet file, and what was decided.

    A CSV file without a header has columns 0, 1, 2, ... Raises `LegatoError` as `from_table` does.
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        return from_rows(read_parquet(path, columns), columns)
    return from_rows(read_csv(path, columns), columns)
