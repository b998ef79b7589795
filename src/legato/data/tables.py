"""Logs with named columns, one row a step: CSV and Parquet files, DataFrames, or arrays by name.

Which column is what, where episodes end and how actions are bounded is said by whoever knows the plant. Nothing is
guessed, and every decision is said in a sentence for a person to check. A row holds what was observed, the action that
was taken upon it, and the reward that was paid for this action.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from legato.data import storage
from legato.data.formats import CHOICES
from legato.data.layouts import some
from legato.data.spec import UNBOUNDED
from legato.data.trajectories import About, Trajectories, trajectories, warn_of_digits
from legato.errors import LegatoError, unknown

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
ROWS = 1 << 16  # of a file read at once
BUFFER = 1 << 20  # bytes of a column that are read at once
CELL = 200  # characters of a text at most: an episode's name, a time
REGULAR = 0.4  # of a period that a row may come early or late


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what, and where its episodes end."""

    observations: tuple[str, ...] = ()
    """columns of the observation in this order; `*` stands for any characters"""
    actions: tuple[str, ...] = ()
    """columns of the action, likewise"""
    reward: str | None = None
    """what was paid for the row's action; without one the logs can be imitated only"""
    terminal: str | None = None
    """1 in the row whose action ended the episode by itself: nothing is earned after it"""
    episode: str | None = None
    """an episode begins where this column changes"""
    episode_length: int | None = None
    """rows of an episode, for logs without such a column"""
    time: str | None = None
    """seconds, or dates and times of ISO 8601; not observed, but used to see whether rows are missing"""
    gap: float | None = None
    """seconds, or such as "5min": a row that comes later than so long after the one before begins an episode"""
    low: tuple[float, ...] = ()
    """lower bounds of the actions, one for all or one for each"""
    high: tuple[float, ...] = ()
    """upper bounds"""
    choices: int | None = None
    """how many discrete actions there are, for one column of whole numbers"""
    start: int = 0
    """the number of the first discrete action"""
    missing: Literal["error", "drop", "hold"] = "error"
    """rows with empty cells: refused, left out (the episode ends before them), or given the last value"""
    clip_actions: bool = False
    """move actions that lie outside their bounds to them"""
    environment: str | None = None
    """Gymnasium id of the environment that the logs are of"""

    def __post_init__(self) -> None:
        for name in ("observations", "actions", "low", "high"):
            given = getattr(self, name)
            if isinstance(given, str | int | float):  # one of them
                object.__setattr__(self, name, (given,))
            elif not isinstance(given, tuple):
                object.__setattr__(self, name, tuple(given))
        if isinstance(self.gap, str):
            object.__setattr__(self, "gap", seconds(self.gap))
        if self.missing not in ("error", "drop", "hold"):
            raise unknown("way with missing values", str(self.missing), ("error", "drop", "hold"))
        ways = [name for name in ("episode", "episode_length", "gap") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise LegatoError(f"episodes end by one rule: leave out {ways[0]} or {ways[1]}")
        if self.gap is not None and self.time is None:
            raise LegatoError("a gap is one of time: say which column that is, with time")
        if self.gap is not None and not self.gap > 0:
            raise LegatoError(f"gap is positive, in seconds; {self.gap:g} was given")
        if self.episode_length is not None and self.episode_length < 1:
            raise LegatoError(f"episode_length is at least 1; {self.episode_length} was given")
        if bool(self.low) != bool(self.high):
            raise LegatoError("bounds have a low and a high")
        if self.clip_actions and not self.low:
            raise LegatoError("actions are clipped to bounds: give low and high too")
        for name in ("low", "high"):
            for bound in getattr(self, name):
                if isinstance(bound, bool) or not isinstance(bound, Real) or not abs(float(bound)) <= UNBOUNDED:
                    raise LegatoError(f"{name} is a number that bounds something; {bound!r} was given")
        for name in ("choices", "episode_length"):
            given = getattr(self, name)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
                raise LegatoError(f"{name} is a whole number; {given!r} was given")
        if self.choices is not None and not 1 <= self.choices <= CHOICES:
            raise LegatoError(f"choices is a whole number from 1 to {CHOICES}; {self.choices} was given")
        if self.choices is not None and self.low:
            raise LegatoError("discrete actions have no bounds: leave out choices, or low and high")


@dataclass
class Table:
    """Columns as they were read: texts, numbers as float32, and exact where they mark rows (time, episode)."""

    name: str
    header: list[str]
    columns: dict[str, np.ndarray]
    named: bool = True
    """has it a header? Without one its columns are 0, 1, 2, ..."""

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))


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
    chosen = _chosen(name, [*keys], columns)
    try:
        found = {
            c: _kept(name, c, [_numbers(name, c, _given(table[keys[c]]), c == columns.episode)], columns)
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
    return from_rows(_csv(path, columns), columns)


def seconds(text: str) -> float:
    """A length of time as it is typed: `60`, `60s`, `5min`, `2h`. Raises `LegatoError` for what is none."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip()
    try:
        return float(number) * {"": 1, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}[unit]
    except (ValueError, KeyError):
        raise LegatoError(f"'{text}' is no length of time; write such as 60s, 5min or 2h") from None


# --- files ---


def _csv(path: Path, columns: Columns) -> Table:
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
            named = not all(map(_is_number, header))
            if not named:  # the first row is one of numbers already
                file.seek(0)
                lines, header = csv.reader(file, delimiter=mark, strict=True), [str(i) for i in range(len(header))]
            if twice := {cell for cell in header if header.count(cell) > 1}:
                raise LegatoError(f"'{path}' has two columns of the name '{min(twice)}'")
            chosen = _chosen(str(path), header, columns)
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
                    parts[column].append(_cells(str(path), column, cells, numbers, texts=texts))
        except UnicodeDecodeError:
            raise LegatoError(f"'{path}' is not text in UTF-8: save it so") from None
        except csv.Error as problem:
            raise LegatoError(f"'{path}' cannot be read as a table: {storage.line(problem)}") from None
    found = {column: _kept(str(path), column, parts.pop(column), columns) for column in chosen}
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


def _is_number(cell: str) -> bool:
    """As a table has it: Python's own `1_000` is none."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _cells(name: str, column: str, cells: list[str], numbers: list[int], texts: bool = False) -> np.ndarray:
    """Cells as numbers, empty ones as NaN; as texts where none is a number, or where `texts` are asked for."""
    if texts:
        return _texts(name, column, [cell.strip() for cell in cells])
    filled = [cell if cell.strip() else "nan" for cell in cells]
    try:
        if not all(map(str.isascii, filled)) or any("_" in cell for cell in filled):
            raise ValueError
        return np.array(filled, np.float64)
    except ValueError:
        odd = next(i for i, cell in enumerate(filled) if not _is_number(cell))
    if not any(_is_number(cell) for cell in filled if cell != "nan"):
        return _texts(name, column, cells)
    hint = "; write decimal points" if filled[odd].replace(",", "", 1).strip("+-").isdigit() else ""
    raise LegatoError(f"'{name}', line {numbers[odd]}: '{column}' is '{cells[odd][:50]}', no number{hint}")


def _texts(name: str, column: str, cells: list[str]) -> np.ndarray:
    """Texts as an array, in which each takes as much room as the longest."""
    if (longest := max(map(len, cells), default=0)) > CELL:
        raise LegatoError(f"'{name}': a cell of '{column}' has {longest} characters, more than {CELL}")
    return np.array(cells)


def concatenate(name: str, column: str, arrays: list[np.ndarray]) -> np.ndarray:
    """Parts of a column, one after another. Raises `LegatoError` where they are of different kinds."""
    if len({array.dtype.kind == "U" for array in arrays}) > 1:
        raise LegatoError(f"'{name}': '{column}' holds numbers in some places and texts in others")
    if len({array.shape[1:] for array in arrays}) > 1:
        raise LegatoError(f"'{name}': the lists in '{column}' are of different lengths")
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.zeros(0)


def _kept(name: str, column: str, parts: list[np.ndarray], columns: Columns) -> np.ndarray:
    """A column of parts: in float32 what will be learnt from, where its digits allow, and as it is what marks rows."""
    array = concatenate(name, column, parts)
    if array.dtype.kind != "f" or column in (columns.terminal, columns.episode, columns.time):
        return array
    if array.ndim == 1:
        warn_of_digits(name, column, array)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused where its place is known
        return array.astype(np.float32, copy=False)


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
            chosen = _chosen(str(path), header, columns)
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
                    parts += [_numbers(str(path), column, _array(path, column, chunk), texts) for chunk in chunks]
                found[column] = np.array(_kept(str(path), column, parts, columns))  # no view of what Arrow holds
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


def _numbers(name: str, column: str, array: np.ndarray, texts: bool = False) -> np.ndarray:
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
            return _texts(name, column, ["" if cell is None else str(cell) for cell in array.tolist()])
        try:
            return np.array([math.nan if cell is None else cell for cell in array.tolist()], np.float64)
        except (TypeError, ValueError):
            return _texts(name, column, ["" if cell is None else str(cell) for cell in array.tolist()])
    if array.dtype.kind in "US":
        return _texts(name, column, array.astype(np.str_).tolist())
    raise LegatoError(f"{name}: '{column}' holds {array.dtype}, neither numbers nor texts")


# --- columns ---


def _chosen(name: str, header: Sequence[str], columns: Columns) -> list[str]:
    """The columns that are needed, each once."""
    if not columns.observations or not columns.actions:
        raise LegatoError(
            f"which columns of '{name}' are observations, which actions? --observations and --actions with some of: "
            f"{some(header, 40)}"
        )
    found = [*matched(name, header, columns.observations), *matched(name, header, columns.actions)]
    if twice := {column for column in found if found.count(column) > 1}:
        raise LegatoError(f"'{min(twice)}' is named twice among observations and actions")
    for given in (columns.reward, columns.terminal, columns.episode, columns.time):
        if given is not None and given not in header:
            raise LegatoError(f"'{name}' has no column '{given}'; it has {some(header, 40)}")
        found += [given] if given is not None else []
    return list(dict.fromkeys(found))


def matched(name: str, header: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The columns that fit the patterns, in their order. Raises `LegatoError` for one that none fits."""
    found: list[str] = []
    for pattern in patterns:
        there = [pattern] if pattern in header else [c for c in header if fnmatch.fnmatchcase(c, pattern)]
        if not there:
            raise LegatoError(f"'{name}' has no column '{pattern}'; it has {some(header, 40)}")
        found += there
    return found


def _matrix(table: Table, names: Sequence[str], needed: Sequence[str | None]) -> np.ndarray:
    """Columns side by side in float32; those that are not `needed` any more are let go, one by one."""
    shapes = [np.shape(table.columns[column])[1:] for column in names]
    places = np.cumsum([0, *(shape[0] if shape else 1 for shape in shapes)])
    result = np.empty((table.rows, int(places[-1])), np.float32)
    for column, first, last in zip(names, places[:-1], places[1:], strict=True):
        array = table.columns[column] if column in needed else table.columns.pop(column)
        if array.dtype.kind == "U":
            raise LegatoError(f"'{table.name}': '{column}' holds texts such as '{str(array[0])[:50]}', no numbers")
        if column in needed and array.ndim == 1:  # which is not in float32
            warn_of_digits(table.name, column, array)
        with np.errstate(over="ignore"):
            result[:, first:last] = array if array.ndim == 2 else array[:, None]
    return result


# --- from rows to episodes ---


def from_rows(table: Table, columns: Columns) -> tuple[Trajectories, list[str]]:
    """Trajectories of a table that was read, and what was decided."""
    name, header = table.name, table.header
    seen, acted = (matched(name, header, names) for names in (columns.observations, columns.actions))
    if not table.rows:
        raise LegatoError(f"'{name}' holds no rows")
    said = [f"{table.rows} rows: observations {', '.join(seen)}; actions {', '.join(acted)}"]
    said += [] if table.named else ["there is no header: the first line is a row, and columns are 0, 1, 2, ..."]
    unused = [c for c in header if c not in table.columns]
    marks = (columns.terminal, columns.episode, columns.time)
    for column in (columns.reward, *marks):
        if column is not None and table.columns[column].ndim != 1:
            raise LegatoError(f"'{name}': '{column}' holds lists, and is to hold one value a row")
    observations = _matrix(table, seen, (columns.reward, *marks))
    actions = _matrix(table, acted, (columns.reward, *marks))
    reward = None if columns.reward is None else _matrix(table, [columns.reward], marks)
    terminal = np.zeros(len(actions), bool) if columns.terminal is None else _flags(table, columns.terminal, said)
    said += [f"not used: {some(unused)}"] if unused else []
    said.append(
        "no rewards: the logs can be imitated"
        if columns.reward is None
        else f"'{columns.reward}' is paid for its row's action"
    )
    begins = _begins(table, columns, terminal, said)
    held: list[tuple[list[str], np.ndarray]] = [(seen, observations), (acted, actions)]
    if columns.reward is not None and reward is not None:
        held.append(([columns.reward], reward))
    keep, begins = _without_missing(table, columns, held, begins, said)
    del held
    if keep is not None:
        observations, actions, terminal = observations[keep], actions[keep], terminal[keep]
        reward = None if reward is None else reward[keep]
    offsets = np.append(np.flatnonzero(begins), len(begins))
    lengths = np.diff(offsets)
    truncated = np.zeros(len(begins), bool)
    truncated[offsets[1:] - 1] = ~terminal[offsets[1:] - 1]
    least, most = lengths.min(), lengths.max()
    long = f"{least} to {most}" if most > least else str(least)
    said.append(
        f"{len(lengths)} episode{'s' if len(lengths) > 1 else ''} of {long} steps, "
        f"{int(terminal.sum())} terminated; what follows an episode's last step is not known"
    )
    about = _about(name, columns, actions, said)
    data = trajectories(
        observations,
        actions,
        None if reward is None else reward[:, 0],
        terminal,
        truncated,
        offsets,
        about=about,
        clip_actions=columns.clip_actions,
        start=columns.start,
    )
    return data, said


def _flags(table: Table, column: str, said: list[str]) -> np.ndarray:
    array = table.columns[column]
    if array.dtype.kind == "U" and np.isin(np.char.lower(array), ("true", "false", "")).all():
        return np.char.lower(array) == "true"
    if array.dtype.kind == "f" and np.isnan(array).any():
        said.append(f"empty cells of '{column}' mark nothing")
    if array.dtype.kind == "U" or not np.isin(array[~np.isnan(array)], (0, 1)).all():
        raise LegatoError(f"'{table.name}': '{column}' marks rows by 0 and 1, or true and false, and holds others")
    return array == 1


def _begins(table: Table, columns: Columns, terminal: np.ndarray, said: list[str]) -> np.ndarray:
    """The rows at which an episode begins."""
    rows = len(terminal)
    begins = np.zeros(rows, bool)
    begins[0] = True
    begins[1:] |= terminal[:-1]
    if columns.episode is not None:
        array = table.columns[columns.episode]
        empty = array == "" if array.dtype.kind == "U" else np.isnan(array)
        if empty.any():
            raise LegatoError(f"'{table.name}': '{columns.episode}' is empty in row {int(empty.argmax())}")
        change = np.append(True, array[1:] != array[:-1])
        values = array[change]
        if len(np.unique(values)) < len(values):
            _, first, back = np.unique(values, return_index=True, return_inverse=True)
            again = int(np.flatnonzero(first[back] != np.arange(len(values)))[0])
            raise LegatoError(
                f"'{table.name}' is not sorted by '{columns.episode}': {values[again]} comes again in row "
                f"{int(np.flatnonzero(change)[again])}"
            )
        begins |= change
        said.append(f"an episode begins where '{columns.episode}' changes")
    elif columns.episode_length is not None:
        begins[:: columns.episode_length] = True
        rest = rows % columns.episode_length
        said.append(f"an episode has {columns.episode_length} rows" + (f", the last one {rest}" if rest else ""))
    elif columns.gap is None and columns.terminal is None:
        ways = "--episode COLUMN, --episode-length ROWS, or --time COLUMN --gap SECONDS"
        raise LegatoError(
            f"where do the episodes of '{table.name}' end? {ways}; --episode-length {rows} takes all for one"
        )
    if columns.time is not None:
        _time(table, columns, begins, said)
    return begins


def _time(table: Table, columns: Columns, begins: np.ndarray, said: list[str]) -> None:
    """Look for rows that are missing or out of order, and begin episodes after gaps."""
    time, name = _seconds(table, columns), table.name
    if np.isnan(time).any():
        raise LegatoError(f"'{name}': '{columns.time}' is empty in row {int(np.isnan(time).argmax())}")
    if not np.isfinite(time).all():
        raise LegatoError(f"'{name}': '{columns.time}' is infinite in row {int((~np.isfinite(time)).argmax())}")
    apart = np.diff(time)
    within = ~begins[1:]
    fall = within & (apart <= 0)
    if fall.any():
        row = int(fall.argmax()) + 1
        what = "twice the same" if apart[row - 1] == 0 else "earlier than the row before"
        raise LegatoError(f"'{name}', row {row}: '{columns.time}' is {what}; sort the rows by it, without duplicates")
    if columns.gap is not None:
        late = within & (apart > columns.gap)
        begins[1:] |= late
        within &= ~late
        said.append(f"an episode begins after {columns.gap:g} s without a row: {int(late.sum())} times")
    if not within.any():
        return
    period = float(np.median(apart[within]))
    early, late = within & (apart < (1 - REGULAR) * period), within & (apart > (1 + REGULAR) * period)
    if columns.gap is None and late.any() and late.sum() <= 0.05 * within.sum():
        row = int(late.argmax()) + 1
        raise LegatoError(
            f"'{name}', row {row}: {apart[row - 1]:g} s after the one before, where the period is {period:.4g} s: "
            f"--gap {2 * period:.4g} ends an episode there (instead of --episode and --episode-length)"
        )
    if early.any() or late.any():
        odd = int((early | late).sum())
        raise LegatoError(
            f"'{name}' mixes periods: {odd} of {int(within.sum())} rows come {apart[within].min():g} to "
            f"{apart[within].max():g} s after the one before, most after {period:.4g} s; write rows of one period"
        )
    said.append(f"a step is {period:.4g} s")


def _seconds(table: Table, columns: Columns) -> np.ndarray:
    assert columns.time is not None
    array = table.columns[columns.time]
    if array.dtype.kind != "U":
        return array
    found = np.empty(len(array))
    for row, text in enumerate(array.tolist()):
        try:
            found[row] = _stamp(text.strip()) if text.strip() else np.nan
        except ValueError:
            what = f"'{table.name}', row {row}: '{columns.time}' is '{text[:50]}'"
            raise LegatoError(f"{what}; times are seconds or 2025-01-31T13:00:00") from None
    return found - found[0]


def _stamp(text: str) -> float:
    """Seconds of a date and time of ISO 8601; without an offset they are of UTC. Raises `ValueError` for others."""
    stamp = datetime.fromisoformat(text)
    return (stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp).timestamp()


def _without_missing(
    table: Table,
    columns: Columns,
    held: list[tuple[list[str], np.ndarray]],
    begins: np.ndarray,
    said: list[str],
) -> tuple[np.ndarray | None, np.ndarray]:
    """The rows to keep, if not all, and at which of these an episode begins; repeats values in place where asked."""
    rows = len(begins)
    empty = np.zeros(rows, bool)
    first: tuple[int, str] | None = None
    for names, array in held:
        lacks = np.isnan(array)
        if lacks.any() and first is None:
            row = int(lacks.any(axis=1).argmax())
            first = row, names[int(lacks[row].argmax())] if len(names) == array.shape[1] else names[0]
        empty |= lacks.any(axis=1)
    if first is None:
        return None, begins
    if columns.missing == "error":
        raise LegatoError(
            f"'{table.name}', row {first[0]}: '{first[1]}' is empty, and so are cells of {int(empty.sum())} rows in "
            "all: --missing drop leaves such rows out, --missing hold repeats the value before"
        )
    if columns.missing == "hold":
        offsets = np.append(np.flatnonzero(begins), rows)
        number = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        for _, array in held:
            for column in array.T:
                last = np.maximum.accumulate(np.where(np.isnan(column), -1, np.arange(len(column))))
                known = (last >= 0) & (last >= offsets[number])
                column[known] = column[last[known]]
        said.append(f"empty cells of {int(empty.sum())} rows repeat the value before")
        empty = np.zeros(rows, bool)
        for _, array in held:
            empty |= np.isnan(array).any(axis=1)
    keep = ~empty
    if not keep.any():
        raise LegatoError(f"'{table.name}' has no row without an empty cell")
    begins = begins | np.append(False, empty[:-1])
    # An episode whose first row is left out begins with the next one that is kept.
    number = np.cumsum(begins)[keep]
    if empty.any():
        said.append(f"{int(empty.sum())} rows with empty cells are left out; an episode ends before each")
    return keep, np.append(True, number[1:] != number[:-1])


def _about(name: str, columns: Columns, actions: np.ndarray, said: list[str]) -> About:
    stem = Path(name).stem
    if columns.choices is not None:
        said.append(
            f"one of {columns.choices} discrete actions, {columns.start} to {columns.start + columns.choices - 1}"
        )
        return About(stem, columns.environment, choices=columns.choices, start=columns.start)
    size = actions.shape[1]
    if columns.low:
        bounds = [b * size if len(b) == 1 else b for b in (tuple(columns.low), tuple(columns.high))]
        for which, bound in zip(("low", "high"), bounds, strict=True):
            if len(bound) != size:
                raise LegatoError(f"{which} has {len(bound)} bounds for actions of {size} numbers")
        if any(a >= b for a, b in zip(*bounds, strict=True)):
            raise LegatoError("each lower bound lies below its upper one")
        said.append("actions lie " + ", ".join(f"in [{a:g}, {b:g}]" for a, b in zip(*bounds, strict=True)))
        return About(stem, columns.environment, low=bounds[0], high=bounds[1])
    used = f"{actions.min():.4g} to {actions.max():.4g}"
    if np.abs(actions).max() <= 1:
        said.append(f"bounds of actions are not given: -1 and 1, as all lie there ({used})")
    else:
        said.append(f"bounds of actions are not given, and the logs use {used}: --low and --high say them")
    return About(stem, columns.environment)
