"""Cells of a table as numbers or texts."""

from __future__ import annotations

import math

import numpy as np

from legato.data.checks import warn_of_digits
from legato.data.tables.columns import Columns
from legato.errors import LegatoError

CELL = 200  # characters of a text at most: an episode's name, a time


def is_number(cell: str) -> bool:
    """As a table has it: Python's own `1_000` is none."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def parse_cells(name: str, column: str, cells: list[str], numbers: list[int], texts: bool = False) -> np.ndarray:
    """Cells as numbers, empty ones as NaN; as texts where none is a number, or where `texts` are asked for."""
    if texts:
        return make_texts(name, column, [cell.strip() for cell in cells])
    filled = [cell if cell.strip() else "nan" for cell in cells]
    try:
        if not all(map(str.isascii, filled)) or any("_" in cell for cell in filled):
            raise ValueError
        return np.array(filled, np.float64)
    except ValueError:
        odd = next(i for i, cell in enumerate(filled) if not is_number(cell))
    if not any(is_number(cell) for cell in filled if cell != "nan"):
        return make_texts(name, column, cells)
    hint = "; write decimal points" if filled[odd].replace(",", "", 1).strip("+-").isdigit() else ""
    raise LegatoError(f"'{name}', line {numbers[odd]}: '{column}' is '{cells[odd][:50]}', no number{hint}")


def make_texts(name: str, column: str, cells: list[str]) -> np.ndarray:
    """Texts as an array, in which each takes as much room as the longest."""
    if (longest := max(map(len, cells), default=0)) > CELL:
        raise LegatoError(f"'{name}': a cell of '{column}' has {longest} characters, more than {CELL}")
    return np.array(cells)


def parse_array(name: str, column: str, array: np.ndarray, texts: bool = False) -> np.ndarray:
    """Numbers as float64, if not float32, with NaN for what is missing, times as seconds, and texts.

    Where `texts` are asked for, what is written is kept: texts are not read as numbers, whole numbers stay whole.
    """
    if texts and array.dtype.kind in "iu":
        return array  # float64 would take some large ones for the same
    if array.dtype.kind in "fiub":
        return array if array.dtype == np.float32 else array.astype(np.float64)
    if array.dtype.kind == "M":
        return np.where(np.isnat(array), np.nan, array.astype("datetime64[us]").astype(np.int64) / 1e6)
    if array.dtype.kind == "O":
        if texts and any(isinstance(cell, str) for cell in array.tolist()):
            return make_texts(name, column, ["" if cell is None else str(cell) for cell in array.tolist()])
        try:
            return np.array([math.nan if cell is None else cell for cell in array.tolist()], np.float64)
        except (TypeError, ValueError):
            return make_texts(name, column, ["" if cell is None else str(cell) for cell in array.tolist()])
    if array.dtype.kind in "US":
        return make_texts(name, column, array.astype(np.str_).tolist())
    raise LegatoError(f"{name}: '{column}' holds {array.dtype}, neither numbers nor texts")


def concatenate(name: str, column: str, arrays: list[np.ndarray]) -> np.ndarray:
    """Parts of a column, one after another. Raises `LegatoError` where they are of different kinds."""
    if len({array.dtype.kind == "U" for array in arrays}) > 1:
        raise LegatoError(f"'{name}': '{column}' holds numbers in some places and texts in others")
    if len({array.shape[1:] for array in arrays}) > 1:
        raise LegatoError(f"'{name}': the lists in '{column}' are of different lengths")
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.zeros(0)


def make_column(name: str, column: str, parts: list[np.ndarray], columns: Columns) -> np.ndarray:
    """A column of parts: in float32 what will be learnt from, where its digits allow, and as it is what marks rows."""
    array = concatenate(name, column, parts)
    if array.dtype.kind != "f" or column in (columns.terminal, columns.episode, columns.time):
        return array
    if array.ndim == 1:
        warn_of_digits(name, column, array)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused where its place is known
        return array.astype(np.float32, copy=False)
